//! Budget books from the records of topic `budgets`.

use std::collections::BTreeMap;

use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::BudgetId;
use spendfuse_domain::budget::BudgetsRecord;
use spendfuse_domain::finding::DetectorRules;
use spendfuse_engine::book::BudgetBook;

/// What the records said so far.
#[derive(Debug, Default)]
pub struct BudgetTable {
    records: BTreeMap<String, BudgetsRecord>,
    /// The keys whose last record cannot be read, and why. What was known of them before stays.
    unreadable: BTreeMap<String, String>,
    /// While the topic is read again: what was known of it.
    before: Before,
    version: u64,
    /// Where the log was read to, which may end behind its last record.
    end: u64,
    changed: bool,
}

#[derive(Debug, Default)]
struct Before {
    records: BTreeMap<String, BudgetsRecord>,
    version: u64,
}

impl BudgetTable {
    /// Takes a record. One that cannot be read leaves the budget as it was.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn accept(&mut self, offset: i64, key: &str, value: Option<&[u8]>) -> Result<(), String> {
        self.version = offset.unsigned_abs() + 1;
        self.end = self.end.max(self.version);
        self.changed = true;
        match value.map(|value| BudgetsRecord::parse(key, value)) {
            None => {
                self.records.remove(key);
                self.unreadable.remove(key);
                self.before.records.remove(key);
            }
            Some(Ok(record)) => {
                if self.version > self.before.version {
                    // Newer than all that was known, which it replaces.
                    self.before.records.remove(key);
                }
                self.records.insert(key.to_owned(), record);
                self.unreadable.remove(key);
            }
            Some(Err(_)) if is_broken(Break::UnreadableBudgetRemoved) => {
                self.records.remove(key);
            }
            Some(Err(error)) => {
                if let Some(known) = self.before.records.remove(key) {
                    self.records.insert(key.to_owned(), known);
                }
                self.unreadable.insert(key.to_owned(), error.to_string());
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    /// The topic is about to be read again from its beginning.
    pub fn begin_again(&mut self) {
        let mut known = std::mem::take(self);
        // What was not read again yet was known before.
        for (key, record) in known.before.records {
            known.records.entry(key).or_insert(record);
        }
        self.before = Before {
            records: known.records,
            version: known.version.max(known.before.version),
        };
        // Even where nothing comes.
        self.changed = true;
    }

    /// The log was read to this offset.
    pub fn reached(&mut self, end: i64) {
        self.end = self.end.max(end.unsigned_abs());
    }

    /// Every record before this offset was taken.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The topic was read to its end. The version that was known before, where the topic ends before
    /// it: then it was made anew meanwhile.
    pub fn caught_up(&mut self) -> Option<u64> {
        let before = std::mem::take(&mut self.before).version;
        if self.end < before {
            return Some(before);
        }
        // The last record may be a tombstone that is gone by now.
        self.version = self.version.max(before);
        None
    }

    /// Why the last record of each of these keys cannot be read.
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }

    /// A new book where records came since the last one. Asked at the end of the log, so that an
    /// `apply`, which is one transaction, takes effect as a whole.
    pub fn take_book(&mut self) -> Option<BudgetBook> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut budgets = Vec::new();
        let mut rules = Vec::new();
        for record in self.records.values() {
            match record {
                BudgetsRecord::Budget(budget) => budgets.push(budget.clone()),
                BudgetsRecord::Detector(rule) => rules.push(rule.clone()),
            }
        }
        let rules = DetectorRules::new(rules);
        let unreadable = self.unreadable.keys().filter_map(|key| BudgetId::new(key));
        Some(BudgetBook::compile(self.version, budgets, rules).with_unreadable(unreadable))
    }
}
