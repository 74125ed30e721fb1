//! `spendfuse alerts test`: one message, by this process itself, so that the answer can be shown.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde_json::json;
use spendfuse_domain::Severity;
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};
use spendfuse_notify::letter::{Letter, What};
use spendfuse_notify::rules::Outcome;
use tokio::runtime::Runtime;

use super::super::output;
use super::super::{Failure, found_wrong};
use super::TestArgs;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &TestArgs) -> Result<ExitCode, Failure> {
    if let Some(complaint) = settings.complaint_about_place(&args.to) {
        return Err(Failure::usage(complaint));
    }
    let channels = settings.channels().map_err(Failure::usage)?;
    let runtime = Runtime::new().map_err(Failure::work)?;
    let letter = letter(&args.to);
    let outcome = runtime.block_on(channels.send(&letter));
    let (is_delivered, reason) = match &outcome {
        Outcome::Delivered => (true, None),
        Outcome::Later { reason, .. } | Outcome::Refused { reason } => (false, Some(reason)),
    };
    let to = &args.to;
    if args.json {
        output::json(&json!({
            "to": to, "id": letter.id, "delivered": is_delivered, "reason": reason,
        }));
    } else {
        output::line(match reason {
            None => format!("{to} has taken message {}", letter.id),
            Some(reason) => format!("{to} has not taken the message: {reason}"),
        });
    }
    Ok(match is_delivered {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

fn letter(to: &str) -> Letter {
    let now = output::now();
    let alert = Alert {
        v: 1,
        key: format!("test|{to}|{}", now.0),
        kind: AlertKind::Finding,
        severity: Severity::Info,
        scope: "*".to_owned(),
        subject: "spendfuse alerts test".to_owned(),
        message: format!("spendfuse reaches {to}; nothing has happened"),
        at: now,
        count: None,
        details: AlertDetails::default(),
    };
    Letter {
        id: alert.id(),
        what: What::Test,
        route: "test".to_owned(),
        to: to.to_owned(),
        alerts: vec![alert],
        over: BTreeSet::new(),
        passed: Vec::new(),
        created_at: now,
    }
}
