//! The writer's side: records of the followed topics in, publications to readers out.

mod again;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spendfuse_domain::budget::{BudgetsRecord, CompiledBudget, FollowedBudgets};
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::verdict::{BlocklistKey, Heartbeat, Stage};
use spendfuse_domain::{UnixMillis, Verdict};

use crate::arrivals::Arrivals;
use crate::changes::{Change, Changed};
use crate::compiled::CompiledBudgets;
use crate::entry::Entry;
use crate::error::GuardError;
use crate::findings::{OpenFinding, OpenFindings, replaced, scope_of};
use crate::freshness::{Heartbeats, Now};
use crate::guard::{Replica, Snapshot};
use crate::hash::EntryHash;
use crate::holds::Shown;
use crate::metrics::{ENFORCEMENT_LAG_SECONDS, ENTRIES_LEFT_OUT};
use crate::shards::Pending;
use crate::standing::matters;
use crate::standings::Standings;
use again::Unconfirmed;

/// The only writer of a replica. Apply records in log order, then [`publish`](Self::publish).
pub struct GuardWriter {
    replica: Arc<Replica>,
    entries: Pending<Arc<Entry>>,
    standings: Standings,
    findings: Pending<OpenFindings>,
    budgets: FollowedBudgets<Arc<CompiledBudget>>,
    heartbeats: Heartbeats,
    heartbeats_changed: bool,
    /// Per partition of the blocklist.
    arrivals: Vec<Arrivals>,
    caught_up: bool,
    /// While the topics are read again: what has not come again yet.
    unconfirmed: Option<Unconfirmed>,
    /// Causes of the changed verdicts that readers do not see yet.
    unpublished_causes: Vec<(Verdict, UnixMillis)>,
    /// Number of the record of the blocklist that was applied last.
    record: u64,
    /// While anything is held: the changed entries that readers do not see yet.
    unpublished_entries: Vec<Shown>,
}

impl GuardWriter {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Self {
            heartbeats: Heartbeats::new(replica.config.partitions),
            replica,
            entries: Pending::new(),
            standings: Standings::default(),
            findings: Pending::new(),
            budgets: FollowedBudgets::default(),
            heartbeats_changed: false,
            arrivals: Vec::new(),
            caught_up: false,
            unconfirmed: None,
            unpublished_causes: Vec::new(),
            record: 0,
            unpublished_entries: Vec::new(),
        }
    }

    /// How many partitions the guard was set to.
    pub fn configured_partitions(&self) -> u32 {
        self.replica.config.partitions
    }

    /// The stage topics have so many partitions, whatever the guard was set to: as many heartbeats
    /// of each stage make a whole.
    pub fn expect_partitions(&mut self, partitions: u32) {
        self.heartbeats.expect(partitions);
        self.heartbeats_changed = true;
    }

    /// Takes a record of the blocklist topic; `value` is `None` for a tombstone, `logged_at` the
    /// record's own timestamp.
    ///
    /// # Errors
    /// [`GuardError`] where the record cannot be read; what was known of its key stays.
    pub fn apply(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        logged_at: UnixMillis,
        now: Now,
    ) -> Result<(), GuardError> {
        self.record += 1;
        match BlocklistKey::parse(key) {
            None => Err(GuardError::Key {
                key: key.to_owned(),
            }),
            Some(BlocklistKey::Heartbeat { stage, partition }) => match value {
                Some(value) => self.beat(key, stage, partition, value, logged_at, now),
                None => Ok(()),
            },
            Some(BlocklistKey::Budget { .. } | BlocklistKey::Finding { .. }) => {
                self.apply_entry(key, value)
            }
        }
    }

    fn apply_entry(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), GuardError> {
        let hash = self.replica.hasher.key(key);
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.entries.remove(&hash);
        } else if self.replica.holds.cells.is_any() {
            // A log that is read again says what was true before the heartbeats that are known.
            self.unpublished_entries.push(Shown {
                key: hash,
                record: self.record,
                entry: None,
            });
        }
        let Some(value) = value else {
            self.remove_entry(hash, key);
            return Ok(());
        };
        let entry = Arc::new(Entry::parse(key, value)?);
        if let Some(shown) = self.unpublished_entries.last_mut()
            && shown.record == self.record
        {
            shown.entry = Some(Arc::clone(&entry));
        }
        if self.is_reading_again() && self.latest(hash).as_ref() == Some(&entry) {
            return Ok(());
        }
        if entry.verdict == Verdict::Ok && self.is_full() && !self.knows(hash) {
            metrics::counter!(ENTRIES_LEFT_OUT).increment(1);
            return Ok(());
        }
        // What was followed from the log's beginning says nothing about the lag.
        if self.caught_up && self.unconfirmed.is_none() {
            let before = self.latest(hash);
            let before = before.map_or(Verdict::Ok, |before| before.verdict);
            if before != entry.verdict {
                let cause = entry.caused_at().map(|at| (entry.verdict, at));
                self.unpublished_causes.extend(cause);
            }
        }
        self.entries.set(hash, Some(entry));
        self.note_session(key);
        Ok(())
    }

    /// Names come from outside, and each makes an entry. What an entry with verdict ok adds is the
    /// sum so far; a call of a scope without one is judged as its first.
    fn is_full(&self) -> bool {
        let kept = self.replica.entries.len() + self.entries.len();
        kept >= self.replica.config.entry_capacity
    }

    fn knows(&self, hash: EntryHash) -> bool {
        self.latest(hash).is_some()
    }

    /// What readers see after the next publication.
    fn latest(&self, hash: EntryHash) -> Option<Arc<Entry>> {
        self.entries.get(&self.replica.entries, hash)
    }

    fn remove_entry(&mut self, hash: EntryHash, key: &str) {
        self.entries.set(hash, None);
        self.note_session(key);
    }

    fn note_session(&mut self, key: &str) {
        if let Some(BlocklistKey::Finding { scope, .. }) = BlocklistKey::parse(key) {
            self.standings
                .session_changed(self.replica.hasher.scope(scope));
        }
    }

    fn beat(
        &mut self,
        key: &str,
        stage: Stage,
        partition: u32,
        value: &[u8],
        logged_at: UnixMillis,
        now: Now,
    ) -> Result<(), GuardError> {
        let bad = |detail: String| GuardError::Heartbeat {
            key: key.to_owned(),
            detail,
        };
        let heartbeat: Heartbeat =
            serde_json::from_slice(value).map_err(|error| bad(error.to_string()))?;
        let follows = self.caught_up && !self.is_reading_again();
        let partitions = self.heartbeats.partitions();
        if self.arrivals.len() != partitions {
            self.arrivals.resize_with(partitions, Arrivals::default);
        }
        let arrivals = self.arrivals.get_mut(partition as usize);
        let transit_millis =
            arrivals.map_or(0, |arrivals| arrivals.under_way(logged_at, now, follows));
        let known = self.heartbeats.beat(
            stage,
            partition,
            &heartbeat,
            logged_at,
            transit_millis,
            now.monotonic_millis,
        );
        if !known {
            return Err(bad(format!(
                "the stage topics have {partitions} partitions only"
            )));
        }
        self.heartbeats_changed = true;
        let holds = &self.replica.holds;
        if holds.cells.is_any() {
            let counted = self.heartbeats.counted_to();
            holds.counted(counted, self.record, now.monotonic_millis);
        }
        Ok(())
    }

    /// Takes a record of the budgets topic; `version` is one more than its offset. Detector rules
    /// are none of a guard's business and are skipped.
    ///
    /// # Errors
    /// [`GuardError::Budget`] where it is not a budget; the budget stays as it was.
    pub fn apply_budget(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        version: u64,
    ) -> Result<(), GuardError> {
        let compiled = |record| match record {
            BudgetsRecord::Budget(budget) => Some(Arc::new(CompiledBudget::new(budget))),
            BudgetsRecord::Detector(_) => None,
        };
        let record = value.map(|value| BudgetsRecord::parse(key, value).map(compiled));
        Ok(self.budgets.accept(version, key, record)?)
    }

    /// Takes a record of the findings topic.
    ///
    /// # Errors
    /// [`GuardError::Finding`] where the value is not a finding.
    pub fn apply_finding(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), GuardError> {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.findings.remove(key);
        }
        let finding = value.map(serde_json::from_slice::<Finding>).transpose();
        let finding = finding.map_err(|error| GuardError::Finding {
            key: key.to_owned(),
            detail: error.to_string(),
        })?;
        let open = finding.filter(|finding| finding.state == FindingState::Open);
        let open = open.map(|finding| OpenFinding {
            key: key.into(),
            finding,
        });
        let scope = self.replica.hasher.scope(scope_of(key));
        let before = self.findings.get(&self.replica.findings, scope);
        self.findings.set(scope, replaced(before, key, open));
        Ok(())
    }

    /// The budgets topic was read to this offset, the end of its log.
    pub fn reached_end_of_budgets(&mut self, end: u64) {
        self.budgets.reached(end);
    }

    /// Partition `partition` of the blocklist was read to its end.
    pub fn reached_end(&mut self, partition: u32, monotonic_millis: i64) {
        if let Some(arrivals) = self.arrivals.get_mut(partition as usize) {
            arrivals.end(monotonic_millis);
        }
    }

    /// Whether the budgets in force are those of a topic that is gone.
    pub fn holds_former_budgets(&self) -> bool {
        self.budgets.holds_former()
    }

    /// Shows everything applied so far to readers; nothing while topics are read again.
    pub fn publish(&mut self, now: UnixMillis) {
        if self.is_reading_again() {
            return;
        }
        let replica = &self.replica;
        let before = replica.snapshot.load_full();
        let mut table = Arc::clone(&before.table);
        if !self.entries.is_empty() {
            let changes = self.entries.take();
            let logged: Vec<Change> = changes
                .iter()
                .filter_map(|(hash, entry)| {
                    let replaced = replica.entries.get(*hash);
                    let what = match (entry, &replaced) {
                        (Some(entry), _) => Changed::Set(Arc::clone(entry)),
                        (None, Some(gone)) => Changed::Removed(gone.key().into()),
                        (None, None) => return None,
                    };
                    let mattered =
                        replaced.is_some_and(|replaced| matters(&before.budgets, &replaced));
                    Some(Change { what, mattered })
                })
                .collect();
            let noted = self.standings.note(&changes, &table, replica);
            // The full entries first: what the table cannot say is looked up there.
            replica.is_publishing.store(true, Ordering::SeqCst);
            replica.entries.publish(changes);
            table = self.standings.publish(noted, table, replica, now);
            // After the entries: who reads all entries and then follows the changes from a cursor
            // taken before misses none.
            replica.log().extend(logged.into_iter());
        }
        if !self.findings.is_empty() {
            replica.findings.publish(self.findings.take());
        }
        let budgets_version = self.budgets.version();
        let replaced =
            !Arc::ptr_eq(&table, &before.table) || before.budgets_version != budgets_version;
        let budgets_changed = self.budgets.take_change();
        if budgets_changed || self.heartbeats_changed || replaced {
            let budgets = if budgets_changed {
                let budgets = self.budgets.in_force().cloned();
                Arc::new(CompiledBudgets::compile(budgets, &replica.hasher))
            } else {
                Arc::clone(&before.budgets)
            };
            // Last: the state's age must not promise what readers do not see yet.
            let freshness = self.heartbeats.freshness(self.caught_up);
            replica.snapshot.store(Arc::new(Snapshot {
                budgets,
                budgets_version,
                budgets_changes: before.budgets_changes + u64::from(budgets_changed),
                table,
                freshness,
            }));
            self.heartbeats_changed = false;
            if let Some(read_to) = freshness.complete_to_millis()
                && replica.holds.cells.is_any()
            {
                replica.drop_refreshed(read_to);
            }
        }
        self.replica.is_publishing.store(false, Ordering::SeqCst);
        let replica = &self.replica;
        if !self.unpublished_entries.is_empty() {
            // Last of all: what is no longer pending must be in what readers see.
            replica.holds.shown(&self.unpublished_entries);
            self.unpublished_entries.clear();
        }
        for (verdict, caused_at) in self.unpublished_causes.drain(..) {
            let lag_millis = now.since(caused_at).max(0);
            metrics::histogram!(ENFORCEMENT_LAG_SECONDS, "verdict" => verdict.name())
                .record(lag_millis as f64 / 1000.0);
        }
        if let Some(told) = self.replica.on_publication.get() {
            told(self.replica.mark());
        }
    }
}
