//! The input, read again: every event must be a row, a duplicate of one, or in the DLQ, and every
//! row must be an event.

mod rows;
mod unexplained;

use std::collections::HashSet;
use std::ops::ControlFlow;

use spendfuse_bus::{InputRecord, PartitionRange, Unreadable};
use spendfuse_domain::event::{Body, decode};
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_engine::audit::{Difference, Differences, Tally};
use spendfuse_warehouse::EventKey;

use crate::auditor::Note;
use crate::context::Context;
use crate::error::AuditError;
use crate::prices::PriceBooks;
use rows::FoundRow;
use unexplained::WithoutRow;

/// Offsets that are compared at a time, of all partitions together.
const CHUNK: i64 = 50_000;

/// Events without a row that wait for an explanation, at most.
const UNEXPLAINED: usize = 100_000;

/// Partition and offset in the usage topic.
type Place = (u32, i64);

/// What the input of one home partition came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomeSums {
    /// Events that have a row.
    pub counted: Tally,
    /// Their rows.
    pub rows: Tally,
    /// The first and the last commit that these rows name.
    pub seqs: Option<(u64, u64)>,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct InputSums {
    /// By home partition.
    pub homes: Vec<HomeSums>,
    /// Records of the usage topic.
    pub records: u64,
    /// Events whose identity was counted by another record.
    pub duplicates: u64,
    /// Records in the DLQ.
    pub rejected: u64,
    /// Events that end a session.
    pub session_ends: u64,
}

/// How far the input was read.
#[derive(Clone, Debug)]
pub struct Input {
    /// Per partition, the next offset.
    next: Vec<i64>,
}

impl Input {
    /// Nothing read yet.
    pub fn new(context: &Context<'_>) -> Result<Self, AuditError> {
        let topic = &context.topics.usage;
        let ranges = context.ranges(topic, context.since)?;
        Ok(Self {
            next: ranges.iter().map(|range| range.from).collect(),
        })
    }

    /// Compares what the meter has processed up to offsets `up_to`, whose rows are all loaded
    /// unless `is_loader_behind`. In the first round rows of offsets that do not exist are looked
    /// for, too.
    pub fn compare(
        &mut self,
        context: &Context<'_>,
        up_to: &[Option<i64>],
        is_loader_behind: bool,
        is_first: bool,
        notes: &mut Vec<Note>,
    ) -> Result<(InputSums, Differences), AuditError> {
        let mut ranges = context.ranges(&context.topics.usage, None)?;
        let partitions = ranges.len();
        for range in &mut ranges {
            let place = range.partition as usize;
            if range.from > self.next[place] {
                notes.push(Note::new(format!(
                    "input of partition {place} before offset {}: not comparable, retention has removed it",
                    range.from
                )));
            }
            range.from = range.from.max(self.next[place]);
            range.to = up_to[place].unwrap_or(range.from).max(range.from);
        }
        let mut reading = Reading {
            context,
            books: PriceBooks::new(context),
            sums: InputSums {
                homes: vec![HomeSums::default(); partitions],
                ..InputSums::default()
            },
            last_seq: vec![0; partitions],
            unexplained: Vec::new(),
            on_the_way: HashSet::new(),
            differences: Vec::new(),
            unreadable: Vec::new(),
            is_loader_behind,
            waiting_for_loader: 0,
        };
        let open = |ranges: &[PartitionRange]| ranges.iter().any(|range| range.from < range.to);
        while open(&ranges) {
            reading.chunk(&next_chunk(&mut ranges))?;
        }
        reading.explain()?;
        if is_first {
            reading.rows_beyond()?;
        }
        reading.note(notes);
        // From the first event that is on its way on, everything is compared again next time.
        for range in &ranges {
            let here = reading.on_the_way.iter();
            let here = here.filter(|place| place.0 == range.partition);
            let resume = here.map(|place| place.1).min();
            self.next[range.partition as usize] = resume.unwrap_or(range.to);
        }
        let mut differences = Differences::default();
        for (place, difference) in reading.differences {
            if place.1 < self.next[place.0 as usize] {
                differences.push(difference);
            }
        }
        Ok((reading.sums, differences))
    }
}

/// The next offsets of every partition; `ranges` keep the rest.
fn next_chunk(ranges: &mut [PartitionRange]) -> Vec<PartitionRange> {
    let open = ranges.iter().filter(|range| range.from < range.to).count();
    let share = (CHUNK / i64::try_from(open.max(1)).unwrap_or(CHUNK)).max(1);
    let mut chunk = Vec::with_capacity(open);
    for range in ranges {
        if range.from < range.to {
            let to = range.to.min(range.from + share);
            chunk.push(PartitionRange { to, ..*range });
            range.from = to;
        }
    }
    chunk
}

struct Reading<'a> {
    context: &'a Context<'a>,
    books: PriceBooks<'a>,
    sums: InputSums,
    /// By home partition, the commit of the row that was seen last.
    last_seq: Vec<u64>,
    unexplained: Vec<WithoutRow>,
    on_the_way: HashSet<Place>,
    differences: Vec<(Place, Difference)>,
    unreadable: Vec<Unreadable>,
    is_loader_behind: bool,
    waiting_for_loader: u64,
}

impl Reading<'_> {
    fn chunk(&mut self, ranges: &[PartitionRange]) -> Result<(), AuditError> {
        let mut rows = self.rows(ranges)?;
        let mut without_row = Vec::new();
        let mut failed = Ok(());
        let topic = &self.context.topics.usage;
        let missed = self.context.read_around(topic, ranges, &mut |record| {
            let row = rows.remove(&(record.partition, record.offset));
            match self.take(record, row) {
                Ok(event) => without_row.extend(event),
                Err(failure) => {
                    failed = Err(failure);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        // Rows of events that were counted before their batch was damaged.
        rows.retain(|place, _| !missed.iter().any(|lost| is_within(*place, lost)));
        self.unreadable.extend(missed);
        for (place, found) in rows {
            let detail = format!("there is no event at usage {}@{}", place.0, place.1);
            self.not_from_input(place, &found.row, detail);
        }
        self.leave_out_duplicates(&mut without_row)?;
        self.unexplained.extend(without_row);
        if self.unexplained.len() >= UNEXPLAINED {
            self.explain()?;
        }
        Ok(())
    }

    /// Compares a record with its row; gives it back where it should have one.
    fn take(
        &mut self,
        record: &InputRecord<'_>,
        row: Option<FoundRow>,
    ) -> Result<Option<WithoutRow>, AuditError> {
        self.sums.records += 1;
        let place = (record.partition, record.offset);
        let at = UnixMillis(record.timestamp_millis);
        let headers: Vec<(&str, &[u8])> = record.headers.iter().collect();
        let event = match decode(record.value.unwrap_or_default(), &headers, at) {
            Ok(event) => event,
            Err(rejection) => {
                if let Some(found) = row {
                    let detail = format!("usage {}@{} is no event: {rejection}", place.0, place.1);
                    self.not_from_input(place, &found.row, detail);
                }
                return Ok(Some(WithoutRow {
                    place,
                    at,
                    site: (place.0, self.last_seq[place.0 as usize]),
                    tally: Tally::new(1, Nanos::ZERO),
                    key: None,
                }));
            }
        };
        let home = event.home(self.sums.homes.len() as u32);
        match row {
            Some(found) => {
                self.with_row(place, &event, home, &found)?;
                Ok(None)
            }
            None if event.body == Body::SessionEnd => {
                self.sums.session_ends += 1;
                Ok(None)
            }
            None => Ok(Some(WithoutRow {
                place,
                at,
                site: (home, self.last_seq[home as usize]),
                tally: Tally::new(1, self.books.latest_price(&event)),
                key: Some(EventKey {
                    workspace: event.attribution.workspace.clone().into_owned(),
                    source: event.source.clone().into_owned(),
                    id: event.id.clone().into_owned(),
                }),
            })),
        }
    }

    fn note(&self, notes: &mut Vec<Note>) {
        if self.waiting_for_loader > 0 {
            notes.push(Note::behind(format!(
                "{} events without a row: the loader is behind",
                self.waiting_for_loader
            )));
        }
        let on_the_way = self.on_the_way.len() as u64 - self.waiting_for_loader;
        if on_the_way > 0 {
            notes.push(Note::new(format!(
                "{on_the_way} events are on the way to their home partition"
            )));
        }
        for lost in &self.unreadable {
            notes.push(Note::new(format!("not comparable: {lost}")));
        }
        for version in self.books.unknown() {
            notes.push(Note::new(format!(
                "costs of rows by price book {version}: not comparable, it is neither in the prices topic nor in this program"
            )));
        }
    }
}

fn is_within((partition, offset): Place, lost: &Unreadable) -> bool {
    partition == lost.partition && (lost.from..lost.to).contains(&offset)
}
