//! What `POST /v1/usage` answers.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use spendfuse_domain::Nanos;
use spendfuse_domain::event::{RemovedMembers, member_meant};
use spendfuse_guard::Warning;

use crate::http::{ApiError, shown};

/// Unknown members that are told one by one; more are only counted.
const MOST_NAMED: usize = 8;

/// The answer.
#[derive(Debug, Default, Serialize)]
pub(super) struct UsageResponse {
    pub(super) accepted: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) late: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) duplicates: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) grown: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) echoes: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) conflicts: usize,
    pub(super) rejected: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) unavailable: usize,
    /// An [`EventResult`] or [`NotSafe`] each; written one by one, because thousands take a thread for milliseconds.
    pub(super) results: Vec<Box<RawValue>>,
    /// Why the others are not safe (503).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ApiError>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What became of one event, in the order of the body.
#[derive(Debug, Serialize)]
pub(super) struct EventResult {
    pub(super) index: usize,
    /// The event's id, where it could be read.
    pub(super) id: Option<String>,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<Warning>,
}

/// What is told of an event that neither broker nor spool took.
#[derive(Debug, Serialize)]
struct NotSafe<'a> {
    index: usize,
    id: Option<&'a str>,
    status: &'static str,
    detail: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It will be counted.
    Accepted(Accepted),
    /// It goes to the DLQ.
    Late(NotCounted),
    /// It is counted by an earlier sending.
    Duplicate(NotCounted),
    /// Its call was told of before with less: what it is more will be counted.
    Grown(Accepted),
    /// Its call was told of before with as much or more.
    Echo(NotCounted),
    /// An earlier event of its identity stands.
    Conflict(NotCounted),
    Rejected {
        reason: &'static str,
        detail: String,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    pub(super) source: String,
    /// What the call costs by the price book in force here; null where it is not a call.
    pub(super) cost_usd: Option<Nanos>,
    pub(super) priced: Option<&'static str>,
    pub(super) flags: Vec<&'static str>,
    /// Budgets that it counts against; null while they are not known here.
    pub(super) budgets: Option<Vec<String>>,
}

/// An event that is kept, and that this sending of it does not count.
#[derive(Debug, Serialize)]
pub(super) struct NotCounted {
    pub(super) source: String,
    pub(super) counted: bool,
    /// Reason in the DLQ, where it goes there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// Why, and what to do.
    pub(super) detail: String,
}

impl UsageResponse {
    /// Adds the result of an event that is safe, or rejected.
    pub(super) fn add(&mut self, result: &EventResult) {
        let count = match result.outcome {
            Outcome::Accepted(_) => &mut self.accepted,
            Outcome::Late(_) => &mut self.late,
            Outcome::Duplicate(_) => &mut self.duplicates,
            Outcome::Grown(_) => &mut self.grown,
            Outcome::Echo(_) => &mut self.echoes,
            Outcome::Conflict(_) => &mut self.conflicts,
            Outcome::Rejected { .. } => &mut self.rejected,
        };
        *count += 1;
        self.push(result);
    }

    /// The same where not all events could be made safe: nothing is promised of any.
    pub(super) fn add_unsafe(&mut self, result: &EventResult) {
        if matches!(result.outcome, Outcome::Rejected { .. }) {
            return self.add(result);
        }
        self.unavailable += 1;
        self.push(&NotSafe {
            index: result.index,
            id: result.id.as_deref(),
            status: "unavailable",
            detail: "neither the broker nor the spool has taken it for certain; send it again with the same id",
        });
    }

    fn push(&mut self, result: &impl Serialize) {
        let result = to_raw_value(result).expect("texts and numbers become JSON");
        self.results.push(result);
    }
}

/// One warning for each unknown member.
pub(super) fn unknown_members(removed: &RemovedMembers) -> Vec<Warning> {
    let warning = |message| Warning::new("unknown_field", "warning", message);
    let named = removed.names.iter().take(MOST_NAMED);
    let mut warnings: Vec<Warning> = named
        .map(|path| {
            let name = match &**path {
                "" => "a member with a long name".to_owned(),
                path => format!("`{}`", shown(path)),
            };
            let meant = member_meant(path);
            let meant =
                meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            warning(format!("{name} is unknown and was removed{meant}"))
        })
        .collect();
    let more = removed.count.saturating_sub(MOST_NAMED as u64);
    if more > 0 {
        warnings.push(warning(format!("{more} more members are unknown")));
    }
    warnings
}
