//! The summary in plain text: what came out, whether it adds up, three questions with answers.

use std::borrow::Cow;
use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use spendfuse_domain::amount::grouped;
use spendfuse_domain::{Nanos, printable};

use crate::board::{Board, short_scope};
use crate::outcome::Outcome;
use crate::questions::Answered;

/// Columns of the tables where the terminal does not say.
const WIDTH: u16 = 100;

/// The summary.
pub fn text(outcome: &Outcome, board: &Board, answers: &[Answered], width: Option<u16>) -> String {
    let width = width.unwrap_or(WIDTH).clamp(60, 160);
    let mut text = String::new();
    totals(&mut text, outcome);
    agent_runs(&mut text, board, width);
    for answered in answers {
        question(&mut text, answered, width);
    }
    verdict(&mut text, outcome, width);
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

fn totals(text: &mut String, outcome: &Outcome) {
    let found = outcome.whereabouts;
    let seconds = outcome.elapsed.as_secs_f64();
    line(
        text,
        format_args!(
            "\nEvents      {} produced in {seconds:.1} s",
            grouped(outcome.produced)
        ),
    );
    line(
        text,
        format_args!(
            "            {} counted, {} duplicates, {} rejected for {} reasons",
            grouped(found.counted),
            grouped(found.duplicates),
            grouped(found.rejected),
            outcome.rejected.len()
        ),
    );
    let spend = [
        ("ledger", outcome.ledger),
        ("ClickHouse", outcome.warehouse),
        ("reference", outcome.reference),
    ];
    for (index, (name, amount)) in spend.into_iter().enumerate() {
        let title = if index == 0 { "Spend" } else { "" };
        line(text, format_args!("{title:11} {name:10} ${amount}"));
    }
    let findings = list(outcome.findings.iter().map(|(name, count)| (*name, *count)));
    line(text, format_args!("Findings    {findings}"));
    line(
        text,
        format_args!(
            "Enforcement {} scopes blocked; {} of {} calls that asked were refused; ${} slipped past the limits",
            outcome.blocked_scopes,
            grouped(outcome.refused_calls),
            grouped(outcome.asked_calls),
            outcome.overspend
        ),
    );
    line(
        text,
        format_args!(
            "            event to verdict p50 {} ms, p99 {} ms over {} verdicts; a check took p50 {} µs, p99 {} µs",
            outcome.lag_p50_millis,
            outcome.lag_p99_millis,
            outcome.lag_samples,
            outcome.check_p50_micros,
            outcome.check_p99_micros
        ),
    );
    if let Some(after) = outcome.let_in_after {
        line(
            text,
            format_args!(
                "            the upgraded customer was let in {} ms after its upgrade",
                after.as_millis()
            ),
        );
    }
}

/// What the detectors say about the real agent runs.
fn agent_runs(text: &mut String, board: &Board, width: u16) {
    let findings = board.findings.values();
    let mut rows: Vec<[Cow<'_, str>; 4]> = findings
        .filter(|finding| finding.scope.contains("session=run-"))
        .map(|finding| {
            [
                short_scope(&finding.scope).into(),
                finding.detector.name().into(),
                finding.severity.name().into(),
                printable(&finding.message),
            ]
        })
        .collect();
    rows.sort_unstable();
    let mut table = plain_table(width);
    table.set_header(["session", "detector", "severity", "message"]);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((2, 0));
    }
    line(
        text,
        format_args!("\nWhat do the detectors say about the six real agent runs?\n"),
    );
    line(text, format_args!("{}", table.trim_fmt()));
}

fn question(text: &mut String, answered: &Answered, width: u16) {
    line(text, format_args!("\n{}\n", answered.question));
    for sql in answered.sql.lines() {
        line(text, format_args!("  {sql}"));
    }
    let mut table = plain_table(width);
    table.set_header(&answered.answer.columns);
    for row in &answered.answer.rows {
        table.add_row(row.iter().map(|value| printable(value)));
    }
    let is_number = |index: usize| {
        let mut values = answered.answer.rows.iter().filter_map(|row| row.get(index));
        values.all(|value| value == "NULL" || value.parse::<f64>().is_ok())
    };
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 0));
        if is_number(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    line(text, format_args!("\n{}", table.trim_fmt()));
}

fn verdict(text: &mut String, outcome: &Outcome, width: u16) {
    if outcome.is_well() {
        line(
            text,
            format_args!("\nAll adds up: ledger = ClickHouse = reference, to the nano-dollar."),
        );
        return;
    }
    line(
        text,
        format_args!("\nIt does not add up:\n\n{}", differences(outcome, width)),
    );
}

/// The table of what does not add up.
pub fn differences(outcome: &Outcome, width: u16) -> String {
    let mut table = plain_table(width);
    table.set_header(["WHAT", "EXPECTED", "FOUND"]);
    for one in &outcome.differences {
        let cells = [&one.what, &one.expected, &one.found];
        table.add_row(cells.map(|text| printable(text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let gap = Nanos::new(outcome.ledger.get() - outcome.reference.get());
    format!("{}\nledger - reference = ${gap}", table.trim_fmt())
}

fn plain_table(width: u16) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    table
}

fn list<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let parts: Vec<String> = counts
        .map(|(name, count)| format!("{name} {}", grouped(count)))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}
