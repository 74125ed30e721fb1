//! The meter: one partition's state machine, from an event to everything that follows from it.
//!
//! In: decoded events at home (rerouting is done), priced; time as ticks. Out, per commit: rows,
//! deltas for the ledger, findings, verdicts of session budgets, alerts, and the changelog from
//! which the same state can be restored. It never asks for the time and does no I/O: whoever drives
//! it writes the outputs and the input positions in one transaction, or drops the state.
//!
//! Start with [`Meter::count`].

mod again;
mod alerts;
mod changelog;
mod commit;
mod corrections;
mod count;
mod counted_call;
mod counted_lately;
pub mod dedupe;
mod estimated;
mod fold;
mod origins;
mod recovered;
mod session;
mod session_calls;
mod session_detectors;
mod session_growth;
mod session_lifetime;
mod session_name;
mod sessions;
mod stored_call;
mod stored_texts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::budget::BudgetId;
use spendfuse_domain::event::Flags;
use spendfuse_domain::row::{CostParts, MeterAddress, PriceBasis, SpendRow};
use spendfuse_domain::{Nanos, UnixMillis};

use crate::account::Account;
use crate::alert_limit::AlertLimit;
use crate::book::BudgetBook;
use crate::delta::Deltas;
use crate::detect::lane::LaneRule;
use crate::publish::Told;
use crate::stamps::Stamps;
use alerts::ToldPeople;
pub use corrections::{Corrected, Correction, Standing};
use counted_lately::CountedLately;
use dedupe::{Dedupe, RememberedIds};
use fold::Fold;
use origins::RecentOrigins;
use sessions::{SessionId, Sessions};

/// Sessions ended or settled in one commit for other reasons than their own events, at most.
const SLICE: usize = 5_000;

/// The parameters of a meter partition.
#[derive(Clone, Debug)]
pub struct MeterConfig {
    /// Its number.
    pub partition: u32,
    /// Number of partitions of every stage.
    pub partitions: u32,
    /// How long identities are remembered, milliseconds.
    pub dedupe_horizon_millis: i64,
    /// How many identities are remembered at most.
    pub dedupe_capacity: usize,
    /// A session without events for this long has ended, milliseconds.
    pub session_idle_millis: i64,
    /// How many sessions are live at most.
    pub session_capacity: usize,
}

/// What a call costs, as the price book says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Charge<'a> {
    /// Parts of the cost.
    pub cost: CostParts,
    /// The part of it that is charged at a ceiling, because no rate is known.
    pub at_ceiling: Nanos,
    /// Where the price comes from.
    pub priced: PriceBasis,
    /// Flags of the pricing.
    pub flags: Flags,
    /// Version of the price book.
    pub price_version: &'a str,
    /// The entry of the price book that was used, where it is not the model itself.
    pub priced_as: &'a str,
    /// Why it cost what it did, in a line.
    pub price_detail: &'a str,
}

/// Takes the rows of a commit.
pub trait Rows {
    /// Appends a row.
    fn push(&mut self, row: &SpendRow<'_>);
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Counted at this address.
    AtAddress(MeterAddress),
    /// A call that was counted before has grown: the difference is counted at this address.
    Grown(MeterAddress),
    /// A call that was counted before, with less or the same: nothing is counted. What only this event
    /// tells of whose it is has a row.
    Echo,
    /// A session end: nothing to count.
    SessionEnded,
    /// The same event was counted before.
    Duplicate,
    /// An event of this identity with other content was counted before.
    Conflict,
    /// Too old to be judged from memory; it belongs to the DLQ with reason `late`.
    Late,
}

/// Everything that one commit publishes, rows aside.
#[derive(Debug, Default)]
pub struct MeterOutputs {
    /// For each ledger partition that is told anything.
    pub deltas: Vec<(u32, Deltas)>,
    /// New identities for the ids changelog.
    pub ids: RememberedIds,
    /// What either stage tells.
    pub told: Told,
    /// Sessions that ended because there was no room for more.
    pub sessions_ended_early: u64,
    /// Accounts of session budgets that were given up, because their session had too many.
    pub session_accounts_given_up: u64,
}

/// A lane's rule within a session: where an episode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EpisodePlace {
    session: SessionId,
    /// Place among the session's lanes.
    lane: usize,
    rule: LaneRule,
}

/// One partition of the meter.
#[derive(Debug)]
pub struct Meter {
    config: MeterConfig,
    book: Arc<BudgetBook>,
    now: UnixMillis,
    seq: u64,
    index: u32,
    /// The budget version that a restored state was made with; older books must not be used.
    required_budget_version: u64,
    dedupe: Dedupe,
    /// Where what was counted last came from, for alerts of conflicts.
    origins: RecentOrigins,
    /// What was counted of the last calls; `None` where only first events count.
    lately: Option<CountedLately>,
    fold: Fold,
    /// Per ledger partition, the last commit that told it anything.
    told: Vec<u64>,
    sessions: Sessions,
    /// Sessions by the hash of their changelog key, until the restore is complete.
    restoring: HashMap<u128, SessionId>,
    /// Live sessions, one entry each, by the time at which they may end; where one lived on, its
    /// entry is renewed then.
    expiry: BTreeSet<(UnixMillis, SessionId)>,
    /// Whether more of them had ended than fitted into the slice before.
    ends_wait: bool,
    /// Sessions whose state must be settled though no event comes.
    settle_at: BTreeMap<UnixMillis, Vec<SessionId>>,
    /// Sessions to be settled because budgets changed.
    reconsider: VecDeque<SessionId>,
    /// Version of the budgets by which all sessions were last settled.
    settled_version: u64,
    /// Models and sources about which an alert was raised.
    told_people: ToldPeople,
    /// What people were told in the running hour.
    alert_limit: AlertLimit,
    stamps: Stamps,
    // The running commit:
    /// The last event of the partition's usage topic that it counts, by its offset.
    through: Option<i64>,
    touched: Vec<SessionId>,
    grown: BTreeSet<EpisodePlace>,
    outputs: MeterOutputs,
}

impl Meter {
    /// A partition with nothing counted yet.
    pub fn new(config: MeterConfig, book: Arc<BudgetBook>) -> Self {
        Self {
            dedupe: Dedupe::new(config.dedupe_horizon_millis, config.dedupe_capacity),
            origins: RecentOrigins::default(),
            lately: Some(CountedLately::default()),
            fold: Fold::new(config.partitions),
            told: vec![0; config.partitions as usize],
            book,
            now: UnixMillis::default(),
            seq: 0,
            index: 0,
            required_budget_version: 0,
            sessions: Sessions::default(),
            restoring: HashMap::default(),
            expiry: BTreeSet::new(),
            ends_wait: false,
            settle_at: BTreeMap::new(),
            reconsider: VecDeque::new(),
            settled_version: 0,
            told_people: ToldPeople::default(),
            alert_limit: AlertLimit::default(),
            stamps: Stamps::default(),
            through: None,
            touched: Vec::new(),
            grown: BTreeSet::new(),
            outputs: MeterOutputs::default(),
            config,
        }
    }

    /// Of several events of one identity only the first is counted, whatever the others say: rows
    /// that amend others are not known everywhere yet.
    pub fn count_first_events_alone(&mut self) {
        self.lately = None;
    }

    /// Begins the commit number `seq`.
    pub fn begin(&mut self, seq: u64) {
        self.seq = seq;
        self.index = 0;
    }

    /// The running commit began at `present`, as far as a monotonic clock vouches for it.
    pub fn set_present(&mut self, present: UnixMillis) {
        self.stamps.begin(present);
    }

    /// The running commit counts every event of its partition of the usage topic up to the one at
    /// `offset`.
    pub fn set_through(&mut self, offset: Option<i64>) {
        self.through = offset;
    }

    /// Uses another budget book from here on; between commits only.
    pub fn set_book(&mut self, book: Arc<BudgetBook>) {
        self.fold.forget_scopes();
        self.book = book;
        self.reconsider = self.sessions.with_accounts().into();
    }

    /// The budgets in use.
    pub fn book(&self) -> &Arc<BudgetBook> {
        &self.book
    }

    /// The version of the budgets in use.
    pub fn budget_version(&self) -> u64 {
        self.book.version
    }

    /// Budgets older than this version must not be used with the restored state.
    pub fn required_budget_version(&self) -> u64 {
        self.required_budget_version
    }

    /// Engine time: the latest time that the partition has seen.
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// How many sessions are live and how many identities are remembered.
    pub fn sizes(&self) -> (usize, usize) {
        (self.sessions.len(), self.dedupe.len())
    }

    /// What a session budget's account holds, for audits and tests.
    pub fn session_account(&self, budget: &BudgetId, scope: &str) -> Option<&Account> {
        self.sessions
            .iter()
            .flat_map(|(_, session)| &session.accounts)
            .find(|one| one.scope == scope && one.budget == budget.as_str())
            .map(|one| &one.account)
    }

    /// Time passes: sessions end, states that waited are published.
    pub fn advance(&mut self, time: UnixMillis) {
        self.now = self.now.max(time);
        self.tell_of_short_horizon();
        self.end_idle_sessions();
        let first = self.expiry.first();
        self.ends_wait = first.is_some_and(|(time, _)| *time < self.now);
        let mut settled = 0;
        while let Some(entry) = self.settle_at.first_entry() {
            if *entry.key() > self.now || settled >= SLICE {
                break;
            }
            settled += entry.get().len();
            for id in entry.remove() {
                self.settle_at_end(id);
            }
        }
        let waiting = self.reconsider.len().min(SLICE);
        let waiting: Vec<SessionId> = self.reconsider.drain(..waiting).collect();
        waiting.into_iter().for_each(|id| self.settle_at_end(id));
    }

    /// Whether changed budgets wait to be judged by, a slice at a time.
    pub fn is_reconsidering(&self) -> bool {
        !self.reconsider.is_empty()
    }

    /// When something is due by time alone: a session's figures, or the end of sessions that did not
    /// fit into the slice before.
    pub fn next_due(&self) -> Option<UnixMillis> {
        if self.is_reconsidering() || self.ends_wait {
            return Some(self.now);
        }
        self.settle_at.first_key_value().map(|(time, _)| *time)
    }

    /// Whether the running commit has anything to write beyond positions.
    pub fn has_output(&self) -> bool {
        self.index > 0
            || !self.touched.is_empty()
            || !self.outputs.told.changelog.is_empty()
            || !self.outputs.ids.ids.is_empty()
            || self.alert_limit.is_due(self.now)
    }
}
