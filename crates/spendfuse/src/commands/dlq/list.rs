//! `spendfuse dlq list`.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;

use super::super::output::{self, Side, ago, counted, grouped, print_table, table};
use super::records::{self, OWN_HEADERS, Part, Place, SetAside};
use super::{Failure, audit, kafka, known_reason};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only events rejected for this reason
    #[arg(long, value_parser = known_reason)]
    reason: Option<String>,
    /// Also show events that were replayed or found to be counted
    #[arg(long)]
    all: bool,
    /// Only events set aside within this time, such as 2h
    #[arg(long, value_name = "DURATION", value_parser = audit::duration)]
    since: Option<Duration>,
    /// Events to print at most, the latest; 0 = all, however many there are
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Print JSON, with keys, values and headers
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let part = match args.since {
        Some(since) => {
            let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            Part::since(settings, output::now().plus(-millis).max(UnixMillis(0)))?
        }
        None if args.limit == 0 => Part::all(settings)?,
        None => Part::lately(settings)?,
    };
    let mut events = records::read(settings, &part)?;
    events.retain(|event| {
        let is_wanted = args.reason.as_ref().is_none_or(|one| *one == event.reason);
        is_wanted && (args.all || !event.is_settled)
    });
    events.sort_by_key(|event| (std::cmp::Reverse(event.logged_at), event.at));
    let total = events.len();
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &events {
        *by_reason.entry(&event.reason).or_default() += 1;
    }
    let shown = if args.limit == 0 { total } else { args.limit };
    let shown = &events[..shown.min(total)];
    if args.json {
        let contents = contents(settings, shown)?;
        let listed: Vec<Value> = shown
            .iter()
            .map(|event| event_json(event, contents.get(&event.at)))
            .collect();
        output::json(&json!({
            "total": total, "by_reason": by_reason, "since": part.since, "events": listed,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let since = match part.since {
        Some(since) => format!(" of those set aside since {since}"),
        None => String::new(),
    };
    if events.is_empty() {
        output::line(format!("no events wait in the DLQ{since}"));
        return Ok(ExitCode::SUCCESS);
    }
    let reasons: Vec<String> = by_reason
        .iter()
        .map(|(reason, count)| format!("{} {reason}", grouped(*count)))
        .collect();
    output::line(format!(
        "{}{since}: {}",
        counted(total as u64, "event"),
        reasons.join(", ")
    ));
    output::line("");
    print_events(shown, args.all);
    if shown.len() < total {
        let more = grouped((total - shown.len()) as u64);
        output::line(format!("and {more} earlier ones; --limit 0 prints all"));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_events(events: &[SetAside], with_settled: bool) {
    let now = output::now();
    let mut rows = table([
        ("WHEN", Side::Left),
        ("REASON", Side::Left),
        ("USAGE", Side::Left),
        ("DLQ", Side::Left),
        ("DETAIL", Side::Left),
    ]);
    for event in events {
        let settled = if with_settled && event.is_settled {
            "settled; "
        } else {
            ""
        };
        rows.add_row([
            ago(event.logged_at, now),
            event.reason.clone(),
            event.origin.map_or_else(String::new, place_text),
            place_text(event.at),
            format!("{settled}{}", event.detail),
        ]);
    }
    output::keep_whole(&mut rows, &[0, 1, 2, 3]);
    print_table(&rows);
}

fn place_text((partition, offset): Place) -> String {
    format!("{partition}@{offset}")
}

/// What a record holds beyond its place.
struct Content {
    key: Option<Vec<u8>>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

/// The contents of these events; read again, because they are large and lists usually are short.
fn contents(settings: &Settings, events: &[SetAside]) -> Result<HashMap<Place, Content>, Failure> {
    let topic = settings.topics().dlq;
    let places: std::collections::HashSet<Place> = events.iter().map(|event| event.at).collect();
    let mut ranges = kafka::ranges(settings, &topic)?;
    for range in &mut ranges {
        let offsets = places.iter().filter(|place| place.0 == range.partition);
        let offsets = offsets.map(|place| place.1);
        // A partition without a wanted event is not read at all.
        range.from = offsets.clone().min().unwrap_or(range.to);
        range.to = offsets.max().map_or(range.to, |last| last + 1);
    }
    let mut contents = HashMap::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    kafka::read(settings, &topic, &ranges, &mut |record| {
        let at = (record.partition, record.offset);
        if places.contains(&at) {
            let own = |name: &str| name.starts_with(OWN_HEADERS);
            let headers = record.headers.iter().filter(|(name, _)| !own(name));
            let content = Content {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(text),
                headers: headers
                    .map(|(name, value)| (name.to_owned(), text(value)))
                    .collect(),
            };
            contents.insert(at, content);
        }
        ControlFlow::Continue(())
    })?;
    Ok(contents)
}

/// Keys may be any bytes, such as the identity of an event without a session.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn event_json(event: &SetAside, content: Option<&Content>) -> Value {
    let place = |(partition, offset): Place| json!({"partition": partition, "offset": offset});
    let headers: Option<serde_json::Map<String, Value>> = content.map(|content| {
        let headers = content.headers.iter();
        headers
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect()
    });
    let key = content.and_then(|content| content.key.as_deref());
    json!({
        "reason": event.reason,
        "detail": event.detail,
        "set_aside_at": event.logged_at,
        "usage": event.origin.map(place),
        "dlq": place(event.at),
        "settled": event.is_settled,
        "key": key.and_then(|key| std::str::from_utf8(key).ok()),
        "key_hex": key.map(hex),
        "value": content.and_then(|content| content.value.as_deref()),
        "headers": headers,
    })
}
