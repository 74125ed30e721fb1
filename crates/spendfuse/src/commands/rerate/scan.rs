//! The entries of a job, in pieces: so many at a time, in the order of their events' time.

use std::collections::VecDeque;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::correction::EntryPlace;
use spendfuse_warehouse::conditions;

use super::super::Failure;
use super::super::correct::entry::Entry;
use super::super::correct::rows::{LAST_MILLIS, around, ask, by_entry_of, number};
use super::super::warehouse::Connection;
use super::filter::Filter;
use crate::settings::Settings;

/// Entries that are looked at together, about 3 KB each.
pub const PIECE: u64 = 5_000;
const HOUR_MILLIS: i64 = 60 * 60 * 1000;

/// Where a piece begins or ends: time, partition, commit, place within it.
pub type Position = [i64; 4];

/// Goes through all entries that may meet a filter.
pub struct Scan<'a> {
    settings: &'a Settings,
    connection: &'a Connection,
    filter: &'a Filter,
    epoch: u32,
    /// Times of whole hours that are still to be looked at; the last one is excluded.
    spans: VecDeque<(i64, i64)>,
    since: i64,
    until: i64,
    /// The last entry of the piece before, in the first span.
    after: Option<Position>,
    /// Entries in all.
    pub total: u64,
}

impl<'a> Scan<'a> {
    /// Looks how many there are, and when.
    pub fn begin(
        settings: &'a Settings,
        connection: &'a Connection,
        filter: &'a Filter,
        epoch: u32,
        (since, until): (Option<UnixMillis>, Option<UnixMillis>),
    ) -> Result<Self, Failure> {
        let mut scan = Self {
            settings,
            connection,
            filter,
            epoch,
            spans: VecDeque::new(),
            since: since.map_or(0, |since| since.0),
            until: until.map_or(i64::MAX, |until| until.0),
            after: None,
            total: 0,
        };
        let question = format!(
            "SELECT toString(intDiv(toUnixTimestamp64Milli(time), {HOUR_MILLIS}) AS hour), \
                    toString(count()) \
             FROM spend WHERE {} GROUP BY hour ORDER BY hour",
            scan.condition(scan.since, scan.until)
        );
        let mut in_last = PIECE;
        for cells in ask(connection, &question)? {
            let hour: i64 = number(&cells[0])?;
            let count: u64 = number(&cells[1])?;
            let (from, to) = (hour * HOUR_MILLIS, (hour + 1) * HOUR_MILLIS);
            match scan.spans.back_mut() {
                Some(last) if in_last + count <= PIECE => {
                    last.1 = to;
                    in_last += count;
                }
                _ => {
                    scan.spans.push_back((from, to));
                    in_last = count;
                }
            }
            scan.total += count;
        }
        Ok(scan)
    }

    /// The condition on entries of these times that meet the filter, or that something which amends
    /// them lets meet it.
    fn condition(&self, from: i64, to: i64) -> String {
        let (epoch, own) = (self.epoch, self.filter.sql());
        // ClickHouse's times end in 2299.
        let time = |millis: i64| conditions::time(UnixMillis(millis.clamp(0, LAST_MILLIS)));
        let mut meets = format!("({own})");
        if !self.filter.is_empty() {
            // Re-ratings are as many as entries, and change prices alone.
            let kinds = match self.filter.is_of_price() {
                true => "'correction', 'rerate'",
                false => "'correction'",
            };
            meets = format!(
                "({meets} OR (meter_partition, meter_seq, meter_index) IN (\
                   SELECT amends_partition, amends_seq, amends_index FROM spend \
                   WHERE epoch = {epoch} AND kind IN ({kinds}) AND calls >= 0 AND {own} AND {}))",
                around(self.settings, from, to)
            );
        }
        format!(
            "epoch = {epoch} AND kind = 'usage' AND time >= {} AND time < {} AND {meets}",
            time(from),
            time(to)
        )
    }

    /// The next piece; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Vec<Entry>>, Failure> {
        while let Some(&(from, to)) = self.spans.front() {
            let (from, to) = (from.max(self.since), to.min(self.until));
            let key = "toUnixTimestamp64Milli(time), meter_partition, meter_seq, meter_index";
            let beyond = self
                .after
                .map_or_else(String::new, |[time, partition, seq, index]| {
                    format!(" AND ({key}) > ({time}, {partition}, {seq}, {index})")
                });
            let question = format!(
                "SELECT toString(toUnixTimestamp64Milli(time)), toString(meter_partition), \
                        toString(meter_seq), toString(meter_index) \
                 FROM spend WHERE {}{beyond} ORDER BY {key} LIMIT {PIECE}",
                self.condition(from, to)
            );
            let answer = ask(self.connection, &question)?;
            let mut positions: Vec<Position> = Vec::with_capacity(answer.len());
            for cells in &answer {
                let [time, partition, seq, index] = &cells[..] else {
                    continue;
                };
                positions.push([
                    number(time)?,
                    number(partition)?,
                    number(seq)?,
                    number(index)?,
                ]);
            }
            self.after = positions.last().copied();
            if (positions.len() as u64) < PIECE {
                self.spans.pop_front();
                self.after = None;
            }
            if let (Some(first), Some(last)) = (positions.first(), positions.last()) {
                return self.entries(&positions, first[0], last[0]).map(Some);
            }
        }
        Ok(None)
    }

    /// Entries that were in a piece before, as they stand now.
    pub fn again(&self, positions: &[Position]) -> Result<Vec<Entry>, Failure> {
        let times = || positions.iter().map(|[time, ..]| *time);
        match (times().min(), times().max()) {
            (Some(first), Some(last)) => self.entries(positions, first, last),
            _ => Ok(Vec::new()),
        }
    }

    fn entries(&self, positions: &[Position], from: i64, to: i64) -> Result<Vec<Entry>, Failure> {
        let epoch = self.epoch;
        let addresses: Vec<String> = positions
            .iter()
            .map(|[_, partition, seq, index]| format!("({partition},{seq},{index})"))
            .collect();
        let addresses = addresses.join(",");
        let condition = |times: &str| {
            format!(
                "epoch = {epoch} AND {times} AND \
                 ((meter_partition, meter_seq, meter_index) IN ({addresses}) OR \
                  amends_seq > 0 AND (amends_partition, amends_seq, amends_index) IN ({addresses})) \
                 ORDER BY meter_partition, meter_seq, meter_index"
            )
        };
        let mut rows = by_entry_of(self.connection, self.settings, (from, to), condition)?;
        let place = |[_, partition, seq, index]: &Position| EntryPlace {
            epoch,
            partition: *partition as u32,
            seq: *seq as u64,
            index: *index as u32,
        };
        let found = positions.iter().filter_map(|one| rows.remove(&place(one)));
        Ok(found.filter_map(|rows| Entry::of(rows, None)).collect())
    }
}
