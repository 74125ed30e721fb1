//! The readers' side: [`Guard::check`], a lookup in memory.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use spendfuse_domain::scope::{Dimension, FilterMatch};
use spendfuse_domain::{Detector, UnixMillis, Verdict};

use crate::changes::{BlocklistPage, ChangeLog, CursorExpired};
use crate::compiled::CompiledBudgets;
use crate::decision::{CheckRequest, ColdStart, Decision, judge};
use crate::entry::Entry;
use crate::findings::{OpenFinding, OpenFindings};
use crate::freshness::{Freshness, Now, State, StateAge};
use crate::hash::{KeyHasher, combine, part_label};
use crate::shards::Shards;
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
}

impl GuardConfig {
    /// The contract's defaults for `partitions` partitions.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            stale_after_millis: 10_000,
            cold_start: ColdStart::Allow,
        }
    }
}

const ENTRY_SHARDS: usize = 16_384;
const FINDING_SHARDS: usize = 1024;

/// What the writer publishes and readers read.
pub(crate) struct Replica {
    pub(crate) config: GuardConfig,
    pub(crate) hasher: KeyHasher,
    pub(crate) entries: Shards<Arc<Entry>>,
    pub(crate) findings: Shards<OpenFindings>,
    pub(crate) budgets: ArcSwap<CompiledBudgets>,
    pub(crate) freshness: ArcSwap<Freshness>,
    /// Never touched by a check.
    pub(crate) changes: Mutex<ChangeLog>,
    labels: SessionLabels,
}

/// What of session scopes and session blocks is the same in every check.
struct SessionLabels {
    session: String,
    root_session: String,
    detectors: [u128; Detector::ALL.len()],
}

/// A handle on the replica for any number of threads. Cloning is cheap.
#[derive(Clone)]
pub struct Guard {
    replica: Arc<Replica>,
}

impl Guard {
    /// An empty replica: the only writer, and a first handle for readers.
    pub fn new(config: GuardConfig) -> (GuardWriter, Self) {
        let hasher = KeyHasher::new();
        let detector_hash =
            |detector: Detector| hasher.text(&format!("finding|{}", detector.name()));
        let replica = Arc::new(Replica {
            entries: Shards::new(ENTRY_SHARDS),
            findings: Shards::new(FINDING_SHARDS),
            budgets: ArcSwap::from_pointee(CompiledBudgets::default()),
            freshness: ArcSwap::from_pointee(Freshness::default()),
            changes: Mutex::new(ChangeLog::new()),
            labels: SessionLabels {
                session: part_label(&Dimension::Session),
                root_session: part_label(&Dimension::RootSession),
                detectors: Detector::ALL.map(detector_hash),
            },
            hasher,
            config,
        });
        (GuardWriter::new(Arc::clone(&replica)), Self { replica })
    }

    /// Decides about a call. No lock, no network; no allocation as long as at most eight budgets
    /// apply. The cost depends on how many scope shapes budgets use, not on how many scopes there
    /// are or how many are blocked.
    pub fn check(&self, request: &CheckRequest<'_>, now: Now) -> Decision {
        let replica = &*self.replica;
        let state = self.state(now.monotonic_millis);
        let mut decision = Decision {
            budgets: replica.budgets.load(),
            verdict: Verdict::Ok,
            matches: SmallVec::new(),
            not_evaluated: SmallVec::new(),
            session_blocks: SmallVec::new(),
            findings: SmallVec::new(),
            state,
            cold_block: state.state == State::Cold && replica.config.cold_start == ColdStart::Block,
        };
        replica.meet_budgets(request, now.wall, &mut decision);
        replica.meet_findings(request, now.wall, &mut decision);
        let strictest = decision.matches.iter().map(|one| one.verdict).max();
        let refused = decision.cold_block || !decision.session_blocks.is_empty();
        decision.verdict = if refused {
            Verdict::Block
        } else {
            strictest.unwrap_or_default()
        };
        decision
    }

    /// How old the replica is at this reading of the caller's monotonic clock.
    pub fn state(&self, monotonic_millis: i64) -> StateAge {
        let stale_after = self.replica.config.stale_after_millis;
        let freshness = self.replica.freshness.load();
        freshness.at(monotonic_millis, stale_after)
    }

    /// How many blocklist entries readers see, expired ones included.
    pub fn entry_count(&self) -> usize {
        self.replica.entries.len()
    }

    /// How many budgets are in force.
    pub fn budget_count(&self) -> usize {
        self.replica.budgets.load().budgets.len()
    }

    /// The open findings that `wanted` picks, in no order. Looks at every open finding: for people
    /// who ask, not for checks.
    pub fn open_findings(&self, wanted: impl Fn(&OpenFinding) -> bool) -> Vec<Arc<OpenFinding>> {
        let mut found = Vec::new();
        for shard in 0..self.replica.findings.shard_count() {
            self.replica.findings.for_each_in(shard, |open| {
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
}

impl Replica {
    fn meet_budgets(&self, request: &CheckRequest<'_>, now: UnixMillis, decision: &mut Decision) {
        let compiled = &decision.budgets;
        for group in &compiled.groups {
            let asking = group.asking(&request.attribution);
            let Some(candidates) = group.candidates(asking, &self.hasher) else {
                continue;
            };
            for &place in candidates.members {
                let budget = &compiled.budgets[place as usize];
                match budget.budget.filter.evaluate(&asking) {
                    FilterMatch::Contradicts => {}
                    FilterMatch::Unknown => decision.not_evaluated.push(place),
                    FilterMatch::Holds => {
                        let key = combine(budget.id_hash, candidates.scope);
                        let entry = self.entries.get(key).filter(|entry| !entry.is_expired(now));
                        let state = decision.state.state;
                        let found = judge(budget, place, entry, request, state);
                        decision.matches.push(found);
                    }
                }
            }
        }
    }

    fn meet_findings(&self, request: &CheckRequest<'_>, now: UnixMillis, decision: &mut Decision) {
        let attribution = &request.attribution;
        let scope_of = |label: &str, session: &str| {
            let mut hash = self.hasher.scope(Some(&attribution.workspace));
            hash.part(label, session);
            hash.finish()
        };
        if !attribution.session.is_empty() {
            let scope = scope_of(&self.labels.session, &attribution.session);
            decision.findings.extend(self.findings.get(scope));
            for detector in self.labels.detectors {
                let block = self.entries.get(combine(detector, scope));
                let block =
                    block.filter(|entry| entry.verdict == Verdict::Block && !entry.is_expired(now));
                decision.session_blocks.extend(block);
            }
        }
        if !attribution.root_session.is_empty() {
            let scope = scope_of(&self.labels.root_session, &attribution.root_session);
            decision.findings.extend(self.findings.get(scope));
        }
    }

    /// Shows what the writer has gathered to everybody who follows the blocklist's changes.
    pub(crate) fn log_changes(&self, changes: impl Iterator<Item = crate::changes::Change>) {
        let mut log = self
            .changes
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        log.extend(changes);
    }
}
