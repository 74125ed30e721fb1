//! Corrections of counted calls, as `spendfuse correct` and `spendfuse rerate` write them, and the rows
//! that each must have.

use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::correction::{CorrectionRecord, EntryPlace};

use crate::broken::Habit;
use crate::budget::dollars;
use crate::calendar;
use crate::traffic::Call;

/// What stands for a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) call: Call,
    /// Nano-dollars of fresh input, cached input and output.
    pub(crate) parts: [i128; 3],
    /// `book`, or `reported` where somebody said what it costs.
    pub(crate) priced: &'static str,
    pub(crate) price_version: String,
}

impl Standing {
    pub(crate) fn nanos(&self) -> i128 {
        self.parts.iter().sum()
    }

    /// Costs so much; of which tokens is not said.
    pub(crate) fn set_cost(&mut self, nanos: i128, priced: &'static str) {
        self.parts = [0, 0, nanos];
        self.priced = priced;
    }

    fn record(&self) -> Value {
        let [input, cached, output] = self.parts.map(dollars);
        json!({
            "event": self.call.event(), "priced": self.priced, "price_version": self.price_version,
            "cost": {
                "input": input, "cache_read": cached, "cache_write": "0", "output": output,
                "units": "0", "at_ceiling": "0",
            },
        })
    }
}

/// A counted call, as the warehouse shows it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) place: EntryPlace,
    pub(crate) received_at: i64,
    /// Version of the budgets that its first event was counted with.
    pub(crate) budget_version: u64,
    /// `None` where it is void.
    pub(crate) stands: Option<Standing>,
    /// The same before its last correction.
    pub(crate) stood: Option<Standing>,
    /// How many were applied.
    pub(crate) corrections: u64,
}

/// A correction that somebody makes.
#[derive(Clone, Debug)]
pub(crate) struct Correction {
    pub(crate) id: String,
    pub(crate) event_id: String,
    pub(crate) place: EntryPlace,
    /// Which one of its entry it is, from 1 on.
    pub(crate) number: u64,
    /// Everything of before was seen.
    pub(crate) judged_at: i64,
    pub(crate) before: Option<Standing>,
    pub(crate) after: Option<Standing>,
    is_rerate: bool,
    written: CorrectionRecord,
}

/// A row that a correction must have.
#[derive(Debug)]
pub(crate) struct Line<'c> {
    pub(crate) of: &'c Standing,
    pub(crate) calls: i128,
    pub(crate) tokens: [i128; 3],
    pub(crate) parts: [i128; 3],
}

impl Correction {
    /// That `after` stands for `entry`, as it was seen at `judged_at`; with the name of a `job` it is one
    /// of a re-rating.
    pub(crate) fn of(
        entry: &Entry,
        judged_at: i64,
        after: Option<Standing>,
        job: &str,
    ) -> Option<Self> {
        let before = entry.stands.clone();
        let event_id = before.as_ref().or(after.as_ref())?.call.id.clone();
        let is_void = after.is_none();
        let seen = match is_void && Habit::VoidPassesByACorrection.is_broken() {
            true => entry.stood.as_ref().or(before.as_ref()),
            false => before.as_ref(),
        };
        let number = entry.corrections + 1;
        let text = json!({
            "v": 1, "id": "", "job": job, "entry": entry.place, "number": number,
            "received_at": calendar::text(entry.received_at),
            "budget_version": entry.budget_version, "judged_at": calendar::text(judged_at),
            "by": "finance", "reason": "the year goes on", "before": seen.map(Standing::record),
            "after": after.as_ref().map(Standing::record),
        })
        .to_string();
        let mut written: CorrectionRecord =
            serde_json::from_str(&text).expect("it has the members of a correction");
        written.id = written.derived_id();
        Some(Self {
            id: written.id.clone(),
            event_id,
            place: entry.place,
            number,
            judged_at,
            before,
            after,
            is_rerate: !job.is_empty(),
            written,
        })
    }

    /// The record that is sent at `now`, for the first time or again.
    pub(crate) fn record(&self, now: i64, is_again: bool) -> Vec<u8> {
        let mut written = self.written.clone();
        if is_again && Habit::CorrectionJudgedUnseen.is_broken() {
            written.judged_at = UnixMillis(now);
        }
        if is_again && Habit::CorrectionNumberedAnew.is_broken() {
            written.number += 1;
            written.id = written.derived_id();
        }
        serde_json::to_vec(&written).expect("texts and numbers can be written")
    }

    /// The value of column `kind`.
    pub(crate) fn kind(&self) -> &'static str {
        match self.is_rerate {
            true => "rerate",
            false => "correction",
        }
    }

    /// Its rows, in order: one of the difference, or what is taken back and what stands instead, where
    /// somebody else pays for it or its price comes from elsewhere.
    pub(crate) fn lines(&self) -> Vec<Line<'_>> {
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            let is_split = self.is_rerate && before.priced != after.priced;
            if before.call.names() == after.call.names() && !is_split {
                let (was, had) = (before.call.tokens(), before.parts);
                let (is, has) = (after.call.tokens(), after.parts);
                return vec![Line {
                    of: after,
                    calls: 0,
                    tokens: [0, 1, 2].map(|class| is[class] - was[class]),
                    parts: [0, 1, 2].map(|part| has[part] - had[part]),
                }];
            }
        }
        let taken = self.before.iter().map(|before| Line::times(before, -1));
        taken
            .chain(self.after.iter().map(|after| Line::times(after, 1)))
            .collect()
    }
}

impl<'c> Line<'c> {
    fn times(of: &'c Standing, times: i128) -> Self {
        Self {
            of,
            calls: times,
            tokens: of.call.tokens().map(|count| count * times),
            parts: of.parts.map(|part| part * times),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let call = Call {
            id: "r-1".to_owned(),
            workspace: "acme",
            customer: "c-1".to_owned(),
            feature: "agent",
            user: "",
            plan: "free",
            session: String::new(),
            model: "large",
            input: 10,
            cached: 4,
            output: 7,
            time: 1_797_724_800_000,
        };
        Entry {
            place: EntryPlace {
                epoch: 1,
                partition: 0,
                seq: 9,
                index: 2,
            },
            received_at: call.time + 40,
            budget_version: 3,
            stands: Some(Standing {
                call,
                parts: [60, 4, 70],
                priced: "book",
                price_version: "one".to_owned(),
            }),
            stood: None,
            corrections: 0,
        }
    }

    /// Calls, output tokens and nano-dollars of each row of the correction, which the meter can read.
    fn lines(after: Option<Standing>, job: &str) -> Vec<(i128, i128, i128)> {
        let entry = entry();
        let made = Correction::of(&entry, entry.received_at + 1_000, after, job);
        let made = made.expect("something stands");
        let read = CorrectionRecord::parse(&made.record(0, false)).expect("a good record");
        assert_eq!((read.id, read.entry), (made.id.clone(), entry.place));
        let lines = made.lines();
        let line = |line: &Line<'_>| (line.calls, line.tokens[2], line.parts.iter().sum::<i128>());
        lines.iter().map(line).collect()
    }

    #[test]
    fn rows_are_the_difference_or_what_is_taken_back_and_what_stands_instead() {
        let stands = || entry().stands.expect("it stands");
        assert_eq!(lines(None, ""), [(-1, -7, -134)]);
        let mut grown = stands();
        grown.call.output = 9;
        grown.set_cost(200, "book");
        assert_eq!(lines(Some(grown.clone()), ""), [(0, 2, 66)]);
        grown.call.customer = "c-2".to_owned();
        assert_eq!(lines(Some(grown), ""), [(-1, -7, -134), (1, 9, 200)]);
        let mut dearer = stands();
        dearer.set_cost(300, "reported");
        assert_eq!(lines(Some(dearer.clone()), ""), [(0, 0, 166)]);
        assert_eq!(lines(Some(dearer), "job"), [(-1, -7, -134), (1, 7, 300)]);
    }
}
