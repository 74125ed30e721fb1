//! What is wrong with a question that can be answered all the same: the answer to a misspelt
//! question is `allow` where the right one is `block`, so its sender is told, or refused.

use std::sync::LazyLock;

use metrics::counter;
use spendfuse_domain::FixedDimension;
use spendfuse_domain::spelling::closest;
use spendfuse_guard::Warning;

use super::Question;
use crate::http::{ApiError, Checker};
use crate::metrics::CHECK_FAULTS;

/// Unknown fields that are told by name; more are counted.
const MOST_NAMED: usize = 8;
/// Bytes of a name that are looked at and told.
const LONGEST_NAME: usize = 64;

/// The fields of a question at its top level.
pub(super) static FIELDS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let others = [
        "tags",
        "estimate",
        "estimated_cost_usd",
        "reserve",
        "call_timeout_s",
        "session_limit_usd",
    ];
    [&FixedDimension::NAMES[..], &others].concat()
});

/// Fields that nobody knows, the first of them by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Unknown {
    messages: Vec<String>,
    more: usize,
}

impl Unknown {
    /// Notes a field of the top level.
    pub(super) fn add_field(&mut self, name: &str) {
        self.add(name, name, &FIELDS, "");
    }

    /// Notes the field that its sender wrote as `written`. `name` is compared with `known`, and
    /// `prefix` stands before what was probably meant.
    pub(super) fn add(&mut self, written: &str, name: &str, known: &[&str], prefix: &str) {
        if !self.has_room() {
            return;
        }
        let written = shown(written);
        let meant = (name.len() <= LONGEST_NAME)
            .then(|| closest(name, known))
            .flatten();
        let message = match meant {
            Some(meant) => {
                let is_header = prefix.ends_with('-');
                let meant = if is_header {
                    meant.replace('_', "-")
                } else {
                    meant.to_owned()
                };
                format!("`{written}` is unknown and was ignored; did you mean `{prefix}{meant}`?")
            }
            None => format!("`{written}` is unknown and was ignored"),
        };
        self.messages.push(message);
    }

    /// Notes a field that was to name a tag, or all of them; `meant` is how that is written.
    pub(super) fn add_tag(&mut self, written: &str, meant: &str) {
        if self.has_room() {
            let written = shown(written);
            let message =
                format!("`{written}` is unknown and was ignored; a tag is named `{meant}`");
            self.messages.push(message);
        }
    }

    /// Notes what is not read where it stands.
    pub(super) fn add_misplaced(&mut self, name: &str) {
        if self.has_room() {
            let name = shown(name);
            let message = format!("`{name}` is not read here: a check is asked by its body alone");
            self.messages.push(message);
        }
    }

    /// Whether one more is told by name; else it is counted.
    fn has_room(&mut self) -> bool {
        let has_room = self.messages.len() < MOST_NAMED;
        self.more += usize::from(!has_room);
        has_room
    }

    fn warnings(&self) -> impl Iterator<Item = Warning> {
        let named = self.messages.iter().cloned();
        let more = (self.more > 0).then(|| format!("{} more fields are unknown", self.more));
        named
            .chain(more)
            .map(|message| Warning::new("unknown_field", "warning", message))
    }
}

impl Question {
    /// Everything that is wrong with this question.
    pub(super) fn faults(&self, checker: &Checker) -> Vec<Warning> {
        self.unknown.warnings().chain(self.lack(checker)).collect()
    }

    /// What is missing to make an answer worth having: a workspace, or anything at all. Most budgets
    /// do not apply then.
    fn lack(&self, checker: &Checker) -> Option<Warning> {
        let has_workspace = !self.who.workspace.is_empty();
        let (kind, message) = if !has_workspace && checker.default_workspace.is_empty() {
            let message = "no workspace is named and sidecar.default_workspace is not set; only budgets of all workspaces were looked at";
            ("no_workspace", message.to_owned())
        } else if !self.names_a_dimension() {
            let message = "nothing is named, so only the budgets of the whole default workspace were looked at";
            ("nothing_named", format!("{message}{}", checker.hint))
        } else {
            return None;
        };
        Some(Warning::new(kind, "warning", message))
    }
}

/// Counts faults, so that an operator sees them whose developers do not look at warnings.
pub(super) fn count(faults: &[Warning], endpoint: &'static str) {
    for fault in faults {
        counter!(CHECK_FAULTS, "fault" => fault.kind, "endpoint" => endpoint).increment(1);
    }
}

/// A strict sidecar's answer to a question with faults.
pub(super) fn refused(faults: &[Warning]) -> ApiError {
    let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    let message = format!("{} (sidecar.strict refuses this)", messages.join("; "));
    ApiError::bad_request(message)
}

/// A name from outside as it may be shown: short, and without control characters.
pub(crate) fn shown(name: &str) -> String {
    let end = name.floor_char_boundary(LONGEST_NAME);
    let cut = if end < name.len() { "…" } else { "" };
    format!("{}{cut}", name[..end].escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_fields_are_the_dimensions_and_those_of_the_schema() {
        let schema = include_str!("../../../../../schemas/check-request.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let published = schema["properties"].as_object().unwrap().keys();
        let mut published: Vec<&str> = published.map(String::as_str).collect();
        let mut known = FIELDS.clone();
        published.sort_unstable();
        known.sort_unstable();
        assert_eq!(published, known);
    }

    #[test]
    fn names_from_outside_are_short_and_harmless() {
        let name = format!("\u{1b}[2J{}", "ü".repeat(100));
        let shown = shown(&name);
        assert!(shown.starts_with("\\u{1b}[2Jü") && shown.ends_with('…'));
        assert!(shown.len() < 100);
    }
}
