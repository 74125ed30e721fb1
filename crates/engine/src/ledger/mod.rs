//! The ledger: one partition's accounts of every calendar budget.
//!
//! In: deltas from all meter partitions, for the scopes of this partition; time as ticks. Out, per
//! commit: blocklist entries, findings, alerts, lines for the warehouse, and the changelog. Like
//! the meter it never asks for the time and does no I/O.
//!
//! Start with [`Ledger::apply`]; the end of a commit is in `commit`.

mod accounts;
pub(crate) mod changelog;
mod commit;
pub(crate) mod counts;
mod opening;
mod refresh;
mod waking;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::budget::{BudgetId, CompiledBudget, Spend};
use spendfuse_domain::{UnixMillis, Window};

use crate::account::Account;
use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::alert_limit::AlertLimit;
use crate::book::BudgetBook;
use crate::delta::{DeltaEntry, Deltas};
use crate::stamps::Stamps;
use accounts::{AccountId, Accounts, LedgerAccount};
use changelog::Shared;
pub use commit::LedgerOutputs;
use counts::Counts;
pub use counts::{CountRecord, OPENINGS_KEY, OpeningEntry, Openings};
use refresh::Refreshes;
pub use spendfuse_domain::row::{WindowLine, WindowLineKind};

const HOUR_MILLIS: i64 = 3_600_000;

/// How many figures that moved by spend alone are told a second, at most: what a guard takes in
/// from a handful of partitions for a few hundredths of a core.
pub const PUBLISH_RATE: u32 = 2_000;

/// The parameters of a ledger partition.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Its number.
    pub partition: u32,
    /// Number of partitions of every stage.
    pub partitions: u32,
    /// How long after its end a window's account is kept for late spend, milliseconds: the dedupe
    /// horizon plus a day.
    pub grace_millis: i64,
    /// How many figures that moved by spend alone are told a second, at most.
    pub publish_rate: u32,
    /// How many accounts there are at most.
    pub account_capacity: usize,
}

/// Which account: budget, scope, start of the window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountKey {
    /// The budget's id.
    pub budget: BudgetId,
    /// Scope text.
    pub scope: String,
    /// Start of the window.
    pub start: UnixMillis,
}

/// One partition of the ledger.
#[derive(Debug)]
pub struct Ledger {
    config: LedgerConfig,
    book: Arc<BudgetBook>,
    now: UnixMillis,
    seq: u64,
    required_budget_version: u64,
    accounts: Accounts,
    counts: Counts,
    /// Whether the state was restored, not begun here.
    is_of_before: bool,
    /// Used until the restore is complete.
    shared: Shared,
    /// Per meter partition, the `seq` of its last deltas.
    chains: Vec<u64>,
    /// Per meter partition, the last event of the usage topic that is counted here, by its offset.
    through: BTreeMap<u32, i64>,
    /// Revision of each budget as it was last evaluated over all its scopes.
    evaluated: BTreeMap<String, u64>,
    /// In how many records that is written.
    evaluated_parts: usize,
    /// Those records, until the restore is complete.
    restoring_evaluated: BTreeMap<usize, BTreeMap<String, u64>>,
    /// What happens to accounts by time alone: windows begin, end, close. Accounts may be gone.
    wake_at: BTreeMap<UnixMillis, Vec<AccountId>>,
    /// Accounts to be judged anew because budgets changed.
    reconsider: VecDeque<AccountId>,
    evaluated_changed: bool,
    /// Whether budgets changed since their openings were looked at.
    openings_waiting: bool,
    refreshes: Refreshes,
    /// What people were told in the running hour.
    alert_limit: AlertLimit,
    stamps: Stamps,
    /// The hour, since 1970, in which people were told last that there is no room; after a restart
    /// they are told again, under the same key.
    told_of_missing_room: i64,
    /// Per index in the book, the window that was looked for last.
    last_windows: HashMap<u32, Arc<Window>>,
    // The running commit:
    /// Places of the lines of spend that no account holds.
    late_lines: HashMap<AccountKey, usize>,
    touched: Vec<AccountId>,
    applied: bool,
    outputs: LedgerOutputs,
}

impl Ledger {
    /// A partition with nothing counted yet.
    pub fn new(config: LedgerConfig, book: Arc<BudgetBook>) -> Self {
        Self {
            chains: vec![0; config.partitions as usize],
            refreshes: Refreshes::new(config.publish_rate),
            config,
            book,
            now: UnixMillis::default(),
            seq: 0,
            required_budget_version: 0,
            accounts: Accounts::default(),
            counts: Counts::default(),
            is_of_before: false,
            shared: Shared::default(),
            through: BTreeMap::new(),
            evaluated: BTreeMap::new(),
            evaluated_parts: 0,
            restoring_evaluated: BTreeMap::new(),
            wake_at: BTreeMap::new(),
            reconsider: VecDeque::new(),
            evaluated_changed: false,
            openings_waiting: true,
            alert_limit: AlertLimit::default(),
            stamps: Stamps::default(),
            told_of_missing_room: 0,
            last_windows: HashMap::new(),
            late_lines: HashMap::new(),
            touched: Vec::new(),
            applied: false,
            outputs: LedgerOutputs::default(),
        }
    }

    /// Begins the commit number `seq`.
    pub fn begin(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// The running commit began at `present`, as far as a monotonic clock vouches for it.
    pub fn set_present(&mut self, present: UnixMillis) {
        self.stamps.begin(present);
    }

    /// Uses another budget book from here on; between commits only.
    pub fn set_book(&mut self, book: Arc<BudgetBook>) {
        self.book = book;
        self.last_windows.clear();
        self.find_changed_budgets();
    }

    /// Budgets older than this version must not be used with the restored state.
    pub fn required_budget_version(&self) -> u64 {
        self.required_budget_version
    }

    /// The budgets in use.
    pub fn book(&self) -> &Arc<BudgetBook> {
        &self.book
    }

    /// The version of the budgets in use.
    pub fn budget_version(&self) -> u64 {
        self.book.version
    }

    /// Number of accounts.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there is no account.
    pub fn is_empty(&self) -> bool {
        self.accounts.len() == 0
    }

    /// What an account holds, for audits and tests.
    pub fn account(&self, key: &AccountKey) -> Option<&Account> {
        let id = self
            .accounts
            .find(key.budget.as_str(), &key.scope, key.start)?;
        self.accounts.get(id).map(|known| &known.account)
    }

    /// Engine time: the latest time that the partition has seen.
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// Adds the deltas of one meter commit; `arrival` is when the broker took them.
    pub fn apply(&mut self, deltas: &Deltas, arrival: UnixMillis) {
        self.now = self.now.max(self.stamps.believed(arrival, self.now));
        self.applied = true;
        // Nothing is counted before it is known where counts begin. Judging anew has time: what comes
        // here may change it once more.
        self.begin_what_is_new();
        self.check_link(deltas);
        if let Some(offset) = deltas.through {
            self.through.insert(deltas.meter_partition, offset);
        }
        let book = Arc::clone(&self.book);
        for entry in &deltas.entries {
            let Some(series) = deltas.series.get(entry.series as usize) else {
                debug_assert!(false, "delta entry names a series that its record lacks");
                continue;
            };
            for index in book.counting(series, &entry.scope) {
                let compiled = book.budget(index);
                if self.counts(index, compiled, deltas.budget_version, entry) {
                    self.add(index, compiled, entry);
                }
            }
        }
    }

    fn check_link(&mut self, deltas: &Deltas) {
        let Some(last) = self.chains.get_mut(deltas.meter_partition as usize) else {
            debug_assert!(false, "deltas of a partition that does not exist");
            return;
        };
        let expected = std::mem::replace(last, deltas.seq);
        if deltas.prev == expected {
            return;
        }
        self.outputs.broken_links += 1;
        let meter = deltas.meter_partition;
        let kind = if deltas.prev > expected {
            "gap"
        } else {
            "overlap"
        };
        self.tell(Alert {
            v: 1,
            key: format!("delta_chain|{meter}|{}|{}", self.config.partition, deltas.seq),
            kind: AlertKind::DeltaChain,
            severity: spendfuse_domain::Severity::Critical,
            scope: "*".to_owned(),
            subject: format!("meter partition {meter}"),
            message: format!(
                "{kind} in the deltas of meter partition {meter} to ledger partition {}: expected to follow commit {expected}, but commit {} follows {}",
                self.config.partition, deltas.seq, deltas.prev
            ),
            at: self.now,
            count: None,
            details: AlertDetails::default(),
        });
    }

    /// Tells people of something that the ledger does not find out by itself.
    pub fn tell(&mut self, alert: Alert) {
        self.outputs.told.alert(alert, &mut self.alert_limit);
    }

    /// At most one alert an hour while there are more accounts than there is room for.
    fn tell_of_missing_room(&mut self) {
        let hour = self.now.hour();
        if self.outputs.without_account == 0 || hour <= self.told_of_missing_room {
            return;
        }
        self.told_of_missing_room = hour;
        let (partition, most) = (self.config.partition, self.config.account_capacity);
        self.tell(Alert {
            v: 1,
            key: format!("capacity|{hour}|accounts of ledger partition {partition}"),
            kind: AlertKind::Capacity,
            severity: spendfuse_domain::Severity::Critical,
            scope: "*".to_owned(),
            subject: format!("accounts of ledger partition {partition}"),
            message: format!(
                "ledger partition {partition} has {most} accounts, as many as it may: scopes that are new to a budget are not held to it, only their rows and lines of budget_windows are written; find out who makes so many names, or raise processor.account_capacity"
            ),
            at: self.now,
            count: None,
            details: AlertDetails::default(),
        });
    }

    fn add(&mut self, index: u32, compiled: &CompiledBudget, entry: &DeltaEntry) {
        let window = self.window_of(index, compiled, UnixMillis::from_minute(entry.minute));
        let closes_at = window.end.map(|end| end.plus(self.config.grace_millis));
        if closes_at.is_some_and(|closes_at| closes_at <= self.now) {
            self.add_without_account(compiled, entry, &window);
            return;
        }
        let is_new = || {
            let (budget, scope) = (compiled.budget.id.as_str(), &entry.scope);
            self.accounts.find(budget, scope, window.start).is_none()
        };
        if self.accounts.len() >= self.config.account_capacity && is_new() {
            // What is counted already stays.
            self.add_without_account(compiled, entry, &window);
            self.outputs.without_account += 1;
            return;
        }
        if entry.takes_back() && is_new() && !self.waits_for_opening(index, compiled) {
            // What is taken back was counted when there was no room for an account.
            self.add_without_account(compiled, entry, &window);
            return;
        }
        let id = self.account_of(compiled, &entry.scope, window);
        let Some(known) = self.accounts.get_mut(id) else {
            return;
        };
        known.account.take(compiled, entry, self.now);
        self.touch(id);
    }

    /// The warehouse alone keeps what no account holds, beside the sums of accounts: a line for each
    /// window and commit, since history comes by the month.
    fn add_without_account(
        &mut self,
        compiled: &CompiledBudget,
        entry: &DeltaEntry,
        window: &Window,
    ) {
        let (late, budget) = (WindowLineKind::Late, &compiled.budget);
        let key = AccountKey {
            budget: budget.id.clone(),
            scope: entry.scope.clone(),
            start: window.start,
        };
        let lines = &mut self.outputs.window_lines;
        let place = *self.late_lines.entry(key).or_insert(lines.len());
        match lines.get_mut(place) {
            Some(line) => line.spend.add(entry.spend()),
            None => {
                let (scope, spend) = (&entry.scope, entry.spend());
                lines.push(WindowLine::new(
                    late, budget, scope, window, spend, self.now,
                ));
            }
        }
    }

    /// The account, begun where it is new or holds another count's sum.
    fn account_of(
        &mut self,
        compiled: &CompiledBudget,
        scope: &str,
        window: Arc<Window>,
    ) -> AccountId {
        let (budget, count) = (&compiled.budget.id, compiled.count);
        let found = self.accounts.find(budget.as_str(), scope, window.start);
        if let Some(id) = found {
            if self
                .accounts
                .get(id)
                .is_some_and(|known| known.goes_on_in(compiled))
            {
                return id;
            }
            // Not judged anew yet: readers forget what they know first.
            self.withdraw(id);
            if let Some(mut gone) = self.remove(id) {
                self.lift(&mut gone, "it counts anew");
            }
        }
        let empty = Account::default();
        let begun = LedgerAccount::begin(budget.clone(), scope, window, count, empty);
        let id = self.accounts.insert(begun);
        self.schedule(id);
        self.open(id, compiled);
        id
    }

    /// Notes that the running commit settles an account.
    fn touch(&mut self, id: AccountId) {
        if let Some(known) = self.accounts.get_mut(id)
            && !std::mem::replace(&mut known.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// The budget's window at `time`. Most entries lie in the same one as the entry before, and
    /// looking at the calendar costs more than all the rest.
    fn window_of(
        &mut self,
        index: u32,
        compiled: &CompiledBudget,
        time: UnixMillis,
    ) -> Arc<Window> {
        let holds =
            |window: &&Arc<Window>| window.start <= time && window.end.is_none_or(|end| time < end);
        if let Some(window) = self.last_windows.get(&index).filter(holds) {
            return Arc::clone(window);
        }
        let window = compiled.window(time);
        let window = Arc::new(window);
        self.last_windows.insert(index, Arc::clone(&window));
        window
    }

    /// Whether the running commit has anything to write beyond positions.
    pub fn has_output(&self) -> bool {
        self.applied
            || self.evaluated_changed
            || !self.touched.is_empty()
            || !self.outputs.told.changelog.is_empty()
            || self.alert_limit.is_due(self.now)
    }
}

impl Account {
    fn take(&mut self, compiled: &CompiledBudget, entry: &DeltaEntry, now: UnixMillis) {
        let (spend, unpriced) = (entry.spend(), entry.unpriced);
        if entry.corrects.is_some() {
            self.correct(spend, unpriced, &entry.source, &entry.id, entry.time);
            return;
        }
        if entry.is_history {
            let event = (&*entry.source, &*entry.id, entry.time);
            self.add_history(compiled, spend, unpriced, event);
            return;
        }
        self.is_quiet = false;
        self.add(spend, unpriced, &entry.source, &entry.id, entry.time);
        let amount = spend.counted(compiled.budget.limit.unit());
        self.recent.add(amount, entry.minute, now);
    }
}

impl DeltaEntry {
    /// Whether it corrects what was counted here, not what is to be counted here from now on.
    fn takes_back(&self) -> bool {
        self.corrects.is_some() && self.calls <= 0
    }

    fn spend(&self) -> Spend {
        Spend {
            cost: self.cost,
            tokens: self.tokens,
            calls: self.calls,
        }
    }
}
