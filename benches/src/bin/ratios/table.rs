//! The result: a line for each thing measured, next to what it is compared with.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    /// The measurement that it belongs to, as `--only` names it.
    pub row: &'static str,
    /// What was measured.
    pub what: String,
    /// Our figure, with its unit.
    pub ours: String,
    /// What it is compared with, and its figure.
    pub against: String,
    /// Ours divided by the other's, or the other way round where the target says so.
    pub ratio: Option<f64>,
    /// What the project wants to reach.
    pub target: String,
    /// Whether it is reached; absent where nothing is demanded.
    pub met: Option<bool>,
    /// The reason of a missed target, with what was measured about it in the same sitting.
    pub why: String,
    /// What to know.
    pub note: String,
}

impl Line {
    /// A line without comparison and target.
    pub fn new(row: &'static str, what: impl Into<String>, ours: impl Into<String>) -> Self {
        Self {
            row,
            what: what.into(),
            ours: ours.into(),
            ..Self::default()
        }
    }

    /// A measurement that could not be made.
    pub fn failed(row: &'static str, what: impl Into<String>, why: &anyhow::Error) -> Self {
        Self {
            note: format!("not measured: {why:#}"),
            ..Self::new(row, what, "-")
        }
    }

    /// What it is compared with.
    #[must_use]
    pub fn against(mut self, against: impl Into<String>) -> Self {
        self.against = against.into();
        self
    }

    /// The ratio of two figures; none where the second is zero.
    #[must_use]
    pub fn ratio(mut self, over: f64, under: f64) -> Self {
        self.ratio = (under > 0.0).then(|| (over / under * 1000.0).round() / 1000.0);
        self
    }

    /// What is wanted, and whether that is so.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>, met: bool) -> Self {
        self.target = target.into();
        self.met = Some(met);
        self
    }

    /// Why the target is missed, where it is: only what was measured.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        if self.met == Some(false) {
            self.why = why.into();
        }
        self
    }

    /// What to know.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// The lines as a table for people.
pub fn as_text(lines: &[Line]) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["row", "what", "ours", "against", "ratio", "target", "met"]);
    for line in lines {
        let ratio = line.ratio.map_or(String::new(), |ratio| match ratio {
            ratio if ratio >= 10.0 => format!("{ratio:.0}"),
            ratio => format!("{ratio:.2}"),
        });
        let met = match line.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let Line {
            row,
            what,
            ours,
            against,
            target,
            ..
        } = line;
        table.add_row([row, what.as_str(), ours, against, &ratio, target, met]);
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    let said = |line: &Line, words: &str| format!("\n{}, {}: {words}", line.row, line.what);
    let missed = lines.iter().filter(|line| !line.why.is_empty());
    let reasons: String = missed.map(|line| said(line, &line.why)).collect();
    if !reasons.is_empty() {
        text.push_str(&format!("\nWhy targets are missed:{reasons}\n"));
    }
    let noted = lines.iter().filter(|line| !line.note.is_empty());
    text.extend(noted.map(|line| said(line, &line.note)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_and_its_reason_are_shown() {
        let line = Line::new("loader", "rows/s", "700 k")
            .against("bare client: 1,000 k")
            .ratio(700.0, 1000.0)
            .target("≥ 0.8", false)
            .because("waits for commits");
        let met = Line::new("lag", "p50", "20 ms")
            .target("≤ 25", true)
            .because("not said of a target that is met");
        let text = as_text(&[line, met]);
        assert!(text.contains("0.70") && text.contains("NO"), "{text}");
        assert!(text.contains("waits for commits"), "{text}");
        assert!(!text.contains("not said"), "{text}");
    }
}
