//! The replica, and a handle on it for readers; how it decides is in [`crate::decision`].

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use spendfuse_domain::budget::ReserveRule;
use spendfuse_domain::{Detector, UnixMillis, Verdict};

use crate::changes::{BlocklistPage, ChangeLog, CursorExpired};
use crate::compiled::CompiledBudgets;
use crate::decision::ColdStart;
use crate::digest::Kind;
use crate::entry::Entry;
use crate::findings::{OpenFinding, OpenFindings};
use crate::freshness::{Freshness, StateAge};
use crate::hash::{EntryHash, KeyHasher, combine};
use crate::holds::Holds;
use crate::shards::Shards;
use crate::standing::StandingsPage;
use crate::table::Table;
use crate::writer::GuardWriter;

/// How a guard behaves; the same for writer and readers.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// Partitions of the stage topics: as many meter and ledger heartbeats are expected.
    pub partitions: u32,
    /// State older than this is [`State::Stale`], milliseconds.
    pub stale_after_millis: u64,
    /// What happens before the replica has caught up.
    pub cold_start: ColdStart,
    /// How many entries are kept at most, but for those that warn, downgrade or block: these are
    /// kept always.
    pub entry_capacity: usize,
    /// How many reservations are kept at most, with the settled ones that no figure shows yet.
    pub hold_capacity: usize,
    /// How much a call holds of budgets that say no rule of their own.
    pub reserve_rule: ReserveRule,
}

impl GuardConfig {
    /// The contract's defaults for `partitions` partitions.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            stale_after_millis: 10_000,
            cold_start: ColdStart::Allow,
            entry_capacity: 4_000_000,
            hold_capacity: 100_000,
            reserve_rule: ReserveRule::default(),
        }
    }
}

const ENTRY_SHARDS: usize = 16_384;
const FINDING_SHARDS: usize = 1024;

/// What the writer publishes and readers read.
pub(crate) struct Replica {
    pub(crate) config: GuardConfig,
    pub(crate) hasher: KeyHasher,
    /// All that a check reads, but for the rare cases where the full entries are needed.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) entries: Shards<Arc<Entry>>,
    pub(crate) findings: Shards<OpenFindings>,
    pub(crate) holds: Holds,
    /// Whether readers may see entries that the table does not show yet.
    pub(crate) is_publishing: AtomicBool,
    /// Never touched by a check.
    pub(crate) changes: Mutex<ChangeLog>,
    /// Who is told of every publication.
    pub(crate) on_publication: OnceLock<Box<dyn Fn(Mark) + Send + Sync>>,
    prefixes: SessionPrefixes,
}

/// What readers take hold of once a check. The table's slots change in place, so most publications
/// need no new one.
pub(crate) struct Snapshot {
    pub(crate) budgets: Arc<CompiledBudgets>,
    pub(crate) budgets_version: u64,
    /// How often the budgets changed.
    pub(crate) budgets_changes: u64,
    pub(crate) table: Arc<Table>,
    pub(crate) freshness: Freshness,
}

/// What stands before a session's scope in the keys of its blocks.
struct SessionPrefixes {
    detectors: [u128; Detector::ALL.len()],
    /// No key of the topic: where the table keeps whether any of them blocks.
    any: u128,
}

/// A handle on the replica for any number of threads. Cloning is cheap.
#[derive(Clone)]
pub struct Guard {
    pub(crate) replica: Arc<Replica>,
}

impl Guard {
    /// An empty replica: the only writer, and a first handle for readers.
    pub fn new(config: GuardConfig) -> (GuardWriter, Self) {
        let hasher = KeyHasher::new();
        let detector_hash =
            |detector: Detector| hasher.text(&format!("finding|{}", detector.name()));
        let none = std::iter::empty();
        let snapshot = Snapshot {
            budgets: Arc::new(CompiledBudgets::compile(none, &hasher)),
            budgets_version: 0,
            budgets_changes: 0,
            table: Arc::new(Table::for_entries(0, UnixMillis(0))),
            freshness: Freshness::default(),
        };
        let replica = Arc::new(Replica {
            snapshot: ArcSwap::from_pointee(snapshot),
            entries: Shards::new(ENTRY_SHARDS),
            findings: Shards::new(FINDING_SHARDS),
            holds: Holds::new(),
            is_publishing: AtomicBool::new(false),
            changes: Mutex::new(ChangeLog::new()),
            on_publication: OnceLock::new(),
            prefixes: SessionPrefixes {
                detectors: Detector::ALL.map(detector_hash),
                any: hasher.text("finding"),
            },
            hasher,
            config,
        });
        let writer = GuardWriter::new(Arc::clone(&replica));
        (writer, Self { replica })
    }

    /// How old the replica is at this reading of the caller's monotonic clock.
    pub fn state(&self, monotonic_millis: i64) -> StateAge {
        let stale_after = self.replica.config.stale_after_millis;
        let snapshot = self.replica.snapshot.load();
        snapshot.freshness.at(monotonic_millis, stale_after)
    }

    /// How many blocklist entries readers see, expired ones included.
    pub fn entry_count(&self) -> usize {
        self.replica.entries.len()
    }

    /// How many budgets are in force.
    pub fn budget_count(&self) -> usize {
        self.replica.snapshot.load().budgets.budgets.len()
    }

    /// The version of the budgets in force: one more than the offset of the last record of their
    /// topic that was read.
    pub fn budgets_version(&self) -> u64 {
        self.replica.snapshot.load().budgets_version
    }

    /// Shows every entry that is not over at `now`, in no order: for people who ask, not for checks.
    pub fn for_each_entry(&self, now: UnixMillis, mut visit: impl FnMut(&Entry)) {
        let entries = &self.replica.entries;
        for shard in 0..entries.shard_count() {
            entries.for_each_in(shard, |_, entry| {
                if !entry.is_expired(now) {
                    visit(entry);
                }
            });
        }
    }

    /// The open findings that `wanted` picks, in no order. Looks at every open finding: for people
    /// who ask, not for checks.
    pub fn open_findings(&self, wanted: impl Fn(&OpenFinding) -> bool) -> Vec<Arc<OpenFinding>> {
        let mut found = Vec::new();
        for shard in 0..self.replica.findings.shard_count() {
            self.replica.findings.for_each_in(shard, |_, open| {
                found.extend(open.iter().filter(|one| wanted(one)).cloned());
            });
        }
        found
    }

    /// A page of the blocklist, or what has changed since `cursor`; see [`BlocklistPage`].
    ///
    /// # Errors
    /// [`CursorExpired`]: the cursor is of another run or too old; ask without one.
    pub fn blocklist(
        &self,
        cursor: Option<&str>,
        at_most: usize,
        now: UnixMillis,
    ) -> Result<BlocklistPage, CursorExpired> {
        crate::changes::page(&self.replica, cursor, at_most, now)
    }

    /// A page of what makes a difference to calls, for those who decide by themselves; see
    /// [`StandingsPage`].
    ///
    /// # Errors
    /// [`CursorExpired`]: the cursor is of another run or too old, or the budgets have changed; ask
    /// without one.
    pub fn standings(
        &self,
        cursor: Option<&str>,
        at_most: usize,
        now: UnixMillis,
    ) -> Result<StandingsPage, CursorExpired> {
        crate::standing::page(&self.replica, cursor, at_most, now)
    }

    /// Calls `told` after every publication with how much has changed, on the writer's thread: it must
    /// not take long. Only the first of several is called.
    pub fn on_publication(&self, told: impl Fn(Mark) + Send + Sync + 'static) {
        let _ = self.replica.on_publication.set(Box::new(told));
    }
}

/// How much has changed since the start: with another one, pages may be other ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    changes: u64,
    budgets: u64,
    is_caught_up: bool,
}

impl Replica {
    /// The entry at a place, where its window is not over.
    pub(crate) fn current(&self, key: EntryHash, now: UnixMillis) -> Option<Arc<Entry>> {
        let entry = self.entries.get(key);
        entry.filter(|entry| !entry.is_expired(now))
    }

    /// What calls hold of the budget at a place; to be read before its entry.
    #[inline]
    pub(crate) fn held(&self, key: EntryHash, unit: Kind, is_any: bool) -> i64 {
        if is_any {
            self.holds.held(key, unit).total()
        } else {
            0
        }
    }

    /// The place in the table that says whether a session may be blocked by a detector.
    pub(crate) fn any_block(&self, session_scope: u128) -> EntryHash {
        combine(self.prefixes.any, session_scope)
    }

    /// The entries by which a session is blocked at `now`.
    pub(crate) fn session_blocks(
        &self,
        session_scope: u128,
        now: UnixMillis,
    ) -> SmallVec<[Arc<Entry>; 5]> {
        let blocks = |entry: &Arc<Entry>| entry.verdict == Verdict::Block && !entry.is_expired(now);
        self.detector_entries(session_scope)
            .filter(blocks)
            .collect()
    }

    /// The detectors' entries for a session, whatever they say.
    pub(crate) fn detector_entries(&self, session_scope: u128) -> impl Iterator<Item = Arc<Entry>> {
        let keys = self.prefixes.detectors.iter();
        keys.filter_map(move |prefix| self.entries.get(combine(*prefix, session_scope)))
    }

    /// How much has changed.
    pub(crate) fn mark(&self) -> Mark {
        let snapshot = self.snapshot.load();
        Mark {
            budgets: snapshot.budgets_changes,
            is_caught_up: snapshot.freshness.caught_up,
            changes: self.log().end(),
        }
    }

    /// The changes that followers see.
    pub(crate) fn log(&self) -> MutexGuard<'_, ChangeLog> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
