//! Corrections: each is applied once, or refused where something else came first or nobody could know
//! any more.

use std::rc::Rc;

use super::Reference;
use super::rows::{SpendRow, has_names};
use crate::calendar::MINUTE;
use crate::corrections::{Correction, Entry};
use crate::process::HORIZON;
use crate::traffic::Call;

/// Corrections are remembered for this much longer than the horizon, and arrivals by the minute.
const SLACK: i64 = 8 * MINUTE;

/// A correction that was sent.
#[derive(Debug)]
pub(super) struct SentCorrection {
    correction: Rc<Correction>,
    pub(super) sent_at: i64,
    /// Partition and offset.
    sent_to: (u32, i64),
    /// When it was seen that it had been processed.
    processed_by: Option<i64>,
    /// How many of its rows have come.
    rows: usize,
    is_refused: bool,
}

impl Reference {
    /// A correction was sent, maybe `is_again`.
    pub(crate) fn corrected(
        &mut self,
        correction: &Rc<Correction>,
        at: i64,
        sent_to: (u32, i64),
        is_again: bool,
    ) {
        if is_again && self.corrections.contains_key(&correction.id) {
            return;
        }
        let sent = SentCorrection {
            correction: Rc::clone(correction),
            sent_at: at,
            sent_to,
            processed_by: None,
            rows: 0,
            is_refused: false,
        };
        self.corrections.insert(correction.id.clone(), sent);
    }

    /// Whether a correction of this id was sent before.
    pub(crate) fn has_sent(&self, id: &str) -> bool {
        self.corrections.contains_key(id)
    }

    /// Everything before offset `next` of a partition of the corrections topic was processed by `now`.
    pub(crate) fn corrections_were_processed(&mut self, partition: u32, next: i64, now: i64) {
        for one in self.corrections.values_mut() {
            let (sent_to, offset) = one.sent_to;
            if sent_to == partition && offset < next {
                one.processed_by.get_or_insert(now);
            }
        }
    }

    pub(super) fn row_of_correction(&mut self, row: SpendRow<'_>) -> Result<(), String> {
        let epoch = self.epoch;
        let Some(sent) = self.corrections.get_mut(row.text("event_id")) else {
            return Ok(());
        };
        let correction = Rc::clone(&sent.correction);
        let wrong = |what: &str| {
            let Correction { id, event_id, .. } = &*correction;
            Err(format!("correction {id} of {event_id}: {what}"))
        };
        let entry = self.sent.get_mut(&correction.event_id);
        let Some(entry) = entry.and_then(|sent| sent.entry.as_mut()) else {
            return wrong("nothing was counted of it");
        };
        let lines = correction.lines();
        let Some(line) = lines.get(sent.rows) else {
            return wrong("it was applied twice");
        };
        if sent.rows == 0 {
            if sent.is_refused || is_overtaken(&correction, Some(&*entry), epoch) {
                return wrong("it was applied though something else came first");
            }
            if correction.judged_at + HORIZON + SLACK < sent.sent_at {
                return wrong("it was applied though nobody could know what came first");
            }
        }
        let found = (row.text("kind"), row.number("calls"));
        let is_right = found == (correction.kind(), line.calls)
            && row.tokens() == line.tokens
            && row.parts() == line.parts
            && row.number("cost") == line.parts.iter().sum::<i128>()
            && row.place("amends") == correction.place
            && row.text("amends_id") == correction.event_id;
        if !is_right {
            let (tokens, parts) = (row.tokens(), row.parts());
            return wrong(&format!(
                "a row {found:?} of {tokens:?} tokens and {parts:?} nano-dollars, expected {line:?}"
            ));
        }
        sent.rows += 1;
        if sent.rows == lines.len() {
            entry.stood = entry.stands.take();
            entry.stands = correction.after.clone();
            entry.corrections += 1;
        }
        let counted_with = entry.budget_version;
        has_names(row, &line.of.call)?;
        self.add(row, &line.of.call, counted_with)
    }

    /// Every correction that was sent is applied, or there is a reason why not.
    ///
    /// # Errors
    /// One that is neither.
    pub(crate) fn corrections_are_settled(&mut self) -> Result<(), String> {
        for sent in self.corrections.values_mut() {
            let correction = &sent.correction;
            if sent.is_refused || sent.rows == correction.lines().len() {
                continue;
            }
            let call = self.sent.get(&correction.event_id);
            let entry = call.and_then(|call| call.entry.as_ref());
            let too_late = |by: i64| correction.judged_at + HORIZON < by;
            let may_be_refused = is_overtaken(correction, entry, self.epoch)
                || sent.processed_by.is_some_and(too_late);
            if sent.rows > 0 || !may_be_refused {
                return Err(format!("{sent:?} of {entry:?} was not applied"));
            }
            sent.is_refused = true;
        }
        Ok(())
    }

    /// Ids of calls of the set `epoch` that arrived since `since` and that somebody may correct. Those of
    /// the first minute of a budget's count are left alone: whether it has them, a successor of the
    /// processor need not know (`CompiledBudget::contains`).
    pub(crate) fn correctable(&self, epoch: u32, since: i64) -> Vec<String> {
        let current = self.versions.last_key_value();
        let counts: Vec<i64> = { current.into_iter() }
            .flat_map(|(_, all)| all.values())
            .map(|(_, count)| self.began[*count])
            .collect();
        let is_wanted = |entry: &Entry| {
            let age = |began: &i64| entry.received_at - began;
            let is_of_first_minute = counts
                .iter()
                .any(|began| (0..=MINUTE).contains(&age(began)));
            entry.place.epoch == epoch && entry.received_at >= since && !is_of_first_minute
        };
        let calls = self.sent.iter();
        let wanted = calls.filter(|(_, sent)| sent.entry.as_ref().is_some_and(is_wanted));
        wanted.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn entry(&self, id: &str) -> Option<&Entry> {
        self.sent.get(id)?.entry.as_ref()
    }

    /// What was told of a call, at last.
    pub(crate) fn told_call(&self, id: &str) -> Option<Call> {
        let last = self.sent.get(id)?.pieces.last()?;
        Some(last.call.clone())
    }
}

/// Whether the entry is not as whoever made the correction saw it, or of topics before those of `epoch`.
fn is_overtaken(correction: &Correction, entry: Option<&Entry>, epoch: u32) -> bool {
    correction.place.epoch != epoch
        || entry.is_none_or(|entry| {
            entry.corrections >= correction.number || entry.stands != correction.before
        })
}
