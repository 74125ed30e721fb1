//! Which rows of a budget its accounts have counted themselves, and which came with an opening.
//!
//! Ledger partitions write down by which version of the budgets each of their counts began. Rows of
//! that version or a later one they counted; where what was spent before has come, an account holds
//! all rows of its window, and the rows are what that must be, too.

use std::collections::{BTreeSet, HashMap};

use spendfuse_domain::routing::partition_of;
use spendfuse_domain::scope::Dimension;
use spendfuse_domain::{UnixMillis, Window};
use spendfuse_engine::audit::AccountSums;

use crate::budgets::CountedBudget;
use crate::error::AuditError;
use crate::ledger::{LedgerReplica, WindowKey};
use crate::sql;
use crate::windows::Cut;

/// Where the counts of a budget begin.
#[derive(Debug)]
pub enum Beginning {
    /// Nobody wrote it down: the count is older.
    Unknown,
    /// Some partitions did.
    KnownToSome,
    /// All that have scopes of the budget.
    Known(KnownBeginning),
}

/// By ledger partition, the version of the budgets from which on rows were counted, and since when
/// those of before are in the accounts.
#[derive(Debug)]
pub struct KnownBeginning {
    by_partition: HashMap<u32, (u64, Option<UnixMillis>)>,
    /// All such versions.
    versions: Vec<u64>,
    /// Windows from this start on have an opening.
    whole_from: i64,
    has_own_opening: bool,
}

/// A window whose rows are compared.
#[derive(Clone, Copy, Debug)]
pub struct KeptWindow {
    start: i64,
    /// When its account is closed.
    closes_at: Option<UnixMillis>,
    /// Whether the warehouse has every row, those of before the count included.
    is_whole: bool,
}

impl KeptWindow {
    /// Its start, milliseconds since 1970.
    pub fn start(&self) -> i64 {
        self.start
    }
}

impl Beginning {
    /// What the ledger wrote down of a budget.
    pub fn of(replica: &LedgerReplica, counted: &CountedBudget) -> Self {
        let budget = &counted.compiled.budget;
        let partitions = replica.marks.len() as u32;
        let concerned = match budget.scope.single() {
            Some(scope) => {
                let home = partition_of(scope.as_bytes(), partitions);
                home..home + 1
            }
            None => 0..partitions,
        };
        let records = replica.counts.get(budget.id.as_str());
        let known = concerned.clone().filter_map(|partition| {
            let record = records?.get(&partition)?;
            let is_it = record.since_version > 0 && record.count() == counted.compiled.count;
            is_it.then_some((partition, (record.since_version, record.opened_at)))
        });
        let by_partition: HashMap<u32, (u64, Option<UnixMillis>)> = known.collect();
        if by_partition.is_empty() {
            return Self::Unknown;
        }
        if by_partition.len() < concerned.len() {
            return Self::KnownToSome;
        }
        let versions: BTreeSet<u64> = by_partition.values().map(|(version, _)| *version).collect();
        Self::Known(KnownBeginning {
            by_partition,
            versions: versions.into_iter().collect(),
            whole_from: counted.compiled.window(budget.counted_from).start.0,
            has_own_opening: budget.opening.is_some(),
        })
    }
}

impl KnownBeginning {
    /// The windows that can be compared: rows of the count that the warehouse may have no more are
    /// missing in no other.
    pub fn windows(
        windows: &[Window],
        counted: &CountedBudget,
        kept_from: UnixMillis,
        oldest: UnixMillis,
        grace_millis: i64,
    ) -> Vec<KeptWindow> {
        let counts_kept_rows = !counted.began_before && counted.began_at >= kept_from;
        let window = |window: &Window| {
            let is_whole = window.start >= kept_from || oldest >= kept_from;
            let kept = KeptWindow {
                start: window.start.0,
                closes_at: window.end.map(|end| end.plus(grace_millis)),
                is_whole,
            };
            (is_whole || counts_kept_rows).then_some(kept)
        };
        windows.iter().filter_map(window).collect()
    }

    /// Sums of the rows by scope, window and how many of the versions they reach. Those of counts
    /// that only some ledger partitions have applied are given commit by commit; rows of before were
    /// told to none.
    pub fn question(
        &self,
        epoch: u32,
        counted: &CountedBudget,
        dimensions: &[Dimension],
        starts: &[i64],
        cut: &Cut,
        in_slice: &str,
    ) -> String {
        let select: String = dimensions.iter().map(sql::selected).collect();
        let is_before = format!("(epoch < {epoch} OR budget_version < {})", self.versions[0]);
        let up_to = |seqs: &[u64]| format!("meter_seq <= {}", sql::of_partition(seqs));
        let is_settled = format!("({is_before} OR {})", up_to(&cut.by_all));
        format!(
            "SELECT {select}\
                    {}, \
                    if(epoch < {epoch}, 0, arrayCount(since -> budget_version >= since, [{}])), \
                    if({is_settled}, 0, meter_partition), \
                    if({is_settled}, 0, meter_seq), \
                    sum({}), sum({}), sum(calls) \
             FROM spend \
             WHERE epoch <= {epoch} AND kind != 'revenue' AND {} AND time >= {} \
                   AND ({is_before} OR {}) AND {in_slice} \
             GROUP BY {}",
            sql::window_start(sql::MILLIS, starts),
            sql::listed(&self.versions),
            sql::NANOS,
            sql::tokens(),
            sql::counts_in(&counted.compiled.budget),
            sql::time(UnixMillis(starts[0])),
            up_to(&cut.by_any),
            sql::listed(1..=dimensions.len() + 4),
        )
    }

    /// Adds a row of the answer, where it counts.
    pub fn add_row(
        &self,
        row: &[String],
        dimensions: &[Dimension],
        replica: &LedgerReplica,
        windows: &[KeptWindow],
        sums: &mut HashMap<WindowKey, AccountSums>,
    ) -> Result<(), AuditError> {
        let values = row.iter().map(String::as_str);
        let scope = spendfuse_domain::scope::scope_of(dimensions.iter().zip(values));
        let place = dimensions.len();
        let start: i64 = sql::cell(row, place)?;
        let reached: usize = sql::cell(row, place + 1)?;
        let (meter, seq) = (
            sql::cell::<usize>(row, place + 2)?,
            sql::cell::<u64>(row, place + 3)?,
        );
        let ledger = partition_of(scope.as_bytes(), replica.marks.len() as u32);
        let Some((since, _)) = self.by_partition.get(&ledger) else {
            return Ok(());
        };
        let needed = self.versions.partition_point(|version| version <= since);
        let is_of_count = reached >= needed;
        if seq > 0 && is_of_count {
            let applied = replica.marks[ledger as usize].chains.get(meter);
            if applied.is_none_or(|applied| *applied < seq) {
                return Ok(());
            }
        }
        let rows = sums.entry((scope, start)).or_default();
        if is_of_count || self.holds_all(ledger, start, windows) {
            rows.sure.add(sql::spend(row, place + 4)?);
        }
        Ok(())
    }

    /// Whether an account has all rows of its window.
    pub fn holds_all(&self, ledger: u32, start: i64, windows: &[KeptWindow]) -> bool {
        let opened_at = self.by_partition.get(&ledger).and_then(|(_, at)| *at);
        let mut kept = windows.iter().filter(|window| window.start == start);
        let is_open = |opened_at: UnixMillis| {
            kept.any(|window| {
                window.is_whole
                    && window
                        .closes_at
                        .is_none_or(|closes_at| opened_at < closes_at)
            })
        };
        start >= self.whole_from && !self.has_own_opening && opened_at.is_some_and(is_open)
    }
}
