//! What the audit prints.

use serde_json::{Value, json};
use spendfuse_audit::Round;
use spendfuse_domain::Amount;
use spendfuse_engine::audit::{Differences, Tally};

use super::super::gaps::{gap_json, gap_text};
use super::super::output::{
    self, Colour, Side, counted, dollars, grouped, keep_whole, print_table, table,
};

/// Prints a whole round.
pub fn round(round: &Round, as_json: bool) {
    if as_json {
        output::json(&round_json(round));
        return;
    }
    summary(round);
    for note in &round.notes {
        let text = format!("not compared: {}", note.text);
        output::coloured_line(&text, Colour::Yellow);
    }
    for gap in &round.gaps {
        let text = format!("accepted gap: {}", gap_text(gap));
        output::coloured_line(&text, Colour::Yellow);
    }
    output::line("");
    differences(&round.differences());
}

/// Prints a round of a watch as one line, and what it found.
pub fn line(round: &Round, found: &Differences, accounts: usize, as_json: bool) {
    if as_json {
        let mut line = round_json(round);
        line["drift_events"] = json!(found.drift_events());
        line["drift_nanodollars"] = json!(found.drift().get().to_string());
        output::json(&line);
        return;
    }
    let (events, cost) = round.counted();
    let time = output::now();
    let notes: Vec<&str> = round.notes.iter().map(|note| note.text.as_str()).collect();
    let notes = match notes.as_slice() {
        [] => String::new(),
        some => format!("; not compared: {}", some.join("; ")),
    };
    let (drift, colour) = match found.is_empty() {
        true => ("no drift".to_owned(), Colour::Green),
        false => (drift_text(found), Colour::Red),
    };
    let compared = format!(
        "{time} {} of {} compared, {} of budgets ({} in memory), {} of the blocklist: ",
        counted(events, "event"),
        dollars(cost),
        counted(round.windows.windows, "window"),
        grouped(accounts as u64),
        counted(round.entries, "key"),
    );
    let gaps = match round.gaps.len() {
        0 => String::new(),
        some => format!("; {} accepted", counted(some as u64, "gap")),
    };
    output::parts(&[
        (&compared, None),
        (&drift, Some(colour)),
        (&notes, None),
        (&gaps, None),
    ]);
    let here = round.differences();
    if !here.is_empty() {
        differences(&here);
    }
}

fn summary(round: &Round) {
    let mut rows = table([
        ("METER", Side::Left),
        ("COMMITS", Side::Left),
        ("EVENTS", Side::Right),
        ("COST", Side::Right),
        ("ROWS", Side::Right),
        ("COST", Side::Right),
    ]);
    for (partition, (home, range)) in round.input.homes.iter().zip(&round.ranges).enumerate() {
        let commits = match range.from <= range.to {
            true => format!("{}–{}", range.from, range.to),
            false => "-".to_owned(),
        };
        rows.add_row([
            partition.to_string(),
            commits,
            events_text(home.counted),
            dollars(home.counted.cost),
            events_text(home.rows),
            dollars(home.rows.cost),
        ]);
    }
    print_table(&rows);
    let input = &round.input;
    output::line(format!(
        "input: {}, {}, {} in the DLQ, {}",
        counted(input.records, "record"),
        counted(input.duplicates, "duplicate"),
        grouped(input.rejected),
        counted(input.session_ends, "session end"),
    ));
    output::line(format!(
        "budgets: {}, {} of the blocklist",
        counted(round.windows.windows, "window"),
        counted(round.entries, "key"),
    ));
}

fn differences(found: &Differences) {
    if found.is_empty() {
        output::coloured_line("no drift", Colour::Green);
        return;
    }
    let mut rows = table([
        ("DIFFERENCE", Side::Left),
        ("WHERE", Side::Left),
        ("FROM COMMIT", Side::Right),
        ("COUNT", Side::Right),
        ("EXPECTED", Side::Right),
        ("FOUND", Side::Right),
        ("FIRST", Side::Left),
    ]);
    for (kind, site, group) in found.groups() {
        let seq = group.from_seq;
        rows.add_row([
            kind.name().to_owned(),
            site.text(),
            seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string()),
            grouped(group.count),
            tally_text(group.expected),
            tally_text(group.found),
            group.examples.first().cloned().unwrap_or_default(),
        ]);
    }
    keep_whole(&mut rows, &[0, 1, 2, 3, 4, 5]);
    print_table(&rows);
    output::coloured_line(drift_text(found), Colour::Red);
}

fn drift_text(found: &Differences) -> String {
    format!(
        "drift: {}, {}",
        counted(found.drift_events(), "event"),
        dollars(found.drift())
    )
}

/// Entries of calls and payments; they may take others back.
fn events_text(tally: Tally) -> String {
    let figure = Amount::Calls(tally.events.into()).figure();
    let entries = match tally.events {
        1 => "entry",
        _ => "entries",
    };
    format!("{figure:#} {entries}")
}

fn tally_text(tally: Tally) -> String {
    format!("{} / {}", events_text(tally), dollars(tally.cost))
}

fn tally_json(tally: Tally) -> Value {
    json!({"events": tally.events, "cost_usd": tally.cost})
}

fn round_json(round: &Round) -> Value {
    let differences = round.differences();
    let groups: Vec<Value> = differences
        .groups()
        .map(|(kind, site, group)| {
            json!({
                "difference": kind.name(),
                "where": site.text(),
                "from_seq": group.from_seq,
                "to_seq": group.to_seq,
                "count": group.count,
                "expected": tally_json(group.expected),
                "found": tally_json(group.found),
                "drift_events": group.drift_events,
                "drift_nanodollars": group.drift.get().to_string(),
                "examples": group.examples,
            })
        })
        .collect();
    let homes = round.input.homes.iter().zip(&round.ranges).enumerate();
    let partitions: Vec<Value> = homes
        .map(|(partition, (home, range))| {
            json!({
                "meter_partition": partition,
                "from_seq": range.from,
                "to_seq": range.to,
                "input": tally_json(home.counted),
                "rows": tally_json(home.rows),
            })
        })
        .collect();
    let notes: Vec<&str> = round.notes.iter().map(|note| note.text.as_str()).collect();
    let (events, cost) = round.counted();
    json!({
        "drift_events": differences.drift_events(),
        "drift_nanodollars": differences.drift().get().to_string(),
        "differences": groups,
        "compared": {
            "events": events,
            "cost_usd": cost,
            "records": round.input.records,
            "duplicates": round.input.duplicates,
            "rejected": round.input.rejected,
            "session_ends": round.input.session_ends,
            "partitions": partitions,
            "windows": round.windows.windows,
            "blocklist": round.entries,
        },
        "not_compared": notes,
        "accepted_gaps": round.gaps.iter().map(gap_json).collect::<Vec<_>>(),
    })
}
