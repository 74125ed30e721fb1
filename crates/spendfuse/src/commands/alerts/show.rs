//! `spendfuse alerts show`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use spendfuse_notify::letter::{Letter, What};
use spendfuse_notify::rules::message::{Message, State};
use spendfuse_notify::text::words;

use super::super::Failure;
use super::super::output::{self, counted};
use super::{ShowArgs, told};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let alerts = told::read(settings)?;
    let found = alerts.iter().find(|told| told.alert.id() == args.alert);
    let Some(found) = found else {
        return Err(Failure::work(format!(
            "no alert of the last 30 days has the id {}; `spendfuse alerts list` shows all",
            args.alert
        )));
    };
    if args.json {
        output::json(&found.to_json());
        return Ok(ExitCode::SUCCESS);
    }
    let letter = Letter {
        id: found.alert.id(),
        what: What::New,
        route: String::new(),
        to: String::new(),
        alerts: vec![found.alert.clone()],
        over: BTreeSet::new(),
        passed: Vec::new(),
        created_at: found.alert.at,
    };
    for line in words(&letter).plain().lines() {
        output::line(line);
    }
    output::line("");
    if found.messages.is_empty() {
        output::line(format!("told: {}", found.outcome()));
    }
    for message in &found.messages {
        print(message);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(message: &Message) {
    let (what, route) = (message.what.name(), &message.route);
    let (state, to) = (message.state.name(), message.to());
    let time = message.ended_at.unwrap_or(message.created_at);
    output::line(format!("{what} by route {route}: {state} {to}, {time}"));
    for passed in &message.passed {
        output::line(format!(
            "  {} did not take it: {}",
            passed.to, passed.reason
        ));
    }
    if let (Some(error), true) = (&message.error, message.state != State::Delivered) {
        let attempts = counted(message.attempts.into(), "attempt");
        output::line(format!("  {attempts}, the last one: {error}"));
        if message.state.is_open() {
            output::line(format!("  next attempt {}", message.due_at));
        }
    }
}
