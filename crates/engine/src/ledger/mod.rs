//! The ledger: one partition's accounts of every calendar budget.
//!
//! In: deltas from all meter partitions, for the scopes of this partition; time as ticks. Out, per
//! commit: blocklist entries, findings, alerts, lines for the warehouse, and the changelog. Like
//! the meter it never asks for the time and does no I/O.
//!
//! Start with [`Ledger::apply`]; the end of a commit is in `finish`.

mod finish;
pub(crate) mod restore;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use minicbor::{Decode, Encode};
use spendfuse_domain::budget::{BudgetId, Limit, Spend};
use spendfuse_domain::finding::Finding;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Nanos, UnixMillis, Window, WindowKind};

use crate::account::Account;
use crate::alert::{Alert, AlertKind};
use crate::book::{BudgetBook, CompiledBudget};
use crate::codec;
use crate::delta::{DeltaEntry, Deltas};

/// Accounts reconsidered or ended in one commit for other reasons than a delta, at most.
const SLICE: usize = 5_000;

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
}

/// Which account: budget, scope, start of the window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey {
    /// The budget's id.
    pub budget: BudgetId,
    /// Scope text.
    pub scope: String,
    /// Start of the window.
    pub start: UnixMillis,
}

/// An account with its window.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct LedgerAccount {
    #[n(0)]
    pub(crate) budget: String,
    #[n(1)]
    pub(crate) scope: String,
    #[n(2)]
    label: String,
    #[n(3)]
    #[cbor(with = "codec::millis")]
    pub(crate) start: UnixMillis,
    #[n(4)]
    #[cbor(with = "codec::optional_millis")]
    end: Option<UnixMillis>,
    #[n(5)]
    pub(crate) count_id: u64,
    #[n(6)]
    pub(crate) account: Account,
}

/// What kind of line a [`WindowLine`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowLineKind {
    /// State of a running window.
    Spent,
    /// Final sum of a window whose grace has passed.
    Close,
    /// Spend that came after the close.
    Late,
}

impl WindowLineKind {
    /// The value of column `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spent => "spent",
            Self::Close => "close",
            Self::Late => "late",
        }
    }
}

/// A line of table `budget_windows`.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowLine {
    /// What kind of line.
    pub kind: WindowLineKind,
    /// The budget's id.
    pub budget: String,
    /// Scope text.
    pub scope: String,
    /// The window.
    pub window: Window,
    /// The sums: so far, final, or of the late spend alone.
    pub spend: Spend,
    /// The limit.
    pub limit: Limit,
    /// When it was written.
    pub at: UnixMillis,
}

/// Everything that one commit publishes.
#[derive(Debug, Default)]
pub struct LedgerOutputs {
    /// State changes, in order; `None` = tombstone.
    pub changelog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Verdicts, in order; `None` = tombstone.
    pub blocklist: Vec<(String, Option<BlocklistEntry>)>,
    /// Those entries whose verdict changed, for the warehouse.
    pub verdict_changes: Vec<BlocklistEntry>,
    /// Findings, in order.
    pub findings: Vec<(String, Finding)>,
    /// News for people.
    pub alerts: Vec<Alert>,
    /// Lines of `budget_windows`.
    pub window_lines: Vec<WindowLine>,
    /// Deltas that did not follow the ones before: exactly-once is broken somewhere.
    pub broken_links: u64,
}

/// One partition of the ledger.
#[derive(Debug)]
pub struct Ledger {
    config: LedgerConfig,
    book: Arc<BudgetBook>,
    now: UnixMillis,
    seq: u64,
    required_budget_version: u64,
    accounts: HashMap<AccountKey, LedgerAccount>,
    /// Accounts by changelog key, until the restore is complete.
    restoring: HashMap<Vec<u8>, LedgerAccount>,
    /// Per meter partition, the `seq` of its last deltas.
    chains: Vec<u64>,
    /// Revision of each budget as it was last evaluated over all its scopes.
    evaluated: BTreeMap<String, u64>,
    /// Which window's state stands on the blocklist, by budget and scope.
    standing: HashMap<(BudgetId, String), UnixMillis>,
    /// What happens to accounts by time alone: windows begin, end, close.
    wake_at: BTreeMap<UnixMillis, BTreeSet<AccountKey>>,
    /// Accounts to be judged anew because budgets changed.
    reconsider: VecDeque<AccountKey>,
    evaluated_changed: bool,
    /// Per place in the book, the window that was looked for last.
    last_windows: HashMap<u32, Arc<Window>>,
    // The running commit:
    touched: HashSet<AccountKey>,
    applied: bool,
    outputs: LedgerOutputs,
}

impl Ledger {
    /// A partition with nothing counted yet.
    pub fn new(config: LedgerConfig, book: Arc<BudgetBook>) -> Self {
        Self {
            chains: vec![0; config.partitions as usize],
            config,
            book,
            now: UnixMillis::default(),
            seq: 0,
            required_budget_version: 0,
            accounts: HashMap::new(),
            restoring: HashMap::new(),
            evaluated: BTreeMap::new(),
            standing: HashMap::new(),
            wake_at: BTreeMap::new(),
            reconsider: VecDeque::new(),
            evaluated_changed: false,
            last_windows: HashMap::new(),
            touched: HashSet::new(),
            applied: false,
            outputs: LedgerOutputs::default(),
        }
    }

    /// Begins the commit number `seq`.
    pub fn begin(&mut self, seq: u64) {
        self.seq = seq;
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
        self.accounts.is_empty()
    }

    /// What an account holds, for audits and tests.
    pub fn account(&self, key: &AccountKey) -> Option<&Account> {
        self.accounts.get(key).map(|known| &known.account)
    }

    /// Engine time: the latest time that the partition has seen.
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// Adds the deltas of one meter commit; `arrival` is when the broker took them.
    pub fn apply(&mut self, deltas: &Deltas, arrival: UnixMillis) {
        self.now = self.now.max(arrival);
        self.applied = true;
        self.check_link(deltas);
        let book = Arc::clone(&self.book);
        for entry in &deltas.entries {
            let Some(series) = deltas.series.get(entry.series as usize) else {
                debug_assert!(false, "delta entry names a series that its record lacks");
                continue;
            };
            for place in book.counting(series, &entry.scope) {
                self.add(place, book.budget(place), entry);
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
        self.outputs.alerts.push(Alert {
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
        });
    }

    fn add(&mut self, place: u32, compiled: &CompiledBudget, entry: &DeltaEntry) {
        let window = self.window_of(place, compiled, UnixMillis::from_minute(entry.minute));
        let closes_at = window.end.map(|end| end.plus(self.config.grace_millis));
        if closes_at.is_some_and(|closes_at| closes_at <= self.now) {
            let line = late_line(compiled, entry, &window, self.now);
            self.outputs.window_lines.push(line);
            return;
        }
        let key = AccountKey {
            budget: compiled.budget.id.clone(),
            scope: entry.scope.clone(),
            start: window.start,
        };
        let known = self.accounts.get(&key).map(|known| known.count_id);
        if known.is_none() {
            // A window that runs already has nothing to be woken for before its end.
            let begins_at = (window.start > self.now).then_some(window.start);
            for time in [begins_at, window.end, closes_at].into_iter().flatten() {
                self.wake_at.entry(time).or_default().insert(key.clone());
            }
        }
        if known != Some(compiled.count_id) {
            // Of another count's sum, not judged anew yet, readers forget what they know first.
            self.withdraw(&key);
            let begun = LedgerAccount::begin(compiled, &entry.scope, &window);
            self.accounts.insert(key.clone(), begun);
        }
        let Some(known) = self.accounts.get_mut(&key) else {
            return;
        };
        known.account.add(
            entry.spend(),
            entry.unpriced,
            &entry.source,
            &entry.id,
            entry.time,
        );
        self.touched.insert(key);
    }

    /// The budget's window at `time`. Most entries lie in the same one as the entry before, and
    /// looking at the calendar costs more than all the rest.
    fn window_of(
        &mut self,
        place: u32,
        compiled: &CompiledBudget,
        time: UnixMillis,
    ) -> Arc<Window> {
        let holds =
            |window: &&Arc<Window>| window.start <= time && window.end.is_none_or(|end| time < end);
        if let Some(window) = self.last_windows.get(&place).filter(holds) {
            return Arc::clone(window);
        }
        let window = Window::containing(compiled.budget.window, &compiled.zone, time);
        let window = Arc::new(window);
        self.last_windows.insert(place, Arc::clone(&window));
        window
    }

    /// Time passes: windows begin, end and close; states that waited are published; changed budgets
    /// are judged anew, a slice at a time.
    pub fn advance(&mut self, time: UnixMillis) {
        self.now = self.now.max(time);
        for _ in 0..SLICE {
            let Some(mut entry) = self.wake_at.first_entry() else {
                break;
            };
            if *entry.key() > self.now {
                break;
            }
            let next = entry.get_mut().pop_first();
            if entry.get().is_empty() {
                entry.remove();
            }
            if let Some(key) = next {
                self.wake(key);
            }
        }
        let waiting = self.reconsider.len().min(SLICE);
        let keys: Vec<_> = self.reconsider.drain(..waiting).collect();
        for key in keys {
            self.judge_anew(key);
        }
        if waiting > 0 && self.reconsider.is_empty() {
            self.remember_evaluated();
        }
    }

    fn wake(&mut self, key: AccountKey) {
        let Some(known) = self.accounts.get(&key) else {
            return;
        };
        match known.end {
            Some(end) if end.plus(self.config.grace_millis) <= self.now => self.close(&key),
            Some(end) if end <= self.now => self.end_window(&key),
            _ => {
                self.touched.insert(key);
            }
        }
    }

    /// Whether the running commit has anything to write beyond positions.
    pub fn has_output(&self) -> bool {
        self.applied
            || self.evaluated_changed
            || !self.touched.is_empty()
            || !self.outputs.changelog.is_empty()
    }
}

impl LedgerAccount {
    fn begin(compiled: &CompiledBudget, scope: &str, window: &Window) -> Self {
        Self {
            budget: compiled.budget.id.to_string(),
            scope: scope.to_owned(),
            label: window.label.clone(),
            start: window.start,
            end: window.end,
            count_id: compiled.count_id,
            account: Account::default(),
        }
    }

    /// Whether the window is running: neither before its start nor ended.
    fn is_running(&self, now: UnixMillis) -> bool {
        self.start <= now && self.end.is_none_or(|end| now < end)
    }
}

impl DeltaEntry {
    fn spend(&self) -> Spend {
        Spend {
            cost: self.cost,
            tokens: self.tokens,
            calls: self.calls,
        }
    }
}

fn late_line(
    compiled: &CompiledBudget,
    entry: &DeltaEntry,
    window: &Window,
    now: UnixMillis,
) -> WindowLine {
    let budget = &compiled.budget;
    debug_assert!(
        budget.window != WindowKind::Lifetime,
        "a lifetime never closes"
    );
    debug_assert!(entry.cost >= Nanos::ZERO);
    WindowLine {
        kind: WindowLineKind::Late,
        budget: budget.id.to_string(),
        scope: entry.scope.clone(),
        window: window.clone(),
        spend: entry.spend(),
        limit: budget.limit,
        at: now,
    }
}
