//! What applying a budgets file would change: pure, so that `apply` can show it before it writes.
//!
//! In: the records in force, the file, the time. Out: a [`Plan`], which is text for people
//! ([`Display`](std::fmt::Display)) and records to write ([`Plan::writes`]).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::file::BudgetsFile;
use super::record::BudgetsRecord;
use crate::time::UnixMillis;

/// What happens to records that the file does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They stay in force.
    Keep,
    /// They are removed (`--prune`).
    Remove,
}

/// Everything that applying a file means, by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One for each record in force and each entry of the file: budgets, then detectors, by id.
    pub changes: Vec<Change>,
}

/// What happens to one budget or detector rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// New in the file.
    Created(BudgetsRecord),
    /// In force, and different in the file.
    Changed {
        /// The record in force.
        before: Box<BudgetsRecord>,
        /// The record to write.
        after: Box<BudgetsRecord>,
    },
    /// The same in both.
    Unchanged(BudgetsRecord),
    /// In force, not in the file, to be removed.
    Removed(BudgetsRecord),
    /// In force, not in the file, to stay.
    Kept(BudgetsRecord),
}

/// A field whose value differs, as compact JSON; `None` where it is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FieldChange {
    pub name: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

impl Plan {
    /// Compares the records in force with a file.
    ///
    /// A budget that is new, or whose scope, `where`, window or timezone changed, counts from `now`;
    /// any other keeps its `counted_from`.
    pub fn new(
        current: &[BudgetsRecord],
        file: &BudgetsFile,
        now: UnixMillis,
        missing: Missing,
    ) -> Self {
        let mut in_force: BTreeMap<Place, &BudgetsRecord> = current
            .iter()
            .map(|record| (place(record), record))
            .collect();
        let drafts = file.budgets.iter();
        let budgets = drafts.map(|draft| BudgetsRecord::Budget(draft.counting_from(now)));
        let detectors = file.detectors.iter().cloned().map(BudgetsRecord::Detector);
        let mut changes: BTreeMap<Place, Change> = BTreeMap::new();
        for wanted in budgets.chain(detectors) {
            let place = place(&wanted);
            let change = match in_force.remove(&place) {
                None => Change::Created(wanted),
                Some(before) => compare(before, wanted),
            };
            changes.insert(place, change);
        }
        for (place, record) in in_force {
            let record = record.clone();
            let change = match missing {
                Missing::Keep => Change::Kept(record),
                Missing::Remove => Change::Removed(record),
            };
            changes.insert(place, change);
        }
        Self {
            changes: changes.into_values().collect(),
        }
    }

    /// The topic was made anew and has no records yet: budgets whose counts readers still know go on
    /// with them, each since its time in `counted_from`. Other terms begin a new count all the same.
    pub fn go_on_with(&mut self, counted_from: &BTreeMap<String, UnixMillis>) {
        for change in &mut self.changes {
            if let Change::Created(BudgetsRecord::Budget(budget)) = change
                && let Some(known) = counted_from.get(budget.id.as_str())
            {
                budget.counted_from = *known;
            }
        }
    }

    /// Openings that would change nothing, each with what to do: the window in which their count
    /// began is over at `now`.
    pub fn openings_too_late(&self, now: UnixMillis) -> Vec<String> {
        let too_late = |change: &Change| {
            let Change::Changed { before, after } = change else {
                return None;
            };
            let (BudgetsRecord::Budget(old), BudgetsRecord::Budget(new)) = (&**before, &**after)
            else {
                return None;
            };
            let is_told_anew = new.opening.is_some() && new.opening != old.opening;
            let window = new.window_of_opening().filter(|_| is_told_anew)?;
            window.end.filter(|end| *end <= now)?;
            Some(format!(
                "budget {}: its count began in {}, which is over, and `opening` counts in that window alone; take it out, \
                 or begin a new count by giving the budget another id",
                new.id, window.label
            ))
        };
        self.changes.iter().filter_map(too_late).collect()
    }

    /// The records to write, in one transaction: key and value, `None` for a tombstone. Empty where
    /// the file is already in force.
    pub fn writes(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let write = |change: &Change| match change {
            Change::Created(record) => Some((record.key(), Some(record.to_record()))),
            Change::Changed { after, .. } => Some((after.key(), Some(after.to_record()))),
            Change::Removed(record) => Some((record.key(), None)),
            Change::Unchanged(_) | Change::Kept(_) => None,
        };
        self.changes.iter().filter_map(write).collect()
    }
}

/// Where a record stands in the plan: whether it is a detector rule, and its key.
type Place = (bool, String);

fn place(record: &BudgetsRecord) -> Place {
    (matches!(record, BudgetsRecord::Detector(_)), record.key())
}

fn compare(before: &BudgetsRecord, wanted: BudgetsRecord) -> Change {
    let after = match (before, wanted) {
        (BudgetsRecord::Budget(old), BudgetsRecord::Budget(mut new)) => {
            if new.counts_like(old) {
                new.counted_from = old.counted_from;
            }
            BudgetsRecord::Budget(new)
        }
        (_, wanted) => wanted,
    };
    if *before == after {
        return Change::Unchanged(after);
    }
    Change::Changed {
        before: Box::new(before.clone()),
        after: Box::new(after),
    }
}

impl Change {
    /// The fields that differ, in the order of the record; none but for [`Change::Changed`].
    pub fn fields(&self) -> Vec<FieldChange> {
        let Self::Changed { before, after } = self else {
            return Vec::new();
        };
        let (before, after) = (shown_fields(before), shown_fields(after));
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        let mut changes = Vec::new();
        for name in after.keys().chain(gone) {
            let (old, new) = (before.get(name), after.get(name));
            if old != new {
                changes.push(FieldChange {
                    name: name.clone(),
                    old: old.map(Value::to_string),
                    new: new.map(Value::to_string),
                });
            }
        }
        changes
    }

    /// In which window an opening counts that is new.
    fn opening_note(&self) -> Option<String> {
        let (old, record) = match self {
            Self::Created(record) => (None, record),
            Self::Changed { before, after } => (Some(&**before), &**after),
            Self::Unchanged(_) | Self::Removed(_) | Self::Kept(_) => return None,
        };
        let BudgetsRecord::Budget(new) = record else {
            return None;
        };
        let opening = new.opening?;
        let is_known = old.is_some_and(|old| {
            matches!(old, BudgetsRecord::Budget(old)
                if old.opening == new.opening && old.counted_from == new.counted_from)
        });
        let label = new.window_of_opening().filter(|_| !is_known)?.label;
        Some(format!(
            "counts {opening} as spent before, in {label} alone"
        ))
    }

    /// What the change means for what a budget has counted so far.
    fn count_note(&self) -> Option<String> {
        let Self::Changed { before, after } = self else {
            return None;
        };
        let (BudgetsRecord::Budget(old), BudgetsRecord::Budget(new)) = (&**before, &**after) else {
            return None;
        };
        Some(match new.counts_like(old) {
            true => format!("keeps what was counted since {}", new.counted_from),
            false => format!("starts a new count from {}", new.counted_from),
        })
    }
}

/// The fields of a record that people decide on.
fn shown_fields(record: &BudgetsRecord) -> Map<String, Value> {
    let mut fields: Map<String, Value> = serde_json::from_slice(&record.to_record())
        .expect("a record that this program wrote is a JSON object");
    for hidden in ["v", "id", "counted_from"] {
        fields.shift_remove(hidden);
    }
    fields
}

/// A diff for people: `+` created, `~` changed, `-` removed, and a summary. Each line says by its
/// first character what it is, so that a terminal can colour it.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for change in &self.changes {
            write!(formatter, "{change}")?;
            *counts.entry(change.verb()).or_default() += 1;
        }
        let count = |verb| counts.get(verb).copied().unwrap_or(0);
        let verbs = ["created", "changed", "removed", "unchanged", "kept"];
        let parts = verbs.map(|verb| format!("{} {verb}", count(verb)));
        writeln!(formatter, "{}", parts.join(", "))
    }
}

impl Change {
    fn verb(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Changed { .. } => "changed",
            Self::Unchanged(_) => "unchanged",
            Self::Removed(_) => "removed",
            Self::Kept(_) => "kept",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(record) => {
                writeln!(formatter, "+ {}", title(record))?;
                for (name, value) in shown_fields(record) {
                    writeln!(formatter, "+     {name}: {value}")?;
                }
                match self.opening_note() {
                    Some(note) => writeln!(formatter, "+     {note}"),
                    None => Ok(()),
                }
            }
            Self::Changed { after, .. } => {
                writeln!(formatter, "~ {}", title(after))?;
                for FieldChange { name, old, new } in self.fields() {
                    let text = |value: Option<String>| value.unwrap_or_else(|| "(none)".to_owned());
                    writeln!(formatter, "~     {name}: {} -> {}", text(old), text(new))?;
                }
                for note in self.count_note().into_iter().chain(self.opening_note()) {
                    writeln!(formatter, "~     {note}")?;
                }
                Ok(())
            }
            Self::Unchanged(_) => Ok(()),
            Self::Removed(record) => writeln!(formatter, "- {}", title(record)),
            Self::Kept(record) => writeln!(
                formatter,
                "  {}: not in the file, stays in force (--prune removes it)",
                title(record)
            ),
        }
    }
}

fn title(record: &BudgetsRecord) -> String {
    match record {
        BudgetsRecord::Budget(budget) => format!("budget {}", budget.id),
        BudgetsRecord::Detector(rule) => format!("detector {}", rule.id),
    }
}
