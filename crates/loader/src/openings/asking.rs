//! What ClickHouse is asked: sums of the rows of before, by scope and window.

use spendfuse_domain::budget::{Budget, CompiledBudget, CountId};
use spendfuse_domain::scope::{Dimension, FixedDimension, scope_of};
use spendfuse_domain::{BudgetId, Nanos, UnixMillis};
use spendfuse_engine::account::Opening;
use spendfuse_engine::ledger::OpeningEntry;
use spendfuse_warehouse::conditions::{
    MILLIS, NANOS, column, counts_in, in_slice, listed, time, tokens, window_start,
};
use spendfuse_warehouse::{Table, Warehouse};

use super::OpeningsError;
use crate::LoaderConfig;

const HOUR_MILLIS: i64 = 3_600_000;
const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;
/// Senders may be five minutes ahead: a window that begins soon may have spend.
const AHEAD_MILLIS: i64 = 10 * 60_000;
/// Rows that were counted by a version of the budgets arrived after the budget's record was made, but
/// for the clocks of who made it and of the broker.
const CLOCKS_MILLIS: i64 = 10 * 60_000;
/// Scopes in one answer, about.
const SCOPES_A_QUESTION: u64 = 50_000;
/// Asking must not take the server from those who wait for an answer.
const BOUNDS: &str = "SETTINGS max_threads = 2, priority = 8";
/// An entry by its address, of a row that amends it or its own.
const ENTRY: &str = "if(amends_seq > 0, (amends_epoch, amends_partition, amends_seq, amends_index), \
    (epoch, meter_partition, meter_seq, meter_index))";

/// What came of asking.
pub(super) enum Asked {
    /// The ledger was told.
    Told {
        /// Scopes and windows with an opening.
        scopes: u64,
    },
    /// Rows of long before name this version or later ones: versions began again, and which rows are
    /// of before cannot be told.
    VersionsBeganAgain,
}

/// Rows of a budget that its count does not have.
pub(super) struct Question {
    pub(super) count: CountId,
    pub(super) below_version: u64,
    epoch: u32,
    compiled: CompiledBudget,
    dimensions: Vec<Dimension>,
    /// Starts of the windows that may have an opening, ascending.
    starts: Vec<i64>,
}

impl Question {
    pub(super) fn new(
        config: &LoaderConfig,
        budget: &Budget,
        below_version: u64,
        now: UnixMillis,
    ) -> Self {
        let compiled = CompiledBudget::new(budget.clone());
        // Of windows that were closed meanwhile nobody wants to know.
        let grace = config.dedupe_horizon_millis + DAY_MILLIS + HOUR_MILLIS;
        let from = budget.counted_from.max(now.plus(-grace));
        let mut starts = vec![compiled.window(from).start];
        let mut window = compiled.window(from);
        while let Some(end) = window.end
            && end <= now.plus(AHEAD_MILLIS)
        {
            window = compiled.window(end);
            starts.push(window.start);
        }
        Self {
            count: CountId::of(budget),
            below_version,
            epoch: config.epoch,
            dimensions: budget.scope.shape(),
            starts: starts.into_iter().map(|start| start.0).collect(),
            compiled,
        }
    }

    pub(super) fn budget(&self) -> &BudgetId {
        &self.compiled.budget.id
    }

    /// Whether versions of the budgets began again since: then rows of before cannot be told apart.
    pub(super) async fn versions_began_again(
        &self,
        warehouse: &Warehouse,
    ) -> Result<bool, OpeningsError> {
        let long_before = self.compiled.budget.counted_from.plus(-CLOCKS_MILLIS);
        let table = warehouse
            .query_table(&format!(
                "SELECT count() FROM spend WHERE epoch = {} AND budget_version >= {} \
                 AND received_at < {} AND {} {BOUNDS}",
                self.epoch,
                self.below_version,
                time(long_before),
                self.counts(),
            ))
            .await?;
        Ok(number::<u64>(&table, 0, 0)? > 0)
    }

    /// In how many slices the scopes are asked for.
    pub(super) async fn slices(&self, warehouse: &Warehouse) -> Result<u64, OpeningsError> {
        if self.dimensions.is_empty() {
            return Ok(1);
        }
        let table = warehouse
            .query_table(&format!(
                "SELECT uniq({}) FROM spend WHERE {} {BOUNDS}",
                listed(self.dimensions.iter().map(column)),
                self.is_of_before(),
            ))
            .await?;
        Ok(number::<u64>(&table, 0, 0)? / SCOPES_A_QUESTION + 1)
    }

    /// The openings of a slice of all scopes.
    pub(super) async fn ask(
        &self,
        warehouse: &Warehouse,
        slice: (u64, u64),
    ) -> Result<Vec<OpeningEntry>, OpeningsError> {
        let in_slice = in_slice(&self.dimensions, slice);
        let named = |at: usize| format!("scope_{at}, ");
        let names: String = (0..self.dimensions.len()).map(named).collect();
        let months = warehouse.config().spend_retention_months;
        let parts = match self.reaches_behind(months) {
            false => self.rows(&in_slice, &names, "1"),
            true => {
                let kept = kept_from(months);
                let since = format!("time >= {kept}");
                let sums = self.hourly_sums(&in_slice, &kept);
                format!("{} UNION ALL {sums}", self.rows(&in_slice, &names, &since))
            }
        };
        let table = warehouse
            .query_table(&format!(
                "SELECT {names}start, sum(nanos), sum(unpriced), sum(all_tokens), sum(all_calls) \
                 FROM ({parts}) GROUP BY {names}start {BOUNDS}"
            ))
            .await?;
        let rows = 0..table.rows.len();
        rows.map(|row| self.entry(&table, row)).collect()
    }

    /// What rows of before come to, one by one but for those that were corrected.
    fn rows(&self, in_slice: &str, names: &str, also: &str) -> String {
        // An entry whose price was corrected is charged at a ceiling or not as its last row says, with
        // all that it came to; any other as its own row says.
        let amended = format!(
            "{ENTRY} IN (SELECT amends_epoch, amends_partition, amends_seq, amends_index FROM spend \
             WHERE amends_seq > 0 AND time >= {})",
            time(UnixMillis(self.starts[0])),
        );
        let (selected, start) = (self.selected(), window_start(MILLIS, &self.starts));
        let (rows, tokens) = (self.is_of_before(), tokens());
        format!(
            "SELECT {selected}{start} AS start, {NANOS} AS nanos, \
                    if(priced = 'ceiling', nanos, toInt128(0)) AS unpriced, \
                    toInt64({tokens}) AS all_tokens, toInt64(calls) AS all_calls \
             FROM spend WHERE {rows} AND {also} AND {in_slice} AND NOT ({amended}) \
             UNION ALL \
             SELECT {selected}{start} AS start, sum({NANOS}) AS nanos, \
                    if(argMax(priced, (meter_seq, meter_index)) = 'ceiling', nanos, toInt128(0)) AS unpriced, \
                    toInt64(sum({tokens})) AS all_tokens, toInt64(sum(calls)) AS all_calls \
             FROM spend WHERE {rows} AND {also} AND {in_slice} AND {amended} \
             GROUP BY {names}start, {ENTRY}"
        )
    }

    /// What hours come to whose rows may have expired: everything, but for what the count has itself.
    fn hourly_sums(&self, in_slice: &str, kept: &str) -> String {
        let (selected, counts) = (self.selected(), self.counts_at("hour"));
        let start = window_start("toInt64(toUnixTimestamp(hour)) * 1000", &self.starts);
        let row_start = window_start(MILLIS, &self.starts);
        let (rows, before, tokens) = (self.counts(), self.before(), tokens());
        let ceiling = "if(priced = 'ceiling', nanos, toInt128(0)) AS unpriced";
        format!(
            "SELECT {selected}{start} AS start, {NANOS} AS nanos, {ceiling}, \
                    toInt64({tokens}) AS all_tokens, toInt64(calls) AS all_calls \
             FROM spend_hourly WHERE {counts} AND hour < {kept} AND {in_slice} \
             UNION ALL \
             SELECT {selected}{row_start} AS start, -{NANOS} AS nanos, {ceiling}, \
                    -toInt64({tokens}) AS all_tokens, -toInt64(calls) AS all_calls \
             FROM spend WHERE {rows} AND time < {kept} AND NOT {before} AND {in_slice}"
        )
    }

    /// Whether a window begins before the oldest row that is surely kept, and hours can be told.
    fn reaches_behind(&self, months: u32) -> bool {
        let lately = i64::from(months) * 28 * DAY_MILLIS;
        let oldest = UnixMillis::from(jiff::Timestamp::now()).plus(-lately);
        let first = self.starts[0];
        let has_sums = |dimension: &Dimension| {
            let fixed = dimension.fixed();
            !matches!(
                fixed,
                Ok(FixedDimension::Session | FixedDimension::RootSession)
            )
        };
        let budget = &self.compiled.budget;
        let filter = budget.filter.0.iter().map(|(dimension, _)| dimension);
        let mut dimensions = self.dimensions.iter().chain(filter);
        first < oldest.0 && first % HOUR_MILLIS == 0 && dimensions.all(has_sums)
    }

    fn selected(&self) -> String {
        let dimensions = self.dimensions.iter().enumerate();
        let named = |(at, one): (usize, &Dimension)| format!("{} AS scope_{at}, ", column(one));
        dimensions.map(named).collect()
    }

    fn entry(&self, table: &Table, row: usize) -> Result<OpeningEntry, OpeningsError> {
        let values = table.rows[row].iter().map(String::as_str);
        let place = self.dimensions.len();
        Ok(OpeningEntry {
            scope: scope_of(self.dimensions.iter().zip(values)),
            start: UnixMillis(number(table, row, place)?),
            opening: Opening {
                cost: Nanos::new(number(table, row, place + 1)?),
                unpriced: Nanos::new(number(table, row, place + 2)?),
                tokens: number(table, row, place + 3)?,
                calls: number(table, row, place + 4)?,
                is_computed: true,
            },
        })
    }

    /// The condition that a row counts in the budget, in a window that may have an opening. Those that
    /// count nothing do not say what price stands.
    fn counts(&self) -> String {
        let counts = self.counts_at("time");
        format!("{counts} AND NOT has(flags, 'told_again')")
    }

    fn counts_at(&self, column: &str) -> String {
        format!(
            "kind != 'revenue' AND {} AND {column} >= {}",
            counts_in(&self.compiled.budget),
            time(UnixMillis(self.starts[0])),
        )
    }

    /// The condition that the count does not have a row.
    fn before(&self) -> String {
        let (epoch, version) = (self.epoch, self.below_version);
        format!("(epoch < {epoch} OR epoch = {epoch} AND budget_version < {version})")
    }

    fn is_of_before(&self) -> String {
        format!("{} AND {}", self.counts(), self.before())
    }
}

/// From when on rows are surely kept: the days around the end of their time are left to hourly sums.
fn kept_from(months: u32) -> String {
    format!("(toStartOfDay(now('UTC') - toIntervalMonth({months})) + toIntervalDay(2))")
}

fn number<T: std::str::FromStr>(
    table: &Table,
    row: usize,
    column: usize,
) -> Result<T, OpeningsError> {
    let text = table.rows.get(row).and_then(|row| row.get(column));
    text.and_then(|text| text.parse().ok())
        .ok_or(OpeningsError::NotANumber { column })
}
