//! Where the count of each budget begins, exactly, and what was spent before.
//!
//! A partition that meets a new count notes the version of the budgets that it knows then, and counts
//! what meters counted by that version or a later one: they knew the budget, so their deltas have its
//! series. Everything else is what was spent before: rows that name an older version, or an epoch
//! before. Their sum comes once the warehouse has them all ([`Openings`]), and is set, not added, so
//! that it may come twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use spendfuse_domain::budget::{CompiledBudget, CountId};
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::row::{WindowLine, WindowLineKind};
use spendfuse_domain::verdict::WantedOpening;
use spendfuse_domain::{BudgetId, UnixMillis, Window};

use super::Ledger;
use super::accounts::{AccountId, LedgerAccount};
use crate::account::Opening;
use crate::codec;
use crate::delta::DeltaEntry;

const COUNT: &str = "count|";
/// Key of [`Openings`] among the deltas.
pub const OPENINGS_KEY: &[u8] = b"openings";

/// The count of a budget as a partition knows it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct CountRecord {
    #[n(0)]
    terms: u64,
    #[n(1)]
    #[cbor(with = "codec::optional_millis")]
    since: Option<UnixMillis>,
    /// What was counted by this version of the budgets and later ones counts; 0 where it is not
    /// known, because the count began before this was written down.
    #[n(2)]
    pub since_version: u64,
    /// Since when what was spent before is in the accounts.
    #[n(3)]
    #[cbor(with = "codec::optional_millis")]
    pub opened_at: Option<UnixMillis>,
}

impl CountRecord {
    /// The count.
    pub fn count(&self) -> CountId {
        CountId {
            terms: self.terms,
            since: self.since,
        }
    }

    /// Whether somebody has to find out what was spent before.
    fn waits(&self) -> bool {
        self.since_version > 0 && self.opened_at.is_none()
    }
}

/// What was spent before a count began, or a part of it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Openings {
    /// The budget's id.
    #[n(0)]
    pub budget: String,
    /// The number of what the count stands on.
    #[n(1)]
    pub terms: u64,
    /// Since when it runs.
    #[n(2)]
    #[cbor(with = "codec::optional_millis")]
    pub since: Option<UnixMillis>,
    /// The sums are those of rows that were counted by older budgets than this version, or in an
    /// epoch before.
    #[n(3)]
    pub below_version: u64,
    /// Of each scope and window that has any.
    #[n(4)]
    pub entries: Vec<OpeningEntry>,
    /// Whether nothing more follows.
    #[n(5)]
    #[cbor(with = "codec::only_true", has_nil)]
    pub is_last: bool,
}

/// What was spent before in one scope and window.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct OpeningEntry {
    /// Scope text.
    #[n(0)]
    pub scope: String,
    /// Start of the window.
    #[n(1)]
    #[cbor(with = "codec::millis")]
    pub start: UnixMillis,
    /// The sums.
    #[n(2)]
    pub opening: Opening,
}

/// All counts of a partition.
#[derive(Debug, Default)]
pub(super) struct Counts {
    is_on: bool,
    /// Where each count begins was written down from the partition's first commit on, or since all
    /// that ran at the time were taken as they were.
    pub(super) are_kept: bool,
    known: BTreeMap<BudgetId, CountRecord>,
    /// By index in the book.
    rules: Vec<CountRule>,
}

/// What the budget at an index counts.
#[derive(Clone, Copy, Debug)]
struct CountRule {
    since_version: u64,
    is_opened: bool,
    /// Windows from this start on have an opening, or will have one.
    whole_from: UnixMillis,
}

impl CountRule {
    /// Of a budget whose spend never comes here.
    const OF_OTHERS: Self = Self {
        since_version: 0,
        is_opened: true,
        whole_from: UnixMillis(0),
    };
}

impl Counts {
    /// Whether an account of the budget holds its window's spend of before the count began.
    pub(super) fn is_whole(&self, compiled: &CompiledBudget, window: &Window) -> bool {
        let from = compiled.budget.counted_from;
        let began_in_it = window.start < from && window.end.is_none_or(|end| from < end);
        let known = || self.known.get(&compiled.budget.id);
        began_in_it && known().is_some_and(|known| known.opened_at.is_some())
    }
}

impl Ledger {
    /// Openings are computed: counts begin at a known version of the budgets.
    #[must_use]
    pub fn with_computed_openings(mut self) -> Self {
        self.counts.is_on = true;
        self
    }

    /// Counts whose opening somebody has to compute.
    pub fn wanted_openings(&self) -> impl Iterator<Item = WantedOpening> {
        let known = self.counts.known.iter();
        known
            .filter(|(_, record)| record.waits())
            .filter_map(|(id, record)| {
                let compiled = self.book.named(id)?;
                let is_computed = compiled.budget.opening.is_none();
                is_computed.then(|| WantedOpening {
                    budget: id.to_string(),
                    below_version: record.since_version,
                })
            })
    }

    /// Notes where the counts of budgets begin that are new here.
    pub(super) fn begin_counts(&mut self) {
        if !self.counts.is_on {
            return;
        }
        let book = Arc::clone(&self.book);
        let gone = |id: &BudgetId| book.named(id).is_none() && !book.is_unreadable(id);
        let known = self.counts.known.keys();
        let ended: Vec<BudgetId> = known.filter(|id| gone(id)).cloned().collect();
        for id in ended {
            self.counts.known.remove(&id);
            self.outputs.told.changelog.push((count_key(&id), None));
        }
        let mut rules = Vec::with_capacity(book.budgets.len());
        for compiled in &book.budgets {
            rules.push(self.begin_count(compiled));
        }
        self.counts.rules = rules;
        self.counts.are_kept = true;
    }

    fn begin_count(&mut self, compiled: &CompiledBudget) -> CountRule {
        let budget = &compiled.budget;
        if budget.window.is_session() || !self.has_scopes_of(compiled) {
            return CountRule::OF_OTHERS;
        }
        let mut record = match self.counts.known.get(&budget.id) {
            Some(known) if self.goes_on(known, compiled) => known.clone(),
            _ => CountRecord {
                terms: compiled.count.terms,
                since: compiled.count.since,
                since_version: match self.counts.are_kept || !self.is_of_before {
                    true => compiled.recorded_at,
                    // Nobody knows which rows are in its accounts.
                    false => 0,
                },
                opened_at: None,
            },
        };
        record.since = compiled.count.since;
        if budget.opening.is_some() {
            // Taken out later, it is computed.
            record.opened_at = None;
        }
        if compiled.recorded_at < record.since_version {
            // The budgets topic was made anew, and versions began again: everything counts from now
            // on, and what is not in the account yet cannot be told any more.
            record.since_version = u64::from(record.opened_at.is_some());
        }
        let rule = CountRule {
            since_version: record.since_version,
            is_opened: record.opened_at.is_some(),
            whole_from: compiled.window(budget.counted_from).start,
        };
        if self.counts.known.get(&budget.id) != Some(&record) {
            let written = (count_key(&budget.id), Some(codec::encode(&record)));
            self.outputs.told.changelog.push(written);
            self.counts.known.insert(budget.id.clone(), record);
        }
        rule
    }

    fn goes_on(&self, known: &CountRecord, compiled: &CompiledBudget) -> bool {
        let running = compiled.window(self.now.max(compiled.budget.counted_from));
        known.count().goes_on_in(compiled.count, running.start)
    }

    /// Whether any of the budget's scopes may be of this partition.
    fn has_scopes_of(&self, compiled: &CompiledBudget) -> bool {
        let single = compiled.budget.scope.single();
        single.is_none_or(|scope| {
            partition_of(scope.as_bytes(), self.config.partitions) == self.config.partition
        })
    }

    /// Whether the budget at `index` counts an entry that meters counted by this version of the
    /// budgets.
    pub(super) fn counts(
        &self,
        index: u32,
        compiled: &CompiledBudget,
        version: u64,
        entry: &DeltaEntry,
    ) -> bool {
        let Some(rule) = self.counts.rules.get(index as usize) else {
            return entry.corrects.is_none_or(|then| then.is_in(compiled));
        };
        if version < rule.since_version {
            return false;
        }
        entry.corrects.is_none_or(|then| match rule.since_version {
            0 => then.is_in(compiled),
            // What the file states was spent before stands, whatever is corrected of it.
            since if compiled.budget.opening.is_some() => then.budget_version >= since,
            // The entry is counted here or in the opening, whether that has come yet or not.
            since => {
                let time = UnixMillis::from_minute(entry.minute);
                time >= rule.whole_from || then.budget_version >= since
            }
        })
    }

    /// Whether what is taken back may be of an entry that comes with the opening.
    pub(super) fn waits_for_opening(&self, index: u32, compiled: &CompiledBudget) -> bool {
        let rule = self.counts.rules.get(index as usize);
        let waits = rule.is_some_and(|rule| rule.since_version > 0 && !rule.is_opened);
        waits && compiled.budget.opening.is_none()
    }

    /// Takes what was spent before a count began. What is of another count, of another cut, or known
    /// already changes nothing.
    pub fn take_openings(&mut self, told: &Openings) {
        self.applied = true;
        let book = Arc::clone(&self.book);
        let id = BudgetId::new(&told.budget);
        let Some(compiled) = id.as_ref().and_then(|id| book.named(id)) else {
            return;
        };
        let id = &compiled.budget.id;
        let of_told = CountId {
            terms: told.terms,
            since: told.since,
        };
        let is_wanted = self.counts.known.get(id).is_some_and(|known| {
            known.count() == of_told && known.since_version == told.below_version && known.waits()
        });
        if !is_wanted || compiled.budget.opening.is_some() {
            return;
        }
        for entry in &told.entries {
            self.take_opening(compiled, entry);
        }
        if !told.is_last {
            return;
        }
        if let Some(known) = self.counts.known.get_mut(id) {
            known.opened_at = Some(self.now);
            let written = (count_key(id), Some(codec::encode(known)));
            self.outputs.told.changelog.push(written);
        }
        let index = book.budgets.iter().position(|one| one.budget.id == *id);
        if let Some(rule) = index.and_then(|index| self.counts.rules.get_mut(index)) {
            rule.is_opened = true;
        }
        // Readers learn that what they see is everything.
        let of_budget = |known: &LedgerAccount| known.budget == *id && known.goes_on_in(compiled);
        let accounts = self.accounts.iter();
        let told_of = accounts.filter(|(_, known)| of_budget(known));
        let waiting: Vec<AccountId> = told_of.map(|(id, _)| id).collect();
        self.reconsider.extend(waiting);
    }

    fn take_opening(&mut self, compiled: &CompiledBudget, entry: &OpeningEntry) {
        let window = compiled.window(entry.start);
        let closes_at = window.end.map(|end| end.plus(self.config.grace_millis));
        let is_closed = closes_at.is_some_and(|closes_at| closes_at <= self.now);
        let first = compiled.window(compiled.budget.counted_from).start;
        if window.start != entry.start || is_closed || window.start < first {
            return;
        }
        let id = &compiled.budget.id;
        let is_known = self.accounts.find(id.as_str(), &entry.scope, window.start);
        if is_known.is_none() && self.accounts.len() >= self.config.account_capacity {
            self.outputs.without_account += 1;
            return;
        }
        let account = self.account_of(compiled, &entry.scope, Arc::new(window));
        let Some(known) = self.accounts.get_mut(account) else {
            return;
        };
        let opening = Opening {
            is_computed: true,
            ..entry.opening.clone()
        };
        if known.account.opening.as_deref() == Some(&opening) {
            return;
        }
        known.account.opening = Some(Box::new(opening));
        self.outputs.window_lines.push(WindowLine::new(
            WindowLineKind::Opening,
            &compiled.budget,
            &known.scope,
            &known.window,
            entry.opening.spend(),
            self.now,
        ));
        self.touch(account);
    }

    pub(super) fn restore_count(
        &mut self,
        id: &str,
        value: Option<&[u8]>,
    ) -> Result<(), codec::CodecError> {
        let Some(id) = BudgetId::new(id) else {
            let what = format!("count of an impossible budget id `{id}`");
            return Err(codec::CodecError::Damaged(what));
        };
        match value {
            Some(value) => self.counts.known.insert(id, codec::decode(value)?),
            None => self.counts.known.remove(&id),
        };
        Ok(())
    }
}

fn count_key(id: &BudgetId) -> Vec<u8> {
    format!("{COUNT}{id}").into_bytes()
}

/// The budget whose count has this key in the changelog.
pub(crate) fn read_count_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix(COUNT)
}
