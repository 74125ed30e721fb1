//! `spendfuse alerts resend|mute`: what a running notifier is asked for, written to all of its
//! partitions, since each alert is known to one of them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;
use spendfuse_bus::{OutputRecord, write_in_one_transaction};
use spendfuse_domain::UnixMillis;
use spendfuse_notify::rules::message::Untold;
use spendfuse_notify::rules::{MOST_MUTES, Request, muted};

use super::super::Failure;
use super::super::kafka::{self, PATIENCE};
use super::super::output::{self, grouped};
use super::{MuteArgs, ShowArgs, told};
use crate::settings::Settings;

pub(super) fn resend(settings: &Settings, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let alerts = told::read(settings)?;
    let alert = args.alert.clone();
    let known = alerts.iter().find(|told| told.alert.id() == alert);
    let Some((known, entry)) = known.and_then(|told| Some((&told.alert, told.entry.as_ref()?)))
    else {
        return Err(Failure::work(format!(
            "no notifier knows an alert {alert}; `spendfuse alerts list` shows all"
        )));
    };
    let routes = settings.notifier().routes;
    if entry.untold == Some(Untold::NoRoute) && routes.of(known).is_empty() {
        return Err(Failure::work(format!(
            "no route takes alert {alert}, so nobody would be told: let one of notifier.routes take \
             it, start the notifier again, and repeat this with the same settings"
        )));
    }
    let request = Request::Resend {
        alert: alert.clone(),
    };
    write(settings, &request)?;
    match args.json {
        true => output::json(&json!({"alert": alert, "requested": true})),
        false => output::line(format!("a notifier tells of {alert} once more")),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn mute(settings: &Settings, args: &MuteArgs) -> Result<ExitCode, Failure> {
    let now = output::now();
    let in_force = mutes(settings, now)?;
    match args.off {
        true => tell_again(settings, args, now, &in_force),
        false => tell_nobody(settings, args, now, &in_force),
    }
}

/// What is muted, and until when, as the notifier stored it.
type Mutes = BTreeMap<String, UnixMillis>;

fn mutes(settings: &Settings, now: UnixMillis) -> Result<Mutes, Failure> {
    let table = kafka::read_table(settings, &settings.topics().notifier_changelog)?;
    let all = table.iter().filter_map(|(key, value)| muted(key, value));
    let in_force = all.filter(|(_, until)| *until > now);
    let in_force = in_force.map(|(scope, until)| (scope.to_owned(), until));
    Ok(in_force.collect())
}

fn tell_nobody(
    settings: &Settings,
    args: &MuteArgs,
    now: UnixMillis,
    in_force: &Mutes,
) -> Result<ExitCode, Failure> {
    let scope = args.scope.clone();
    if in_force.len() >= MOST_MUTES && !in_force.contains_key(&scope) {
        return Err(Failure::work(format!(
            "{} scopes are muted, and no more can be: mute what they begin with instead, or end \
             some with --off",
            grouped(in_force.len() as u64)
        )));
    }
    let millis = i64::try_from(args.span.as_millis()).unwrap_or(i64::MAX);
    let until = now.plus(millis);
    let request = Request::Mute {
        scope: scope.clone(),
        until,
    };
    write(settings, &request)?;
    match args.json {
        true => output::json(&json!({"scope": scope, "muted": true, "until": until})),
        false => output::line(format!(
            "nobody is told of {scope}… until {until}; alerts list shows what is"
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_again(
    settings: &Settings,
    args: &MuteArgs,
    now: UnixMillis,
    in_force: &Mutes,
) -> Result<ExitCode, Failure> {
    let scope = args.scope.clone();
    // Whatever is known: a notifier may not have stored yet what was asked for just now.
    let request = Request::Mute {
        scope: scope.clone(),
        until: now,
    };
    write(settings, &request)?;
    let all = in_force.keys();
    let (ended, others): (Vec<&String>, Vec<&String>) =
        all.partition(|muted| muted.starts_with(scope.as_str()));
    // One of all of a workspace holds for its customers, too.
    let others = others.into_iter();
    let above: Vec<&String> = others
        .filter(|muted| scope.starts_with(muted.as_str()))
        .collect();
    if args.json {
        output::json(&json!({
            "scope": scope, "muted": !above.is_empty(), "until": now, "ended": ended,
            "muted_by": above,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    for muted in &ended {
        output::line(format!("people are told of {muted} again"));
    }
    if ended.is_empty() {
        output::line(format!("nothing was muted that begins with {scope}"));
    }
    for muted in above {
        output::line(format!(
            "nobody is told of {scope}, because {muted} is muted; `spendfuse alerts mute {muted} \
             --off` ends that"
        ));
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
