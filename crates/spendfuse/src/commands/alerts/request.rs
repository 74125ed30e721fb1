//! `spendfuse alerts resend|mute`: what a running notifier is asked for, written to all of its
//! partitions, since each alert is known to one of them.

use std::process::ExitCode;

use serde_json::json;
use spendfuse_bus::{OutputRecord, write_in_one_transaction};
use spendfuse_notify::rules::Request;

use super::super::kafka::{self, PATIENCE};
use super::super::output;
use super::super::{Failure, found_wrong};
use super::{MuteArgs, ShowArgs, told};
use crate::settings::Settings;

pub(super) fn resend(settings: &Settings, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let alerts = told::read(settings)?;
    let known = alerts.iter().find(|told| told.alert.id() == args.alert);
    let is_known = known.is_some_and(|told| told.entry.is_some());
    if is_known {
        let alert = args.alert.clone();
        write(settings, &Request::Resend { alert })?;
    }
    if args.json {
        output::json(&json!({"alert": args.alert, "requested": is_known}));
    } else {
        output::line(match is_known {
            true => format!("a notifier tells of {} once more", args.alert),
            false => format!("no notifier knows an alert {}", args.alert),
        });
    }
    Ok(match is_known {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

pub(super) fn mute(settings: &Settings, args: &MuteArgs) -> Result<ExitCode, Failure> {
    let now = output::now();
    let millis = i64::try_from(args.span.as_millis()).unwrap_or(i64::MAX);
    let until = match args.off {
        true => now,
        false => now.plus(millis),
    };
    let scope = args.scope.clone();
    write(
        settings,
        &Request::Mute {
            scope: scope.clone(),
            until,
        },
    )?;
    if args.json {
        output::json(&json!({"scope": scope, "muted": !args.off, "until": until}));
    } else {
        output::line(match args.off {
            true => format!("people are told of {scope} again"),
            false => format!("nobody is told of {scope}… until {until}; alerts list shows what is"),
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn write(settings: &Settings, request: &Request) -> Result<(), Failure> {
    let topic = settings.topics().notifier_requests;
    let value = serde_json::to_vec(request).map_err(Failure::work)?;
    let records: Vec<OutputRecord> = (0..settings.partitions())
        .map(|partition| OutputRecord {
            topic: topic.clone(),
            partition,
            key: None,
            value: Some(value.clone()),
            headers: Vec::new(),
        })
        .collect();
    let id = kafka::transactional_id(settings, "alerts");
    write_in_one_transaction(&settings.kafka(), &id, &records, PATIENCE)
        .map_err(|error| kafka::failure(settings, &error))
}
