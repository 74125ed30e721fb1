//! Rows, compared with the events that they name.

use std::collections::HashMap;

use spendfuse_bus::PartitionRange;
use spendfuse_domain::Nanos;
use spendfuse_domain::event::{Body, Event};
use spendfuse_domain::row::MeterAddress;
use spendfuse_engine::audit::{
    CountedRow, Difference, InputEvent, Kind, Site, Tally, compare_event, identity_hash,
};

use spendfuse_warehouse::client::quoted;

use super::{Place, Reading};
use crate::error::AuditError;
use crate::sql;

pub(super) struct FoundRow {
    pub(super) row: CountedRow,
    /// Cost by the app's own figure.
    pub(super) is_reported: bool,
    pub(super) price_version: Option<u32>,
    /// What stood for its call before it, where it counts only what the call has grown by. `row` is
    /// then what stands since.
    pub(super) before: Option<Nanos>,
}

/// Amended addresses in one question.
const ADDRESSES: usize = 500;

impl Reading<'_> {
    /// The rows whose events lie in `ranges`.
    pub(super) fn rows(
        &mut self,
        ranges: &[PartitionRange],
    ) -> Result<HashMap<Place, FoundRow>, AuditError> {
        let places: Vec<String> = ranges
            .iter()
            .map(|range| {
                format!(
                    "(src_partition = {} AND src_offset >= {} AND src_offset < {})",
                    range.partition, range.from, range.to
                )
            })
            .collect();
        let question = format!(
            "SELECT src_partition, src_offset, meter_partition, meter_seq, meter_index, \
                    xxh3(concat(workspace, '\\0', source, '\\0', event_id)), {}, \
                    toInt128(revenue * 1000000000), {}, priced = 'reported', price_version, \
                    amends_partition, amends_seq, amends_index \
             FROM spend WHERE epoch = {} AND {} AND {}",
            sql::NANOS,
            sql::tokens(),
            self.context.epoch,
            self.of_input(),
            sql::any_of(&places)
        );
        let mut rows: HashMap<Place, FoundRow> = HashMap::new();
        let mut grown: Vec<(Place, MeterAddress)> = Vec::new();
        for cells in self.context.ask(&question)? {
            let place = (sql::cell(&cells, 0)?, sql::cell(&cells, 1)?);
            let found = FoundRow {
                row: CountedRow {
                    partition: sql::cell(&cells, 2)?,
                    seq: sql::cell(&cells, 3)?,
                    index: sql::cell(&cells, 4)?,
                    identity: sql::cell(&cells, 5)?,
                    cost: sql::nanos(&cells, 6)?,
                    revenue: sql::nanos(&cells, 7)?,
                    tokens: sql::cell(&cells, 8)?,
                },
                is_reported: cells[9] == "1",
                price_version: self.books.number_of(&cells[10]),
                before: None,
            };
            let amended = address(&cells, 11)?;
            if amended.seq > 0 {
                grown.push((place, amended));
            }
            let row = found.row;
            if rows.insert(place, found).is_some() {
                let detail = format!("usage {}@{} has several rows", place.0, place.1);
                self.not_from_input(place, &row, detail);
            }
        }
        for some in grown.chunks(ADDRESSES) {
            self.add_what_stood_before(some, &mut rows)?;
        }
        Ok(rows)
    }

    /// The condition that a row is about an event of the input, and counts it.
    fn of_input(&self) -> String {
        format!(
            "(kind IN ('usage', 'revenue') OR kind = 'correction' AND src_topic = {} \
              AND NOT has(flags, 'told_again'))",
            quoted(&self.context.topics.usage)
        )
    }

    /// Rows of calls that have grown hold the difference: what was counted of those calls before,
    /// from the amended entry on, is added.
    fn add_what_stood_before(
        &self,
        grown: &[(Place, MeterAddress)],
        rows: &mut HashMap<Place, FoundRow>,
    ) -> Result<(), AuditError> {
        let addresses: Vec<String> = grown
            .iter()
            .map(|(_, at)| format!("({}, {}, {})", at.partition, at.seq, at.index))
            .collect();
        let addresses = addresses.join(", ");
        let question = format!(
            "SELECT meter_partition, meter_seq, meter_index, {}, {}, \
                    amends_partition, amends_seq, amends_index \
             FROM spend WHERE epoch = {} AND {} AND \
                 ((meter_partition, meter_seq, meter_index) IN ({addresses}) OR \
                  (amends_partition, amends_seq, amends_index) IN ({addresses}))",
            sql::NANOS,
            sql::tokens(),
            self.context.epoch,
            self.of_input(),
        );
        let mut parts: HashMap<MeterAddress, Vec<(MeterAddress, Nanos, i64)>> = HashMap::new();
        for cells in self.context.ask(&question)? {
            let (at, amended) = (address(&cells, 0)?, address(&cells, 5)?);
            let first = if amended.seq > 0 { amended } else { at };
            let part = (at, sql::nanos(&cells, 3)?, sql::cell(&cells, 4)?);
            parts.entry(first).or_default().push(part);
        }
        for (place, first) in grown {
            let (Some(found), Some(parts)) = (rows.get_mut(place), parts.get(first)) else {
                continue;
            };
            let row = &mut found.row;
            let own = (row.seq, row.index);
            let earlier = parts.iter().filter(|(at, ..)| (at.seq, at.index) < own);
            let (cost, tokens) = earlier.fold((Nanos::ZERO, 0), |(cost, tokens), part| {
                (cost + part.1, tokens + part.2)
            });
            row.cost += cost;
            row.tokens += tokens;
            found.before = Some(cost);
        }
        Ok(())
    }

    pub(super) fn with_row(
        &mut self,
        place: Place,
        event: &Event<'_>,
        home: u32,
        found: &FoundRow,
    ) -> Result<(), AuditError> {
        let (cost, revenue, tokens) = match &event.body {
            Body::Usage(call) => {
                let cost = match found.is_reported {
                    true => call.reported_cost,
                    false => self.books.price(found.price_version, event),
                };
                let tokens = i64::try_from(call.tokens.total()).unwrap_or(i64::MAX);
                (cost, Nanos::ZERO, tokens)
            }
            Body::Revenue(amount) => (Some(Nanos::ZERO), *amount, 0),
            Body::SessionEnd => (Some(Nanos::ZERO), Nanos::ZERO, 0),
        };
        let row = &found.row;
        let expected = InputEvent {
            home,
            identity: identity_hash(&event.attribution.workspace, &event.source, &event.id),
            cost,
            revenue,
            tokens,
        };
        let name = || format!("event {} at usage {}@{}", event.id, place.0, place.1);
        if let Some(difference) = compare_event(&expected, row, name) {
            self.differences.push((place, difference));
        }
        let sums = &mut self.sums.homes[home as usize];
        let before = found.before.unwrap_or_default();
        sums.counted
            .add(Tally::new(1, cost.unwrap_or(row.cost) - before));
        sums.rows.add(Tally::new(1, row.cost - before));
        let (first, last) = sums.seqs.unwrap_or((row.seq, row.seq));
        sums.seqs = Some((first.min(row.seq), last.max(row.seq)));
        self.last_seq[home as usize] = row.seq;
        Ok(())
    }

    pub(super) fn not_from_input(&mut self, place: Place, row: &CountedRow, detail: String) {
        let difference = Difference {
            kind: Kind::NotFromInput,
            site: Site::Meter(row.partition),
            seq: Some(row.seq),
            expected: Tally::default(),
            found: Tally::new(1, row.cost),
            detail: format!("row {} of commit {}: {detail}", row.index, row.seq),
        };
        self.differences.push((place, difference));
    }

    /// Rows whose events lie where the usage topic has not come to.
    pub(super) fn rows_beyond(&mut self) -> Result<(), AuditError> {
        let question = format!(
            "SELECT src_partition, max(src_offset), argMax(meter_partition, src_offset), \
                    argMax(meter_seq, src_offset), argMax({}, src_offset) \
             FROM spend WHERE epoch = {} AND {} GROUP BY src_partition",
            sql::NANOS,
            self.context.epoch,
            self.of_input()
        );
        let last = self.context.ask(&question)?;
        let ranges = self.context.ranges(&self.context.topics.usage, None)?;
        for cells in last {
            let (partition, offset): Place = (sql::cell(&cells, 0)?, sql::cell(&cells, 1)?);
            let end = ranges.get(partition as usize).map_or(0, |range| range.to);
            if offset < end {
                continue;
            }
            let seq = sql::cell(&cells, 3)?;
            let difference = Difference {
                kind: Kind::NotFromInput,
                site: Site::Meter(sql::cell(&cells, 2)?),
                seq: Some(seq),
                expected: Tally::default(),
                found: Tally::new(1, sql::nanos(&cells, 4)?),
                detail: format!(
                    "a row of commit {seq} names usage {partition}@{offset}, but that partition ends at {end}"
                ),
            };
            // Not among the offsets that are compared: told at once.
            self.differences.push(((0, -1), difference));
        }
        Ok(())
    }
}

/// An address, in three columns.
fn address(cells: &[String], column: usize) -> Result<MeterAddress, AuditError> {
    Ok(MeterAddress {
        partition: sql::cell(cells, column)?,
        seq: sql::cell(cells, column + 1)?,
        index: sql::cell(cells, column + 2)?,
    })
}
