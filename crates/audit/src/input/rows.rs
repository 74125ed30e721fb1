//! Rows, compared with the events that they name.

use std::collections::HashMap;

use spendfuse_bus::PartitionRange;
use spendfuse_domain::Nanos;
use spendfuse_domain::event::{Body, Event};
use spendfuse_engine::audit::{
    CountedRow, Difference, InputEvent, Kind, Site, Tally, compare_event, identity_hash,
};

use super::{Place, Reading};
use crate::error::AuditError;
use crate::sql;

pub(super) struct FoundRow {
    pub(super) row: CountedRow,
    /// Cost by the app's own figure.
    pub(super) is_reported: bool,
    pub(super) price_version: u32,
}

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
                    toInt128(revenue * 1000000000), {}, priced = 'reported', price_version \
             FROM spend WHERE epoch = {} AND kind IN ('usage', 'revenue') AND {}",
            sql::NANOS,
            sql::tokens(),
            self.context.epoch,
            sql::any_of(&places)
        );
        let mut rows: HashMap<Place, FoundRow> = HashMap::new();
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
            };
            let row = found.row;
            if rows.insert(place, found).is_some() {
                let detail = format!("usage {}@{} has several rows", place.0, place.1);
                self.not_from_input(place, &row, detail);
            }
        }
        Ok(rows)
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
                (cost, Nanos::ZERO, call.tokens.total())
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
        sums.counted.add(Tally::new(1, cost.unwrap_or(row.cost)));
        sums.rows.add(Tally::new(1, row.cost));
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
             FROM spend WHERE epoch = {} AND kind IN ('usage', 'revenue') GROUP BY src_partition",
            sql::NANOS,
            self.context.epoch
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
