//! What commands print: lines, JSON, tables that fit the terminal, amounts and times for people.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{
    Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets,
};
use serde::Serialize;
use spendfuse_domain::{Nanos, UnixMillis, Verdict};

/// Writes a line to standard output.
pub fn line(text: impl Display) {
    let mut output = io::stdout().lock();
    if let Err(error) = writeln!(output, "{text}") {
        // Whoever reads has seen enough (`| head`): no failure of ours.
        let code = i32::from(error.kind() != ErrorKind::BrokenPipe);
        std::process::exit(code);
    }
}

/// Writes a note to standard error: what is no result.
pub fn note(text: impl Display) {
    // Nobody is left to tell where even this fails.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl Serialize) {
    line(serde_json::to_string(value).expect("texts and numbers always become JSON"));
}

/// On which side the values of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table without lines, headers in capitals. On a terminal it wraps to its width; elsewhere every
/// row is one line.
pub fn table<const N: usize>(columns: [(&str, Side); N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(columns.map(|(name, _)| name));
    for (column, (_, side)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        column.set_cell_alignment(match side {
            Side::Left => CellAlignment::Left,
            Side::Right => CellAlignment::Right,
        });
    }
    table
}

/// Keeps columns whole where the table must be made narrower; the others wrap.
pub fn keep_whole(table: &mut Table, columns: &[usize]) {
    for place in columns {
        if let Some(column) = table.column_mut(*place) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Hides a column on terminals with fewer than `columns` characters a line.
pub fn hide_below(table: &mut Table, place: usize, columns: u16) {
    let is_narrow = table.width().is_some_and(|width| width < columns);
    if let Some(column) = table.column_mut(place).filter(|_| is_narrow) {
        column.set_constraint(ColumnConstraint::Hidden);
    }
}

/// Prints a table.
pub fn print_table(table: &Table) {
    line(table.trim_fmt());
}

/// A colour for a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Yellow,
}

/// `text` in a colour, where standard output is a terminal and nobody asked for none.
pub fn coloured(text: &str, colour: Colour) -> String {
    let wanted = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if !wanted {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Red => 31,
        Colour::Green => 32,
        Colour::Yellow => 33,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A verdict's colour: green lets through, yellow warns, red refuses.
pub fn verdict_colour(verdict: Verdict) -> Colour {
    match verdict {
        Verdict::Ok => Colour::Green,
        Verdict::Warn | Verdict::Downgrade => Colour::Yellow,
        Verdict::Block => Colour::Red,
    }
}

/// A verdict in its colour.
pub fn verdict_cell(verdict: Verdict) -> Cell {
    Cell::new(verdict.name()).fg(match verdict_colour(verdict) {
        Colour::Red => Color::Red,
        Colour::Green => Color::Green,
        Colour::Yellow => Color::Yellow,
    })
}

/// The time by this machine's clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}

/// An amount in dollars, with its sign.
pub fn dollars(amount: Nanos) -> String {
    let text = amount.to_string();
    match text.strip_prefix('-') {
        Some(positive) => format!("-${positive}"),
        None => format!("${text}"),
    }
}

/// A whole number with separators: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 event`, `3 events`.
pub fn counted(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", grouped(number))
}

/// A length of time in its two largest units: `3d 4h`, `12m 5s`, `0s`.
pub fn span(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, size) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 || (name == "s" && parts.is_empty()) {
            parts.push(format!("{count}{name}"));
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

/// How long until `time`: `in 4h 44m`.
pub fn until(time: UnixMillis, now: UnixMillis) -> String {
    match time.since(now) {
        ahead if ahead > 0 => format!("in {}", span(ahead)),
        _ => "now".to_owned(),
    }
}

/// When a window of this name starts again.
pub fn resets(window: &str, at: Option<UnixMillis>, now: UnixMillis) -> String {
    if window.starts_with("session:") || window.starts_with("root_session:") {
        return "session end".to_owned();
    }
    at.map_or_else(|| "never".to_owned(), |at| until(at, now))
}

/// How long ago `time` was: `12m 5s ago`.
pub fn ago(time: UnixMillis, now: UnixMillis) -> String {
    format!("{} ago", span(now.since(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(span(0), "0s");
        assert_eq!(span(17_070_000), "4h 44m");
        assert_eq!(span(86_400_000 * 3 + 1000), "3d 1s");
        assert_eq!(dollars(Nanos::new(-1_500_000_000)), "-$1.50");
    }
}
