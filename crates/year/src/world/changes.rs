//! Budgets and prices change, as their commands change them.

use serde_json::{Value, json};
use spendfuse_bus::OutputRecord;

use super::{Happening, World};
use crate::broken::Habit;
use crate::budget::Budget;
use crate::calendar::{HOUR, MINUTE};
use crate::sidecar::UNREADABLE_VERSION;

impl World {
    pub(super) fn new_budget(&mut self) -> Budget {
        self.budgets_drawn += 1;
        // Ids come again after a while.
        Budget::draw(self.budgets_drawn % 12, &mut self.random)
    }

    pub(super) fn change_budgets(&mut self) -> Result<(), String> {
        if !self.processor.is_up {
            return Ok(());
        }
        // What is in flight counts in an opening or beside it: whoever is faster.
        if self.random.one_in(2) {
            self.settle()?;
        }
        let known = self.reference.budgets().into_values();
        let mut budgets: Vec<Budget> = known.map(|(budget, _)| budget).collect();
        let place = self.random.below(budgets.len().max(1));
        match self.random.below(6) {
            0 if budgets.len() > 3 => drop(budgets.remove(place)),
            1 => {
                let new = self.new_budget();
                let goes_on = |one: &Budget| one.id == new.id && one.counts_like(&new);
                if !budgets.iter().any(goes_on) {
                    budgets.retain(|one| one.id != new.id);
                    budgets.push(new);
                }
            }
            2 => budgets[place].change_window(&mut self.random),
            3 => return self.change_there_and_back(&budgets, place),
            4 if self.opening_may_change(&budgets[place]) => budgets[place].change_opening(),
            _ => budgets[place].change_limit(&mut self.random),
        }
        self.apply(budgets)
    }

    /// What was spent before counts in the window in which the count began, while that one runs.
    fn opening_may_change(&self, budget: &Budget) -> bool {
        let now = self.cluster.now;
        let began = self.reference.counted_from(budget, now);
        budget.has_opening() && budget.window_at(began) == budget.window_at(now)
    }

    /// A budget is changed, or removed, and is again what it was before anybody has looked: with
    /// `--no-wait`, or while no processor runs. Either way its count begins anew.
    fn change_there_and_back(&mut self, budgets: &[Budget], place: usize) -> Result<(), String> {
        let is_away = self.random.one_in(2);
        let mut changed = budgets.to_vec();
        match self.random.one_in(2) && budgets.len() > 1 {
            true => drop(changed.remove(place)),
            false => changed[place].change_window(&mut self.random),
        }
        if is_away {
            self.processor.stop();
        }
        self.write_budgets(changed);
        self.cluster.now += 1_000;
        self.write_budgets(budgets.to_vec());
        if !is_away {
            return self.settle();
        }
        let takes = self.random.pick(&[2_000, 20 * MINUTE, 9 * HOUR]);
        self.plan(self.cluster.now + takes, Happening::ProcessorComes);
        Ok(())
    }

    /// As `spendfuse budgets apply --prune` does it: one transaction, then all wait for it.
    pub(super) fn apply(&mut self, budgets: Vec<Budget>) -> Result<(), String> {
        match self.write_budgets(budgets) {
            true => self.settle(),
            false => Ok(()),
        }
    }

    /// Writes what is new, changed and gone; whether there was anything.
    fn write_budgets(&mut self, budgets: Vec<Budget>) -> bool {
        let before = self.reference.budgets();
        let topic = &self.set.topics.budgets;
        let record = |key: &str, value: Option<Value>| OutputRecord {
            topic: topic.clone(),
            partition: 0,
            key: Some(key.as_bytes().to_vec()),
            value: value.map(|value| value.to_string().into_bytes()),
            headers: Vec::new(),
        };
        let now = self.cluster.now;
        let is_new =
            |budget: &&Budget| before.get(&budget.id).map(|(known, _)| known) != Some(budget);
        let mut records: Vec<OutputRecord> = { budgets.iter().filter(is_new) }
            .map(|budget| {
                let counted_from = self.reference.counted_from(budget, now);
                let mut told = budget.record(counted_from);
                if counted_from < now && Habit::OpeningDropped.is_broken() {
                    told["opening"] = Value::Null;
                }
                record(&budget.id, Some(told))
            })
            .collect();
        let is_gone = |id: &&String| budgets.iter().all(|budget| budget.id != **id);
        records.extend(before.keys().filter(is_gone).map(|id| record(id, None)));
        if records.is_empty() {
            return false;
        }
        // The end of the transaction takes an offset behind the last record.
        self.cluster.commit(records, None);
        let version = self.cluster.log(topic, 0).end() - 1;
        self.reference.applied(version.unsigned_abs(), budgets, now);
        true
    }

    pub(super) fn change_prices(&mut self) {
        let book = self
            .reference
            .prices
            .draw(self.cluster.now, &mut self.random);
        let records = book.to_records().into_iter().map(|record| OutputRecord {
            topic: self.set.topics.prices.clone(),
            partition: 0,
            key: Some(record.key.into_bytes()),
            value: Some(record.value),
            headers: Vec::new(),
        });
        self.cluster.commit(records.collect(), None);
        if self.processor.is_up {
            self.processor.follow(&self.cluster);
        }
    }

    /// A record of a newer program comes, which nobody here can read: what was known stays. Then it is
    /// written as it was.
    pub(super) fn write_unreadable_budget(&mut self) -> Result<(), String> {
        let budgets: Vec<Budget> = { self.reference.budgets().into_values() }
            .map(|(budget, _)| budget)
            .collect();
        if !self.processor.is_up || budgets.is_empty() {
            return Ok(());
        }
        self.settle()?;
        let chosen = self.random.pick(&budgets);
        let known = chosen.record(self.reference.counted_from(&chosen, self.cluster.now));
        let mut newer = known.clone();
        newer["v"] = json!(UNREADABLE_VERSION);
        for record in [newer, known] {
            let record = OutputRecord {
                topic: self.set.topics.budgets.clone(),
                partition: 0,
                key: Some(chosen.id.as_bytes().to_vec()),
                value: Some(record.to_string().into_bytes()),
                headers: Vec::new(),
            };
            self.cluster.commit(vec![record], None);
            let version = self.cluster.log(&self.set.topics.budgets, 0).end() - 1;
            let (version, now) = (version.unsigned_abs(), self.cluster.now);
            self.reference.applied(version, budgets.clone(), now);
            self.look()?;
        }
        Ok(())
    }
}
