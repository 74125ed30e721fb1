//! The ledger: one partition's accounts of every calendar budget.
//!
//! In: deltas from all meter partitions, for the scopes of this partition; time as ticks. Out, per
//! commit: blocklist entries, findings, alerts, lines for the warehouse, and the changelog. Like
//! the meter it never asks for the time and does no I/O.
//!
//! Start with [`Ledger::apply`]; the end of a commit is in `commit`.

mod accounts;
mod apply;
pub(crate) mod changelog;
mod commit;
pub(crate) mod counts;
mod opening;
mod refresh;
mod waking;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::budget::BudgetId;
use spendfuse_domain::{UnixMillis, Window};

use crate::account::Account;
use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::alert_limit::AlertLimit;
use crate::book::BudgetBook;
use crate::stamps::Stamps;
use accounts::{AccountId, Accounts};
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

    /// Whether the running commit has anything to write beyond positions.
    pub fn has_output(&self) -> bool {
        self.applied
            || self.evaluated_changed
            || !self.touched.is_empty()
            || !self.outputs.told.changelog.is_empty()
            || self.alert_limit.is_due(self.now)
    }
}
