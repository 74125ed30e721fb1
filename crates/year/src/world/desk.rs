//! Somebody corrects what was counted, by what the last look at the books showed.

use std::rc::Rc;

use spendfuse_bus::OutputRecord;

use super::{Happening, World};
use crate::calendar::{DAY, HOUR, MINUTE};
use crate::corrections::{Correction, Entry, Standing};
use crate::prices::MODELS;
use crate::traffic::Told;

/// Corrections of a day, at most.
const MOST_OF_A_DAY: usize = 6;

impl World {
    pub(super) fn plan_corrections(&mut self, begin: i64) {
        for _ in 0..=self.random.below(MOST_OF_A_DAY) {
            let at = begin + self.random.between(0, DAY);
            self.plan(at, Happening::Correct);
        }
    }

    /// Corrects a call of the last hours, days or weeks, or once more the one that was corrected last.
    pub(super) fn correct(&mut self) {
        let since = self.cluster.now - self.random.pick(&[6 * HOUR, 3 * DAY, 30 * DAY]);
        let calls = self.reference.correctable(self.set.epoch, since);
        let Some(judged_at) = self.looked_at.filter(|_| !calls.is_empty()) else {
            return;
        };
        let is_again = self.random.one_in(2) && calls.contains(&self.corrected_last);
        let id = match is_again {
            true => self.corrected_last.clone(),
            false => self.random.pick(&calls),
        };
        let Some(entry) = self.reference.entry(&id).cloned() else {
            return;
        };
        let (after, job) = self.wanted(&entry);
        if after == entry.stands {
            return;
        }
        let Some(correction) = Correction::of(&entry, judged_at, after, &job) else {
            return;
        };
        // The same wish again has the same id: which of the two was applied nobody could tell.
        if self.reference.has_sent(&correction.id) {
            return;
        }
        self.year.corrections += 1;
        let correction = Rc::new(correction);
        self.send_correction(&correction, false);
        let delays = [
            self.random.between(1, MINUTE),
            self.random.between(MINUTE, 20 * HOUR),
            // Beyond the memory of identities.
            self.random.between(DAY + HOUR, 3 * DAY),
        ];
        for delay in delays {
            if self.random.one_in(5) {
                let again = Happening::CorrectionComesAgain(Rc::clone(&correction));
                self.plan(self.cluster.now + delay, again);
            }
            let call = self.reference.told_call(&id);
            if let Some(call) = call.filter(|_| correction.after.is_none()) {
                // What is void is told again, as if nobody had corrected it.
                self.plan(self.cluster.now + delay, Happening::Told(Told::Call(call)));
            }
        }
        self.corrected_last = id;
    }

    /// What is to stand for a call, and the name of the re-rating where it is one.
    fn wanted(&mut self, entry: &Entry) -> (Option<Standing>, String) {
        let mut job = String::new();
        let Some(mut after) = entry.stands.clone() else {
            return (entry.stood.clone(), job);
        };
        match self.random.below(8) {
            0 | 1 => return (None, job),
            2 | 3 if entry.corrections > 0 => return (entry.stood.clone(), job),
            2 | 3 => {
                after.call.output = i128::from(self.random.between(0, 900));
                self.price(&mut after);
            }
            4 => {
                after.call.customer = format!("c-corrected-{}", self.random.below(3));
                after.call.user = self.random.pick(&["u-1", "u-2"]);
            }
            5 => {
                after.call.model = self.random.pick(&MODELS);
                self.price(&mut after);
            }
            6 => after.set_cost(i128::from(self.random.between(0, 9_000_000)), "reported"),
            _ => {
                job = format!("prices-{}", self.year.corrections);
                let newest = self.reference.prices.at(self.cluster.now);
                newest
                    .unwrap_or_default()
                    .clone_into(&mut after.price_version);
                self.price(&mut after);
            }
        }
        (Some(after), job)
    }

    /// Prices what stands by the book that it names.
    fn price(&self, standing: &mut Standing) {
        let prices = &self.reference.prices;
        if let Some(cost) = prices.cost(&standing.price_version, &standing.call) {
            standing.set_cost(cost, "book");
        }
    }

    pub(super) fn send_correction(&mut self, correction: &Rc<Correction>, is_again: bool) {
        let now = self.cluster.now;
        let topic = &self.set.topics.corrections;
        // Of topics that are gone there may have been more partitions.
        let partition = correction.place.partition.min(self.set.partitions - 1);
        let offset = self.cluster.log(topic, partition).end();
        let record = OutputRecord {
            topic: topic.clone(),
            partition,
            key: Some(correction.place.to_string().into_bytes()),
            value: Some(correction.record(now, is_again)),
            headers: Vec::new(),
        };
        self.cluster.commit(vec![record], None);
        let sent_to = (partition, offset);
        self.reference.corrected(correction, now, sent_to, is_again);
    }

    /// What the meters' group says of the corrections topic.
    pub(super) fn note_processed_corrections(&mut self) {
        let (topic, group) = (&self.set.topics.corrections, self.set.group("meter"));
        for partition in 0..self.set.partitions {
            let committed = self.cluster.committed(&group, topic, partition);
            let (next, _) = committed.unwrap_or_default();
            let now = self.cluster.now;
            self.reference
                .corrections_were_processed(partition, next, now);
        }
    }
}
