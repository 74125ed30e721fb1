//! The writer's side: records of the followed topics in, publications to readers out.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;
use spendfuse_domain::budget::{BudgetId, BudgetsRecord, CompiledBudget};
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::verdict::{BlocklistKey, Heartbeat, Stage};
use spendfuse_domain::{UnixMillis, Verdict};

use crate::changes::Change;
use crate::compiled::CompiledBudgets;
use crate::entry::Entry;
use crate::error::GuardError;
use crate::findings::{OpenFinding, OpenFindings, replaced, scope_of};
use crate::freshness::{Heartbeats, Now};
use crate::guard::{Replica, Snapshot};
use crate::hash::EntryHash;
use crate::metrics::{ENFORCEMENT_LAG_SECONDS, ENTRIES_LEFT_OUT};
use crate::shards::Pending;
use crate::standings::Standings;

/// The only writer of a replica. Apply records in log order, then [`publish`](Self::publish).
pub struct GuardWriter {
    replica: Arc<Replica>,
    entries: Pending<Arc<Entry>>,
    standings: Standings,
    findings: Pending<OpenFindings>,
    changes: Vec<Change>,
    budgets: BTreeMap<BudgetId, Arc<CompiledBudget>>,
    budgets_version: u64,
    budgets_changed: bool,
    heartbeats: Heartbeats,
    heartbeats_changed: bool,
    caught_up: bool,
    /// While the topics are read again: what has not come again yet.
    unconfirmed: Option<Unconfirmed>,
    /// Causes of the changed verdicts that readers do not see yet.
    unpublished_causes: Vec<(Verdict, UnixMillis)>,
}

/// What readers know and the topics have not said again.
#[derive(Default)]
struct Unconfirmed {
    entries: HashSet<EntryHash>,
    findings: HashSet<String>,
    budgets: Vec<BudgetId>,
}

impl GuardWriter {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Self {
            heartbeats: Heartbeats::new(replica.config.partitions),
            replica,
            entries: Pending::new(),
            standings: Standings::default(),
            findings: Pending::new(),
            changes: Vec::new(),
            budgets: BTreeMap::new(),
            budgets_version: 0,
            budgets_changed: false,
            heartbeats_changed: false,
            caught_up: false,
            unconfirmed: None,
            unpublished_causes: Vec::new(),
        }
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
        }
        let Some(value) = value else {
            self.remove_entry(hash, key);
            return Ok(());
        };
        let entry = Arc::new(Entry::parse(key, value)?);
        if entry.verdict == Verdict::Ok && self.is_full() && !self.knows(hash) {
            metrics::counter!(ENTRIES_LEFT_OUT).increment(1);
            return Ok(());
        }
        // What was followed from the log's beginning says nothing about the lag.
        if self.caught_up && self.unconfirmed.is_none() {
            let before = self.entries.get(&self.replica.entries, hash);
            let before = before.map_or(Verdict::Ok, |before| before.verdict);
            if before != entry.verdict {
                let cause = entry.caused_at().map(|at| (entry.verdict, at));
                self.unpublished_causes.extend(cause);
            }
        }
        self.changes.push(Change::Set(Arc::clone(&entry)));
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
        self.entries.get(&self.replica.entries, hash).is_some()
    }

    fn remove_entry(&mut self, hash: EntryHash, key: &str) {
        self.entries.set(hash, None);
        self.changes.push(Change::Removed(key.into()));
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
        // At the live end a record's way is milliseconds. What was logged before this guard caught
        // up may be days old, and only the wall clocks can tell.
        let transit_millis = if self.caught_up && self.unconfirmed.is_none() {
            0
        } else {
            now.wall.since(logged_at).max(0)
        };
        let known = self.heartbeats.beat(
            stage,
            partition,
            &heartbeat,
            logged_at,
            transit_millis,
            now.monotonic_millis,
        );
        if !known {
            let partitions = self.replica.config.partitions;
            return Err(bad(format!(
                "this guard expects {partitions} partitions; set its partition count to that of \
                 the stage topics"
            )));
        }
        self.heartbeats_changed = true;
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
        self.budgets_version = self.budgets_version.max(version);
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.budgets.retain(|id| id.as_str() != key);
        }
        let Some(value) = value else {
            if let Some(id) = BudgetId::new(key) {
                self.budgets_changed |= self.budgets.remove(&id).is_some();
            }
            return Ok(());
        };
        if let BudgetsRecord::Budget(budget) = BudgetsRecord::parse(key, value)? {
            let compiled = CompiledBudget::new(budget);
            self.budgets
                .insert(compiled.budget.id.clone(), Arc::new(compiled));
            self.budgets_changed = true;
        }
        Ok(())
    }

    /// Takes a record of the findings topic.
    ///
    /// # Errors
    /// [`GuardError::Finding`] where the value is not a finding.
    pub fn apply_finding(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), GuardError> {
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
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.findings.remove(key);
        }
        let scope = self.replica.hasher.scope(scope_of(key));
        let before = self.findings.get(&self.replica.findings, scope);
        self.findings.set(scope, replaced(before, key, open));
        Ok(())
    }

    /// The followed topics are about to be read again from their beginnings. Readers keep what
    /// they have; what does not come again is removed by [`caught_up`](Self::caught_up).
    pub fn begin_again(&mut self, now: UnixMillis) {
        self.publish(now);
        let mut unconfirmed = Unconfirmed {
            budgets: self.budgets.keys().cloned().collect(),
            ..Unconfirmed::default()
        };
        let (entries, findings) = (&self.replica.entries, &self.replica.findings);
        for shard in 0..entries.shard_count() {
            entries.for_each_in(shard, |key, _| {
                unconfirmed.entries.insert(key);
            });
        }
        for shard in 0..findings.shard_count() {
            findings.for_each_in(shard, |_, open| {
                unconfirmed
                    .findings
                    .extend(open.iter().map(|one| one.key.to_string()));
            });
        }
        self.unconfirmed = Some(unconfirmed);
    }

    /// Every followed topic has been read to the end that it had at start.
    pub fn caught_up(&mut self) {
        if let Some(gone) = self.unconfirmed.take() {
            self.forget(gone);
        }
        self.caught_up = true;
        self.heartbeats_changed = true;
    }

    fn forget(&mut self, gone: Unconfirmed) {
        for hash in gone.entries {
            if let Some(entry) = self.entries.get(&self.replica.entries, hash) {
                self.remove_entry(hash, entry.key());
            }
        }
        for key in gone.findings {
            let scope = self.replica.hasher.scope(scope_of(&key));
            let before = self.findings.get(&self.replica.findings, scope);
            self.findings.set(scope, replaced(before, &key, None));
        }
        for id in gone.budgets {
            self.budgets_changed |= self.budgets.remove(&id).is_some();
        }
    }

    /// Shows everything applied so far to readers.
    pub fn publish(&mut self, now: UnixMillis) {
        let replica = &self.replica;
        let before = replica.snapshot.load_full();
        let mut table = Arc::clone(&before.table);
        if !self.entries.is_empty() {
            let changes = self.entries.take();
            let noted = self.standings.note(&changes, &table, replica);
            // The full entries first: what the table cannot say is looked up there.
            replica.entries.publish(changes);
            table = self.standings.publish(noted, table, replica, now);
            // After the entries: who reads all entries and then follows the changes from a cursor
            // taken before misses none.
            replica.log_changes(self.changes.drain(..));
        }
        if !self.findings.is_empty() {
            replica.findings.publish(self.findings.take());
        }
        let replaced =
            !Arc::ptr_eq(&table, &before.table) || before.budgets_version != self.budgets_version;
        if self.budgets_changed || self.heartbeats_changed || replaced {
            let budgets = if self.budgets_changed {
                let budgets = self.budgets.values().cloned();
                Arc::new(CompiledBudgets::compile(budgets, &replica.hasher))
            } else {
                Arc::clone(&before.budgets)
            };
            // Last: the state's age must not promise what readers do not see yet.
            replica.snapshot.store(Arc::new(Snapshot {
                budgets,
                budgets_version: self.budgets_version,
                table,
                freshness: self.heartbeats.freshness(self.caught_up),
            }));
            self.budgets_changed = false;
            self.heartbeats_changed = false;
        }
        for (verdict, caused_at) in self.unpublished_causes.drain(..) {
            let lag_millis = now.since(caused_at).max(0);
            metrics::histogram!(ENFORCEMENT_LAG_SECONDS, "verdict" => verdict.name())
                .record(lag_millis as f64 / 1000.0);
        }
    }
}
