//! The budgets in force, and since when each one counts.

use std::collections::{BTreeMap, HashMap};

use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::{Budget, BudgetsRecord, CompiledBudget, CountId};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::scope::{Dimension, Filter};
use spendfuse_engine::book::{BudgetBook, Series};

use crate::context::Context;
use crate::error::AuditError;
use crate::sql;
use crate::whole_rows::WholeRows;

/// A count began with this record if the budget says that it counts since then.
pub(crate) const SAME_TIME_MILLIS: i64 = 60_000;

/// A budget that the ledger counts.
#[derive(Debug)]
pub struct CountedBudget {
    /// The budget.
    pub compiled: CompiledBudget,
    /// Offset of the record from which on it counts without a break.
    pub began_offset: i64,
    /// When that record was written.
    pub began_at: UnixMillis,
    /// Whether the count is older: the record that began it is compacted away.
    pub began_before: bool,
    /// Whether every row that counts in it has every dimension that it counts by; else they cannot be
    /// compared with it.
    pub is_in_rows: bool,
}

/// A series that all meters tell the ledger of.
#[derive(Debug)]
pub struct SeriesInForce {
    /// Text form.
    pub id: String,
    /// The dimensions.
    pub shape: Vec<Dimension>,
    /// Which spend counts.
    pub filter: Filter,
    /// Rows counted by this version of the budgets and later ones are told of.
    pub since_version: u64,
}

/// All budgets that the ledger counts.
#[derive(Debug)]
pub struct BudgetsInForce {
    /// The budgets.
    pub budgets: Vec<CountedBudget>,
    /// The series of those that rows can be compared with.
    pub series: Vec<SeriesInForce>,
    /// The version of the budgets topic that was read.
    pub known_version: u64,
    since: HashMap<String, u64>,
}

struct Record {
    offset: i64,
    at: UnixMillis,
    budget: Option<Budget>,
}

impl BudgetsInForce {
    /// Reads the topic.
    pub fn read(context: &Context<'_>) -> Result<Self, AuditError> {
        let mut records: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        let mut known_version = 0;
        context.read_since(&context.topics.budgets, None, |record| {
            known_version = record.offset.unsigned_abs() + 1;
            let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
                return;
            };
            let parsed = record.value.map(|value| BudgetsRecord::parse(key, value));
            let budget = match parsed {
                None => None,
                Some(Ok(BudgetsRecord::Budget(budget))) => Some(budget),
                Some(Ok(BudgetsRecord::Detector(_))) => return,
                Some(Err(error)) => {
                    (context.warn)(&format_args!("{error}; it is left out"));
                    return;
                }
            };
            records.entry(key.to_owned()).or_default().push(Record {
                offset: record.offset,
                at: UnixMillis(record.timestamp_millis),
                budget,
            });
        })?;
        let latest = records
            .values()
            .filter_map(|all| all.last()?.budget.clone());
        let book = BudgetBook::compile(known_version, latest.collect(), DetectorRules::default());
        let mut budgets = Vec::new();
        let mut whole_since = None;
        for compiled in book.budgets {
            if compiled.budget.window.is_session() {
                continue;
            }
            let all = records.get(compiled.budget.id.as_str());
            let mut one = counted(compiled, all.map_or(&[], Vec::as_slice));
            if !sql::rows_always_tell(&one.compiled.budget) {
                let since = match &whole_since {
                    Some(since) => since,
                    None => whole_since.insert(WholeRows::ask(context)?),
                };
                one.is_in_rows = since.has_all_of(&one);
            }
            budgets.push(one);
        }
        Ok(Self::of(budgets, known_version))
    }

    fn of(budgets: Vec<CountedBudget>, known_version: u64) -> Self {
        let mut series: BTreeMap<String, SeriesInForce> = BTreeMap::new();
        for counted in budgets.iter().filter(|counted| counted.is_in_rows) {
            let Series { id, shape, filter } = Series::of(&counted.compiled.budget);
            let since_version = counted.began_offset.unsigned_abs() + 1;
            let one = series.entry(id.clone()).or_insert(SeriesInForce {
                id,
                shape,
                filter,
                since_version,
            });
            one.since_version = one.since_version.min(since_version);
        }
        let since = series.values();
        Self {
            since: since
                .map(|one| (one.id.clone(), one.since_version))
                .collect(),
            series: series.into_values().collect(),
            budgets,
            known_version,
        }
    }

    /// Whether deltas of a series that were counted by this version of the budgets are compared.
    pub fn compares(&self, series: &str, budget_version: u64) -> bool {
        let since = self.since.get(series);
        since.is_some_and(|since| (*since..=self.known_version).contains(&budget_version))
    }
}

/// Since when a budget's count runs, from all records of its key that are still there.
fn counted(compiled: CompiledBudget, records: &[Record]) -> CountedBudget {
    let mut began: Option<(&Record, &Budget)> = None;
    for record in records {
        began = match (&record.budget, began) {
            (None, _) => None,
            (Some(budget), Some((first, before))) if CountId::of(budget) == CountId::of(before) => {
                Some((first, before))
            }
            (Some(budget), _) => Some((record, budget)),
        };
    }
    let (began_offset, began_at) = began.map_or((0, UnixMillis::default()), |(record, _)| {
        (record.offset, record.at)
    });
    let counted_from = compiled.budget.counted_from;
    CountedBudget {
        began_before: began_at.since(counted_from) > SAME_TIME_MILLIS,
        compiled,
        began_offset,
        began_at,
        is_in_rows: true,
    }
}
