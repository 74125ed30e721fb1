//! The input, read again: every event must be a row, a duplicate of one, or in the DLQ, and every
//! row must be an event.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use spendfuse_bus::{InputRecord, PartitionRange, Unreadable};
use spendfuse_domain::event::{Body, Event, decode};
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_engine::audit::{
    CountedRow, Difference, Differences, InputEvent, Kind, Site, Tally, compare_event,
    identity_hash,
};
use spendfuse_warehouse::EventKey;

use crate::auditor::Note;
use crate::context::Context;
use crate::error::AuditError;
use crate::prices::PriceBooks;
use crate::sql;

/// Offsets that are compared at a time, of all partitions together.
const CHUNK: i64 = 50_000;
/// Events without a row that wait for an explanation, at most.
const UNEXPLAINED: usize = 100_000;
const PARTITION: &str = "spendfuse_partition";
const OFFSET: &str = "spendfuse_offset";
const ARRIVED_PARTITION: &str = "spendfuse_arrived_partition";
const ARRIVED_OFFSET: &str = "spendfuse_arrived_offset";

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

/// An event that has no row.
struct WithoutRow {
    place: Place,
    at: UnixMillis,
    /// Its home, and the commit of the row before it there.
    site: (u32, u64),
    tally: Tally,
    key: Option<EventKey>,
}

struct FoundRow {
    row: CountedRow,
    /// Cost by the app's own figure.
    is_reported: bool,
    price_version: u32,
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

    /// The rows whose events lie in `ranges`.
    fn rows(&mut self, ranges: &[PartitionRange]) -> Result<HashMap<Place, FoundRow>, AuditError> {
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

    fn with_row(
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

    fn not_from_input(&mut self, place: Place, row: &CountedRow, detail: String) {
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

    /// Leaves out events whose identity the warehouse knows from another record.
    fn leave_out_duplicates(&mut self, events: &mut Vec<WithoutRow>) -> Result<(), AuditError> {
        let keys: Vec<EventKey> = events.iter().filter_map(|one| one.key.clone()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let context = self.context;
        let known = context.wait(context.warehouse.contains_events(&keys))?;
        let before = events.len();
        events.retain(|one| one.key.as_ref().is_none_or(|key| !known.contains(key)));
        self.sums.duplicates += (before - events.len()) as u64;
        Ok(())
    }

    /// Looks for what has no row in the DLQ and on the way to its home partition; the rest is
    /// missing.
    fn explain(&mut self) -> Result<(), AuditError> {
        let mut events: HashMap<Place, WithoutRow> = self
            .unexplained
            .drain(..)
            .map(|event| (event.place, event))
            .collect();
        if events.is_empty() {
            return Ok(());
        }
        let since = events.values().map(|event| event.at.0).min();
        let topics = &self.context.topics;
        let rejected = &mut self.sums.rejected;
        self.context.read_since(&topics.dlq, since, |record| {
            let place = place_in(record, PARTITION, OFFSET);
            if place.is_some_and(|place| events.remove(&place).is_some()) {
                *rejected += 1;
            }
        })?;
        let mut not_at_home = events.values();
        if not_at_home.any(|event| event.site.0 != event.place.0) {
            self.leave_out_on_the_way(&mut events, since)?;
        }
        for (place, event) in events {
            if self.is_loader_behind {
                self.waiting_for_loader += 1;
                self.on_the_way.insert(place);
                continue;
            }
            let id = event.key.map_or_else(
                || "a record that is no event".to_owned(),
                |key| format!("event {} of {}", key.id, key.source),
            );
            let difference = Difference {
                kind: Kind::NotCounted,
                site: Site::Meter(event.site.0),
                seq: Some(event.site.1),
                expected: event.tally,
                found: Tally::default(),
                detail: format!(
                    "{id} at usage {}@{}, after commit {}: no row, no duplicate, not in the DLQ",
                    place.0, place.1, event.site.1
                ),
            };
            self.differences.push((place, difference));
        }
        Ok(())
    }

    /// Events that were handed over, and that their home partition has not processed yet.
    fn leave_out_on_the_way(
        &mut self,
        events: &mut HashMap<Place, WithoutRow>,
        since: Option<i64>,
    ) -> Result<(), AuditError> {
        let rerouted = &self.context.topics.rerouted;
        let processed = self.context.processed(rerouted)?;
        let on_the_way = &mut self.on_the_way;
        self.context.read_since(rerouted, since, |record| {
            let Some(place) = place_in(record, ARRIVED_PARTITION, ARRIVED_OFFSET) else {
                return;
            };
            let next = processed.get(record.partition as usize).copied().flatten();
            if record.offset >= next.unwrap_or(0) && events.remove(&place).is_some() {
                on_the_way.insert(place);
            }
        })
    }

    /// Rows whose events lie where the usage topic has not come to.
    fn rows_beyond(&mut self) -> Result<(), AuditError> {
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

fn place_in(record: &InputRecord<'_>, partition: &str, offset: &str) -> Option<Place> {
    let text = |name: &str| std::str::from_utf8(record.headers.get(name)?).ok();
    Some((text(partition)?.parse().ok()?, text(offset)?.parse().ok()?))
}
