//! Rollups against their rows, and identities that have several rows.

use std::collections::BTreeMap;
use std::time::Duration;

use spendfuse_domain::Nanos;
use spendfuse_engine::audit::{Difference, Differences, Kind, Site, Tally};

use crate::context::Context;
use crate::error::AuditError;
use crate::sql::{self, SeqRange};

const COMMITS_A_BLOCK: u64 = 1000;
/// Rows and rollups are asked one after the other while rows come: what differs by the same amount
/// twice in a row differs.
const LOOKS: u32 = 6;
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);
/// Rows whose identities are compared in one question, about.
const ROWS_A_QUESTION: u64 = 4_000_000;
/// Identities with several rows that one question gives.
const MANY: usize = 1000;

/// Sums by a key: what rows come to, what the rollup says.
type Sides = BTreeMap<(u32, String), (Tally, Tally)>;

struct Rollup {
    table: &'static str,
    /// Of the rows: partition, key.
    rows: String,
    /// Of the rollup: partition, key, entries, nano-dollars.
    sums: String,
}

/// Compares `spend_audit`, `spend_hourly` and `spend_daily` with `spend`, as far as they were touched
/// by the commits `ranges` of the meter partitions.
pub fn compare(context: &Context<'_>, ranges: &[SeqRange]) -> Result<Differences, AuditError> {
    let mut differences = Differences::default();
    for rollup in rollups(context.epoch, ranges) {
        let mut before = Sides::new();
        for look in 0..LOOKS {
            if look > 0 {
                context.pause(BETWEEN_LOOKS);
            }
            let now = unlike(context, &rollup)?;
            let lasting: Sides = now
                .iter()
                .filter(|(key, sides)| before.get(*key).is_some_and(|old| gap(old) == gap(sides)))
                .map(|(key, sides)| (key.clone(), *sides))
                .collect();
            let is_settled = now.len() == lasting.len();
            if is_settled || look + 1 == LOOKS {
                report(&rollup, lasting, &mut differences);
                break;
            }
            before = now;
        }
    }
    Ok(differences)
}

fn gap((rows, rollup): &(Tally, Tally)) -> (i128, Nanos) {
    let events = i128::from(rows.events) - i128::from(rollup.events);
    (events, rows.cost - rollup.cost)
}

fn rollups(epoch: u32, ranges: &[SeqRange]) -> [Rollup; 3] {
    let blocks: Vec<SeqRange> = ranges
        .iter()
        .map(|range| match range.from <= range.to {
            // A block that begins in what retention has removed is compared as a whole all the
            // same: both sides are in the warehouse.
            true => SeqRange {
                from: range.from / COMMITS_A_BLOCK,
                to: range.to / COMMITS_A_BLOCK,
            },
            false => SeqRange { from: 1, to: 0 },
        })
        .collect();
    let of_blocks = sql::in_ranges(epoch, "meter_partition", "intDiv(meter_seq, 1000)", &blocks);
    let of_ranges = sql::in_ranges(epoch, "meter_partition", "meter_seq", ranges);
    let by_time = |table: &'static str, column: &str, bucket: &str| {
        let touched = format!("SELECT DISTINCT {bucket} FROM spend WHERE {of_ranges}");
        Rollup {
            table,
            rows: format!(
                "SELECT 0, toString({bucket}), count(), sum({}) FROM spend \
                 WHERE {bucket} IN ({touched}) GROUP BY 1, 2",
                sql::NANOS
            ),
            sums: format!(
                "SELECT 0, toString({column}), sum(entries), sum({}) FROM {table} \
                 WHERE {column} IN ({touched}) GROUP BY 1, 2",
                sql::NANOS
            ),
        }
    };
    [
        Rollup {
            table: "spend_audit",
            rows: format!(
                "SELECT meter_partition, toString(intDiv(meter_seq, 1000)), count(), sum({}) \
                 FROM spend WHERE {of_blocks} GROUP BY 1, 2",
                sql::NANOS
            ),
            sums: format!(
                "SELECT meter_partition, toString(seq_block), sum(count), sum(nanos) \
                 FROM spend_audit WHERE {} GROUP BY 1, 2",
                sql::in_ranges(epoch, "meter_partition", "seq_block", &blocks)
            ),
        },
        by_time("spend_hourly", "hour", "toStartOfHour(time)"),
        by_time("spend_daily", "day", "toDate(time)"),
    ]
}

/// Where rows and rollup differ.
fn unlike(context: &Context<'_>, rollup: &Rollup) -> Result<Sides, AuditError> {
    let mut sides = Sides::new();
    for row in context.ask(&rollup.rows)? {
        let key = (sql::cell(&row, 0)?, row[1].clone());
        sides.entry(key).or_default().0 = sql::tally(&row, 2)?;
    }
    for row in context.ask(&rollup.sums)? {
        let key = (sql::cell(&row, 0)?, row[1].clone());
        sides.entry(key).or_default().1 = sql::tally(&row, 2)?;
    }
    sides.retain(|_, (rows, rollup)| rows != rollup);
    Ok(sides)
}

fn report(rollup: &Rollup, lasting: Sides, differences: &mut Differences) {
    for ((partition, key), (rows, sums)) in lasting {
        let is_audit = rollup.table == "spend_audit";
        let block: Option<u64> = key.parse().ok().filter(|_| is_audit);
        let place = match block {
            Some(block) => format!("commits from {} on", block * COMMITS_A_BLOCK),
            None => key,
        };
        differences.push(Difference {
            kind: Kind::RollupDiffers,
            site: match is_audit {
                true => Site::Meter(partition),
                false => Site::Table(rollup.table),
            },
            seq: block.map(|block| block * COMMITS_A_BLOCK),
            expected: rows,
            found: sums,
            detail: format!(
                "{}, {place}: {} rows of {}, the rollup says {} and {}",
                rollup.table, rows.events, rows.cost, sums.events, sums.cost
            ),
        });
    }
}

/// Within this time the loader takes back what two partitions have counted, or tells people, minutes.
const SETTLED_MINUTES: u32 = 20;

/// Identities of which several entries stand: a duplicate beyond the dedupe horizon, or a row that was
/// inserted twice. What was taken back does not stand, and what two partitions have counted the loader
/// takes back in a while. Only those with a row in `ranges`.
pub fn counted_twice(
    context: &Context<'_>,
    ranges: &[SeqRange],
    is_everything: bool,
) -> Result<Differences, AuditError> {
    let identity = "workspace, source, event_id";
    let counted = "kind IN ('usage', 'revenue')";
    let standing = format!("countIf({counted}) + sumIf(calls, kind = 'correction')");
    let is_left_to_loader = format!(
        "countIf({counted}) = uniqExactIf((epoch, meter_partition), {counted}) \
         AND maxIf(received_at, {counted}) > now() - INTERVAL {SETTLED_MINUTES} MINUTE"
    );
    let of_entry = "workspace, source, if(amends_seq > 0, amends_id, event_id)";
    let epoch = context.epoch;
    let of_ranges = sql::in_ranges(epoch, "meter_partition", "meter_seq", ranges);
    let count = context.ask(&format!("SELECT count() FROM spend WHERE {of_ranges}"))?;
    let rows: u64 = count.first().map_or(Ok(0), |row| sql::cell(row, 0))?;
    let slices = rows / ROWS_A_QUESTION + 1;
    let among = match is_everything {
        true => "1".to_owned(),
        false => format!("({of_entry}) IN (SELECT {identity} FROM spend WHERE {of_ranges})"),
    };
    let mut differences = Differences::default();
    for slice in 0..slices {
        let question = format!(
            "SELECT {of_entry}, {standing}, sum({nanos}), max({nanos}), \
                    argMaxIf(meter_partition, (received_at, meter_seq), {counted}), \
                    argMaxIf(meter_seq, (received_at, meter_seq), {counted}), \
                    minIf(received_at, {counted}), maxIf(received_at, {counted}) \
             FROM spend \
             WHERE ({counted} OR kind = 'correction') \
                   AND cityHash64({of_entry}) % {slices} = {slice} AND {among} \
             GROUP BY {of_entry} \
             HAVING countIf({counted}) > 1 AND {standing} > 1 AND NOT ({is_left_to_loader}) LIMIT {MANY}",
            nanos = sql::NANOS,
        );
        for row in context.ask(&question)? {
            let found = sql::tally(&row, 3)?;
            let partition: u32 = sql::cell(&row, 6)?;
            let seq: u64 = sql::cell(&row, 7)?;
            differences.push(Difference {
                kind: Kind::CountedTwice,
                site: Site::Meter(partition),
                seq: Some(seq),
                expected: Tally::new(1, sql::nanos(&row, 5)?),
                found,
                detail: format!(
                    "event {} of {} in {} stands {} times, received between {} and {}; the last in commit {seq}",
                    row[2], row[1], row[0], found.events, row[8], row[9]
                ),
            });
        }
    }
    Ok(differences)
}
