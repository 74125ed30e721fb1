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
mod counted_call;
mod counted_lately;
pub mod dedupe;
mod estimated;
mod fold;
mod origins;
mod recovered;
mod session;
mod session_calls;
mod session_growth;
mod sessions;
mod stored_call;
mod stored_texts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::budget::{BudgetId, Spend};
use spendfuse_domain::event::{Body, Event, Flags};
use spendfuse_domain::row::{Amended, CostParts, MeterAddress, Origin, PriceBasis, SpendRow};
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
use counted_call::CountedCall;
use counted_lately::CountedLately;
use dedupe::{Dedupe, Judgement, RememberedId, RememberedIds};
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

/// What an event is to those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feed {
    /// It happens now: sessions, detectors and people are told.
    Live,
    /// It is history: rows and sums alone.
    History,
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

    /// Counts one event at home. `charge` is its price; revenue and session ends have none.
    pub fn count(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        rows: &mut impl Rows,
    ) -> Counted {
        let counted_at = self.pass(origin);
        // By engine time, not by its own arrival: an event that was handed over late may be older
        // than what the memory has kept.
        let age = self.now.since(event.time);
        if age > self.dedupe.effective_horizon(self.now) {
            return Counted::Late;
        }
        self.count_unless_remembered(event, charge, (origin, counted_at), Feed::Live, rows)
    }

    /// Time passes until an event's arrival, as far as that is believed. Returns engine time, by which
    /// identities are remembered: by the stamps of a clock that runs back for a while they would be
    /// forgotten before events of their time are late.
    #[inline]
    fn pass(&mut self, origin: Origin) -> UnixMillis {
        let arrival = self.stamps.believed(origin.arrival, self.now);
        self.now = self.now.max(arrival);
        self.now
    }

    /// Counts an event whatever its age: somebody has made sure that it was not counted before the
    /// memory began (`dlq replay --verify` asks the warehouse). What is remembered is still a
    /// duplicate.
    pub fn count_verified(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        rows: &mut impl Rows,
    ) -> Counted {
        let counted_at = self.pass(origin);
        self.count_unless_remembered(event, charge, (origin, counted_at), Feed::Live, rows)
    }

    /// Counts an event of history, whatever its age, into rows and budgets' windows: sessions,
    /// detectors and people do not learn of it (`ingest --backfill`).
    ///
    /// Somebody has made sure that the warehouse does not know it and has everything that was
    /// counted before `judged_at`. What was counted since then must be remembered here: where the
    /// memory does not reach back so far the event is late.
    pub fn count_history(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        judged_at: UnixMillis,
        rows: &mut impl Rows,
    ) -> Counted {
        let counted_at = self.pass(origin);
        if event.body == Body::SessionEnd {
            // The session of now is another one, or goes on.
            return Counted::SessionEnded;
        }
        if judged_at < self.dedupe.knows_since(self.now) {
            return Counted::Late;
        }
        self.count_unless_remembered(event, charge, (origin, counted_at), Feed::History, rows)
    }

    #[inline]
    fn count_unless_remembered(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        (origin, counted_at): (Origin, UnixMillis),
        feed: Feed,
        rows: &mut impl Rows,
    ) -> Counted {
        match self.dedupe.judge(event.identity, event.content, counted_at) {
            Judgement::Duplicate => return Counted::Duplicate,
            Judgement::Conflict { first } => {
                return self.count_again(event, charge, (origin, counted_at), feed, rows, first);
            }
            Judgement::Fresh => {}
        }
        self.remember(event, (origin, counted_at));
        if event.body == Body::SessionEnd {
            self.end_named_session(event);
            return Counted::SessionEnded;
        }
        let (address, flags) = self.add_row(event, charge, origin, feed, None, rows);
        if let Body::Usage(call) = &event.body {
            let counted = CountedCall::of(event, call, charge, address);
            let spend = counted.spend();
            self.count_spend(event, spend, feed);
            if feed == Feed::Live {
                self.watch_sessions(event, call, charge, spend);
                self.tell_people(event, call, flags);
            }
            self.remember_call(event, &counted);
        }
        Counted::AtAddress(address)
    }

    /// An event is counted: its identity and where it came from are remembered.
    fn remember(
        &mut self,
        event: &Event<'_>,
        (origin, counted_at): (Origin, UnixMillis),
    ) -> RememberedId {
        self.origins.remember(event.identity, origin);
        let id = RememberedId::new(event.identity, event.content, counted_at);
        self.outputs.ids.ids.push(id);
        id
    }

    fn remember_call(&mut self, event: &Event<'_>, counted: &CountedCall) {
        if let Some(lately) = &mut self.lately {
            lately.remember(event.identity, counted, &mut self.outputs.ids.calls);
        }
    }

    /// Adds a row at the commit's next address; returns it and the flags of event and price.
    fn add_row(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        feed: Feed,
        amends: Option<&Amended<'_>>,
        rows: &mut impl Rows,
    ) -> (MeterAddress, Flags) {
        let address = self.next_address();
        let mut flags = event.flags;
        flags.insert(charge.flags);
        if feed == Feed::History {
            flags.insert(Flags::BACKFILLED);
        }
        rows.push(&SpendRow {
            event,
            amends,
            cost: charge.cost,
            priced: charge.priced,
            price_version: charge.price_version,
            priced_as: charge.priced_as,
            price_detail: charge.price_detail,
            budget_version: self.book.version,
            flags,
            origin,
            address,
        });
        (address, flags)
    }

    /// The address of the commit's next row.
    fn next_address(&mut self) -> MeterAddress {
        let index = self.index;
        self.index += 1;
        MeterAddress {
            partition: self.config.partition,
            seq: self.seq,
            index,
        }
    }

    fn count_spend(&mut self, event: &Event<'_>, (spend, unpriced): (Spend, Nanos), feed: Feed) {
        let is_history = feed == Feed::History;
        self.fold
            .add(&self.book.series, event, spend, unpriced, is_history);
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
