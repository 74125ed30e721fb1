//! What commands print: lines, JSON, tables that fit the terminal, amounts and times for people.
//!
//! Whatever is printed may come from outside: everything goes through here and is made
//! [`printable`], and only colours of our own reach the terminal.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Color, ColumnConstraint, ContentArrangement, presets};
use serde::Serialize;
use serde_json::{Value, json};
pub use spendfuse_domain::amount::grouped;
use spendfuse_domain::printable::is_obeyed;
use spendfuse_domain::{Amount, Figures, Nanos, UnixMillis, Verdict, printable};

/// Writes a line to standard output.
pub fn line(text: impl Display) {
    raw_line(&printable(&text.to_string()));
}

/// Writes text of several lines.
pub fn lines(text: &str) {
    for one in text.lines() {
        line(one);
    }
}

/// Writes a line in a colour, where standard output is a terminal and nobody asked for none.
pub fn coloured_line(text: impl Display, colour: Colour) {
    parts(&[(&text.to_string(), Some(colour))]);
}

/// Writes a line of parts, each in its colour.
pub fn parts(parts: &[(&str, Option<Colour>)]) {
    let wanted = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let written = parts.iter().map(|(text, colour)| {
        let text = printable(text);
        match colour.filter(|_| wanted) {
            Some(colour) => format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code()),
            None => text.into_owned(),
        }
    });
    raw_line(&written.collect::<String>());
}

fn raw_line(text: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = writeln!(output, "{text}") {
        // Whoever reads has seen enough (`| head`): no failure of ours.
        let code = i32::from(error.kind() != ErrorKind::BrokenPipe);
        std::process::exit(code);
    }
}

/// Whether programs read what is printed: `--json` was given.
static SPEAKS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on notes and errors are JSON too, a line each.
pub fn speak_json() {
    SPEAKS_JSON.store(true, Ordering::Relaxed);
}

/// Whether notes and errors are JSON.
pub fn is_json() -> bool {
    SPEAKS_JSON.load(Ordering::Relaxed)
}

/// Writes a line to standard error: what is no result.
pub fn note(text: impl Display) {
    match is_json() {
        true => json_note(&json!({"note": text.to_string()})),
        false => note_line(&printable(&text.to_string())),
    }
}

/// Writes a note on what may be a mistake, or is left out.
pub fn warning(text: impl Display) {
    match is_json() {
        true => json_note(&json!({"warning": text.to_string()})),
        false => note_line(&printable(&format!("warning: {text}"))),
    }
}

/// Writes a value as one line of JSON to standard error.
pub fn json_note(value: &Value) {
    note_line(&json_for_terminals(&value.to_string()));
}

fn note_line(text: &str) {
    // Nobody is left to tell where even this fails.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl Serialize) {
    let text = serde_json::to_string(value).expect("texts and numbers always become JSON");
    raw_line(&json_for_terminals(&text));
}

/// The same JSON, with what a terminal obeys written as `\uXXXX`: JSON itself demands that only of
/// the characters below a blank.
fn json_for_terminals(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for one in json.chars() {
        if is_obeyed(one) {
            let units = one.encode_utf16(&mut units).iter();
            text.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(one);
        }
    }
    text
}

/// On which side the values of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A value of a table, with its colour.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// A value in a colour.
    pub fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self {
            text: text.into(),
            colour: Some(colour),
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, colour: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

/// Rows under headers.
#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    /// Adds a row, a value for each column.
    pub fn add_row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells.into_iter().map(|cell| {
            let Cell { text, colour } = cell.into();
            let cell = comfy_table::Cell::new(printable(&text));
            match colour {
                Some(colour) => cell.fg(colour.of_cells()),
                None => cell,
            }
        });
        self.0.add_row(cells.collect::<Vec<_>>());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A table without lines, headers in capitals. On a terminal it wraps to its width; elsewhere every
/// row is one line.
pub fn table<const N: usize>(columns: [(&str, Side); N]) -> Table {
    let mut table = comfy_table::Table::new();
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
    Table(table)
}

/// Keeps columns whole where the table must be made narrower; the others wrap.
pub fn keep_whole(table: &mut Table, columns: &[usize]) {
    for place in columns {
        if let Some(column) = table.0.column_mut(*place) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Hides a column on terminals with fewer than `columns` characters a line.
pub fn hide_below(table: &mut Table, place: usize, columns: u16) {
    let is_narrow = table.0.width().is_some_and(|width| width < columns);
    if let Some(column) = table.0.column_mut(place).filter(|_| is_narrow) {
        column.set_constraint(ColumnConstraint::Hidden);
    }
}

/// Prints a table.
pub fn print_table(table: &Table) {
    raw_line(&table.0.trim_fmt());
}

/// A colour for a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Yellow,
}

impl Colour {
    fn code(self) -> u8 {
        match self {
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
        }
    }

    fn of_cells(self) -> Color {
        match self {
            Self::Red => Color::Red,
            Self::Green => Color::Green,
            Self::Yellow => Color::Yellow,
        }
    }
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
    Cell::coloured(verdict.name(), verdict_colour(verdict))
}

/// The time by this machine's clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}

/// Money, with its sign and unit.
pub fn dollars(amount: Nanos) -> String {
    Amount::Usd(amount).to_string()
}

/// Spent and limit for two columns, of which the second names the unit.
pub fn figures(figures: Figures) -> (String, String) {
    match (figures.spent, figures.limit) {
        (Some(spent), Some(limit)) => (format!("{:#}", spent.figure()), format!("{limit:#}")),
        // A session that a detector has stopped.
        _ => ("-".to_owned(), "-".to_owned()),
    }
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
        assert_eq!(span(0), "0s");
        assert_eq!(span(17_070_000), "4h 44m");
        assert_eq!(span(86_400_000 * 3 + 1000), "3d 1s");
        assert_eq!(dollars(Nanos::new(-1_500_000_000)), "-$1.50");
    }

    #[test]
    fn json_says_the_same_without_what_terminals_obey() {
        let value = "c1 \u{9b}31m, del \u{7f}, turned \u{202e}, tag \u{e0041}, name Zoë";
        let text = json_for_terminals(&serde_json::to_string(value).unwrap());
        assert!(!text.contains(is_obeyed), "{text}");
        assert!(text.contains("Zoë"), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), value);
    }

    #[test]
    fn a_table_shows_what_it_was_given_as_one_line_a_row() {
        let mut rows = table([("NAME", Side::Left), ("VERDICT", Side::Left)]);
        rows.add_row(["c-\u{1b}[2Jx\ny".into(), verdict_cell(Verdict::Block)]);
        let text = rows.0.trim_fmt();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("c-\\u{1b}[2Jx\\ny"), "{text}");
    }
}
