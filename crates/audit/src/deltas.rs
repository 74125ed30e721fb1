//! Deltas: their chains, and whether they tell the ledger what the rows say.

use std::collections::BTreeMap;

use spendfuse_engine::audit::{Chains, Difference, Differences, Kind, SeqSums, Site, Tally};
use spendfuse_engine::codec;
use spendfuse_engine::delta::Deltas;
use spendfuse_engine::ledger::OPENINGS_KEY;

use crate::auditor::Note;
use crate::blocks::chain_detail;
use crate::budgets::{BudgetsInForce, SeriesInForce};
use crate::context::Context;
use crate::error::AuditError;
use crate::sql::{self, SeqRange};
use crate::tail::Tail;

const MANY: i64 = 200_000;
const COARSE: u64 = 1000;

/// Meter partition, and the series by its text form.
type Series = (u32, String);

/// What a commit tells of a series, by which version of the budgets.
#[derive(Clone, Debug)]
struct Told {
    series: Series,
    seq: u64,
    budget_version: u64,
    tally: Tally,
}

/// How far deltas were read.
#[derive(Clone, Debug)]
pub struct DeltaLog {
    tail: Tail,
    /// By (meter partition, ledger partition).
    chains: Chains<(u32, u32)>,
    /// Per meter partition, the last commit that was compared.
    compared: Vec<Option<u64>>,
    /// Per meter partition, the first commit of which all deltas are there.
    complete_from: Vec<u64>,
    /// What was read of commits that other ledger partitions were not told yet.
    ahead: Vec<Told>,
}

/// The deltas of one round.
pub struct DeltasRead {
    /// Per meter partition, the commits whose deltas are all there.
    pub ranges: Vec<SeqRange>,
    sums: SeqSums<Series>,
    /// Broken chains.
    pub differences: Differences,
}

impl DeltaLog {
    /// Nothing read yet.
    pub fn new(context: &Context<'_>) -> Result<Self, AuditError> {
        let tail = Tail::new(context, &context.topics.deltas, context.since)?;
        let partitions = tail.partitions();
        Ok(Self {
            tail,
            chains: Chains::new(),
            compared: vec![None; partitions],
            complete_from: vec![0; partitions],
            ahead: Vec::new(),
        })
    }

    /// Whether retention has removed deltas that were not read.
    pub fn is_overtaken(&self, context: &Context<'_>) -> Result<bool, AuditError> {
        self.tail.is_overtaken(context)
    }

    /// The last commit of a meter partition of which a ledger partition was told.
    pub fn last_told(&self, meter: u32, ledger: u32) -> u64 {
        self.chains.last(&(meter, ledger)).unwrap_or(0)
    }

    /// Per meter partition, the last commit that was compared.
    pub fn compared(&self) -> Vec<u64> {
        let compared = self.compared.iter();
        compared.map(|seq| seq.unwrap_or(0)).collect()
    }

    /// Reads the deltas that are there now. The ends of partitions are not seen at one moment, so a
    /// commit counts as read when everything that was there after it was seen has been read too.
    pub fn read(
        &mut self,
        context: &Context<'_>,
        budgets: &BudgetsInForce,
    ) -> Result<DeltasRead, AuditError> {
        let waiting = self.tail.waiting(context, None)?;
        let waiting: i64 = waiting.iter().map(|range| range.to - range.from).sum();
        let compared = self.compared.iter();
        let mut read = DeltasRead {
            ranges: compared
                .map(|seq| SeqRange {
                    from: seq.map_or(0, |seq| seq + 1),
                    to: seq.unwrap_or(0),
                })
                .collect(),
            sums: SeqSums::new(if waiting > MANY { COARSE } else { 1 }),
            differences: Differences::default(),
        };
        for told in std::mem::take(&mut self.ahead) {
            let range = &mut read.ranges[told.series.0 as usize];
            range.to = range.to.max(told.seq);
            read.take(told, budgets);
        }
        self.pass(context, budgets, &mut read, true)?;
        self.pass(context, budgets, &mut read, false)?;
        for (range, from) in read.ranges.iter_mut().zip(&self.complete_from) {
            range.from = range.from.max(*from);
        }
        for (compared, range) in self.compared.iter_mut().zip(&read.ranges) {
            *compared = Some(range.to);
        }
        Ok(read)
    }

    fn pass(
        &mut self,
        context: &Context<'_>,
        budgets: &BudgetsInForce,
        read: &mut DeltasRead,
        extends: bool,
    ) -> Result<(), AuditError> {
        let (chains, complete_from) = (&mut self.chains, &mut self.complete_from);
        let ahead = &mut self.ahead;
        self.tail.read(context, None, |record, is_whole| {
            let (ledger, offset) = (record.partition, record.offset);
            if record.key == Some(OPENINGS_KEY) {
                // The accounts say what became of them.
                return Ok(());
            }
            let deltas: Deltas = match codec::decode(record.value.unwrap_or_default()) {
                Ok(deltas) => deltas,
                Err(error) => {
                    let detail = format!("deltas at offset {offset} cannot be read: {error}");
                    read.differences.push(unreadable(ledger, detail));
                    return Ok(());
                }
            };
            let (meter, seq) = (deltas.meter_partition, deltas.seq);
            let Some(range) = read.ranges.get_mut(meter as usize) else {
                let detail = format!("deltas at offset {offset} of meter partition {meter}");
                read.differences.push(unreadable(ledger, detail));
                return Ok(());
            };
            if extends {
                range.to = range.to.max(seq);
            }
            if chains.last(&(meter, ledger)).is_none() && !is_whole {
                let from = &mut complete_from[meter as usize];
                *from = (*from).max(seq + 1);
            }
            if let Err(broken) = chains.follow((meter, ledger), deltas.prev, seq, is_whole) {
                let tally = largest_series(&deltas);
                let (expected, found) = match broken.is_gap() {
                    true => (Tally::default(), Tally::default()),
                    false => (Tally::default(), tally),
                };
                read.differences.push(Difference {
                    kind: match broken.is_gap() {
                        true => Kind::DeltaGap,
                        false => Kind::DeltaOverlap,
                    },
                    site: Site::Meter(meter),
                    seq: Some(broken.seq.min(broken.expected + 1)),
                    expected,
                    found,
                    detail: chain_detail(
                        &format!("deltas of meter {meter} to ledger {ledger}"),
                        broken,
                        offset,
                    ),
                });
            }
            let is_ahead = seq > read.ranges[meter as usize].to;
            for (series, tally) in by_series(&deltas) {
                let told = Told {
                    series: (meter, series.to_owned()),
                    seq,
                    budget_version: deltas.budget_version,
                    tally,
                };
                match is_ahead {
                    true => ahead.push(told),
                    false => read.take(told, budgets),
                }
            }
            Ok(())
        })
    }
}

fn unreadable(ledger: u32, detail: String) -> Difference {
    Difference {
        kind: Kind::DeltasDiffer,
        site: Site::Ledger(ledger),
        seq: None,
        expected: Tally::default(),
        found: Tally::default(),
        detail,
    }
}

/// Sums by series.
fn by_series(deltas: &Deltas) -> BTreeMap<&str, Tally> {
    let mut sums: BTreeMap<&str, Tally> = BTreeMap::new();
    for entry in &deltas.entries {
        if let Some(series) = deltas.series.get(entry.series as usize) {
            let sum = sums.entry(series).or_default();
            sum.add(Tally::new(entry.calls, entry.cost));
        }
    }
    sums
}

/// The calls that deltas are about: an event counts once in each series.
fn largest_series(deltas: &Deltas) -> Tally {
    let sums = by_series(deltas).into_values();
    sums.max_by_key(|tally| tally.events).unwrap_or_default()
}

impl DeltasRead {
    fn take(&mut self, told: Told, budgets: &BudgetsInForce) {
        // A correction may move a call within a series.
        let is_nothing = told.tally == Tally::default();
        if !is_nothing && budgets.compares(&told.series.1, told.budget_version) {
            self.sums.add(told.series, told.seq, told.tally);
        }
    }

    /// Compares the rows of the warehouse with the deltas, up to the commits that are `loaded`.
    pub fn compare(
        &self,
        context: &Context<'_>,
        budgets: &BudgetsInForce,
        loaded: &[SeqRange],
        notes: &mut Vec<Note>,
    ) -> Result<Differences, AuditError> {
        let mut found = SeqSums::new(self.sums.commits_a_block());
        let ranges: Vec<SeqRange> = std::iter::zip(&self.ranges, loaded)
            .map(|(told, loaded)| SeqRange {
                from: told.from,
                to: told.to.min(loaded.to),
            })
            .collect();
        for series in &budgets.series {
            self.ask(context, budgets, series, &ranges, &mut found)?;
        }
        for counted in budgets.budgets.iter().filter(|one| !one.is_in_rows) {
            notes.push(Note::new(format!(
                "budget {}: rows of before `spendfuse finalize` do not have all of its dimensions, so they are not compared \
                 with its deltas and windows",
                counted.compiled.budget.id
            )));
        }
        if budgets.budgets.is_empty() {
            notes.push(Note::new(
                "deltas: no budget is in force that the ledger counts",
            ));
        }
        let mut differences = Differences::default();
        // Deltas are what the ledger was told: the rows are what it should have been told.
        for ((meter, series), seq, told, rows) in self.sums.unlike(&found) {
            let (told_to, range) = (self.ranges[*meter as usize].to, ranges[*meter as usize]);
            let block_end = seq + self.sums.commits_a_block();
            let is_clipped = range.to < told_to && block_end > range.to + 1;
            if !range.contains(seq) || is_clipped {
                continue;
            }
            differences.push(Difference {
                kind: Kind::DeltasDiffer,
                site: Site::Meter(*meter),
                seq: Some(seq),
                expected: rows,
                found: told,
                detail: format!(
                    "commit {seq}, series {series}: rows {} in {} calls, deltas {} in {}",
                    rows.cost, rows.events, told.cost, told.events
                ),
            });
        }
        Ok(differences)
    }

    fn ask(
        &self,
        context: &Context<'_>,
        budgets: &BudgetsInForce,
        series: &SeriesInForce,
        ranges: &[SeqRange],
        found: &mut SeqSums<Series>,
    ) -> Result<(), AuditError> {
        let question = format!(
            "SELECT meter_partition, intDiv(meter_seq, {}), sum(calls), sum({}) FROM spend \
             WHERE kind != 'revenue' AND {} AND {} AND budget_version BETWEEN {} AND {} GROUP BY 1, 2",
            self.sums.commits_a_block(),
            sql::NANOS,
            sql::in_ranges(context.epoch, "meter_partition", "meter_seq", ranges),
            sql::counts_in_series(&series.shape, &series.filter),
            series.since_version,
            budgets.known_version,
        );
        for row in context.ask(&question)? {
            let tally = sql::tally(&row, 2)?;
            if tally != Tally::default() {
                let key = (sql::cell(&row, 0)?, series.id.clone());
                found.add_block(key, sql::cell(&row, 1)?, tally);
            }
        }
        Ok(())
    }
}
