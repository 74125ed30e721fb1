//! What somebody who follows topic `budgets` knows of it.

use std::collections::BTreeMap;

use super::RecordError;

/// What the records said so far; `T` is what is kept of one. While the topic is read again, whoever
/// uses it goes on with what was in force: half a log says what was true once.
#[derive(Debug)]
pub struct FollowedBudgets<T> {
    records: BTreeMap<String, T>,
    /// The keys whose last record cannot be read, and why. What was known of them before stays.
    unreadable: BTreeMap<String, String>,
    /// While the topic is read again: what was known of it, and up to which version.
    before: BTreeMap<String, T>,
    version_before: u64,
    version: u64,
    /// Where the log was read to, which may end behind its last record.
    end: u64,
    holds_former: bool,
    changed: bool,
}

impl<T> Default for FollowedBudgets<T> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            before: BTreeMap::new(),
            version_before: 0,
            version: 0,
            end: 0,
            holds_former: false,
            changed: false,
        }
    }
}

impl<T> FollowedBudgets<T> {
    /// Takes the record of `key` that makes `version`, one more than its offset; `None` for a
    /// tombstone, `Some(Ok(None))` for one of which nothing is kept. One that cannot be read leaves
    /// the budget as it was.
    ///
    /// # Errors
    /// That one.
    pub fn accept(
        &mut self,
        version: u64,
        key: &str,
        record: Option<Result<Option<T>, RecordError>>,
    ) -> Result<(), RecordError> {
        self.version = self.version.max(version);
        self.end = self.end.max(version);
        self.changed = true;
        match record {
            None => {
                self.records.remove(key);
                self.unreadable.remove(key);
                self.before.remove(key);
            }
            Some(Ok(record)) => {
                if version > self.version_before {
                    // Newer than all that was known, which it replaces.
                    self.before.remove(key);
                }
                self.records
                    .extend(record.map(|record| (key.to_owned(), record)));
                self.unreadable.remove(key);
            }
            Some(Err(error)) => {
                if let Some(known) = self.before.remove(key) {
                    self.records.insert(key.to_owned(), known);
                }
                self.unreadable.insert(key.to_owned(), error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// The topic is about to be read again from its beginning.
    pub fn begin_again(&mut self) {
        let mut known = std::mem::take(self);
        // What was not read again yet was known before.
        for (key, record) in known.before {
            known.records.entry(key).or_insert(record);
        }
        self.before = known.records;
        self.version_before = known.version.max(known.version_before);
        self.holds_former = known.holds_former;
        // Even where nothing comes.
        self.changed = true;
    }

    /// The log was read to this offset.
    pub fn reached(&mut self, end: u64) {
        self.end = self.end.max(end);
        self.holds_former &= self.version == 0;
    }

    /// The topic was read to its end. The version that was known before, where the topic ends before
    /// it: then it was made anew meanwhile.
    pub fn caught_up(&mut self) -> Option<u64> {
        self.before.clear();
        let before = std::mem::take(&mut self.version_before);
        if self.end < before {
            self.holds_former = self.version == 0;
            return Some(before);
        }
        // The last record may be a tombstone that is gone by now.
        self.version = self.version.max(before);
        None
    }

    /// Whether the topic was made anew and holds nothing yet: what it said before stays in force.
    pub fn holds_former(&self) -> bool {
        self.holds_former
    }

    /// Whether what is in force is other than when this was asked last.
    pub fn take_change(&mut self) -> bool {
        !self.holds_former && std::mem::take(&mut self.changed)
    }

    /// What is in force, by key.
    pub fn in_force(&self) -> impl Iterator<Item = &T> {
        self.records.values()
    }

    /// One more than the offset of the last record, now or before the topic was read again.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Every record before this offset was taken.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Why the last record of each of these keys cannot be read.
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable() -> Option<Result<Option<u32>, RecordError>> {
        Some(Err(RecordError::new("each", "of a later version")))
    }

    #[test]
    fn what_was_known_of_a_budget_stays_where_a_newer_record_of_it_cannot_be_read() {
        let mut budgets = FollowedBudgets::default();
        budgets.accept(1, "each", Some(Ok(Some(7)))).unwrap();
        budgets.caught_up();
        assert!(budgets.take_change());
        // It comes while the position is lost.
        budgets.begin_again();
        assert!(budgets.accept(6, "each", unreadable()).is_err());
        budgets.caught_up();
        assert!(budgets.take_change());
        assert_eq!(budgets.in_force().collect::<Vec<_>>(), [&7]);
        assert_eq!(budgets.unreadable().len(), 1);
    }

    #[test]
    fn a_topic_that_was_made_anew_holds_what_it_said_until_it_holds_something() {
        let mut budgets = FollowedBudgets::default();
        budgets.accept(7, "each", Some(Ok(Some(7)))).unwrap();
        assert_eq!((budgets.caught_up(), budgets.take_change()), (None, true));
        for gone in [Some(7), None] {
            budgets.begin_again();
            budgets.reached(0);
            assert_eq!(budgets.caught_up(), gone);
            assert!(budgets.holds_former() && !budgets.take_change());
        }
        // An `apply` takes effect as a whole, at the end of the log.
        budgets.accept(1, "other", Some(Ok(Some(1)))).unwrap();
        assert!(budgets.holds_former() && !budgets.take_change());
        budgets.reached(2);
        assert!(!budgets.holds_former() && budgets.take_change());
        assert_eq!((budgets.version(), budgets.end()), (1, 2));
    }
}
