//! A meter partition with its input position, changelogs and restarts.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::row::{CostParts, Origin, PriceBasis, SpendRow};
use spendfuse_domain::{Filter, Flags, Identity, Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::delta::{CountedThen, Deltas};
use spendfuse_engine::meter::dedupe::RememberedIds;
use spendfuse_engine::meter::{
    Charge, Corrected, Correction, Counted, Meter, MeterConfig, Rows, Standing,
};

use super::fault::Fault;
use super::history::{Became, MeterCommit, SeenRow};
use super::topic::Changelog;
use crate::corrections::{Desk, Made, Stands};
use crate::scenario::{LogEvent, Scenario};

/// Ledger partition and encoded deltas.
type DeltaRecord = (u32, Vec<u8>);

#[derive(Default)]
struct SeenRows(Vec<SeenRow>);

impl Rows for SeenRows {
    fn push(&mut self, row: &SpendRow<'_>) {
        let before = row.amends.map(|amended| &amended.counts);
        self.0.push(SeenRow {
            address: row.address,
            id: row.event.id.to_string(),
            cost: row.cost.total().get() - before.map_or(0, |before| before.cost.total().get()),
        });
    }
}

pub struct MeterWorker {
    pub meter: Meter,
    partition: u32,
    version: usize,
    fault: Option<Fault>,
    /// Places in the scenario's log of this partition's events.
    input: Vec<usize>,
    horizon_millis: i64,
    /// How many of them are committed.
    position: usize,
    seq: u64,
    changelog: Changelog,
    ids: Vec<Vec<u8>>,
    crashes: usize,
    /// What the warehouse knows after the last commit, and after the running one.
    desk: Desk,
    running: Desk,
}

impl MeterWorker {
    pub fn new(scenario: &Scenario, partition: u32, fault: Option<Fault>) -> Self {
        let places = scenario.log.iter().enumerate();
        let input = places
            .filter(|(_, one)| one.event.home(scenario.partitions) == partition)
            .map(|(index, _)| index)
            .collect();
        let mut meter = Meter::new(config(scenario, partition), book(scenario, 0, fault));
        meter.restored();
        Self {
            meter,
            partition,
            version: 0,
            fault,
            input,
            horizon_millis: scenario.horizon_millis,
            position: 0,
            seq: 0,
            changelog: Changelog::default(),
            ids: Vec::new(),
            crashes: 0,
            desk: Desk::default(),
            running: Desk::default(),
        }
    }

    /// Place in the log of the next event.
    pub fn next_event(&self) -> Option<usize> {
        self.input.get(self.position).copied()
    }

    /// Whether no event before `index` is left.
    pub fn is_drained(&self, index: usize) -> bool {
        self.next_event().is_none_or(|next| next >= index)
    }

    pub fn next_events(&self, count: usize, barrier: usize) -> Vec<usize> {
        let rest = self.input[self.position..].iter().copied();
        rest.take_while(|index| *index < barrier)
            .take(count)
            .collect()
    }

    pub fn adopt(&mut self, scenario: &Scenario, version: usize) {
        if self.version != version {
            self.version = version;
            self.meter.set_book(book(scenario, version, self.fault));
        }
    }

    /// Processes `batch`, and time up to `clock` where that passes in the same commit; `None` where there
    /// was nothing to commit.
    pub fn commit(
        &mut self,
        scenario: &Scenario,
        batch: &[usize],
        clock: Option<UnixMillis>,
    ) -> Option<(MeterCommit, Vec<DeltaRecord>)> {
        let (inputs, mut rows) = self.process(scenario, batch, clock);
        if batch.is_empty() && !self.meter.has_output() {
            return None;
        }
        let outputs = self.meter.finish();
        self.seq += 1;
        self.position += batch.len();
        self.desk = self.running.clone();
        self.changelog.append(outputs.told.changelog);
        if !outputs.ids.ids.is_empty() {
            self.ids.push(codec::encode(&outputs.ids));
        }
        if self.fault == Some(Fault::RowTwice)
            && let Some(last) = rows.last().cloned()
        {
            rows.push(last);
        }
        let mut commit = MeterCommit {
            partition: self.partition,
            seq: self.seq,
            now: self.meter.now(),
            is_timely: clock.is_some(),
            version: self.version,
            inputs,
            rows,
            blocklist: outputs.told.blocklist,
            findings: outputs.told.findings,
            alerts: outputs.told.alerts,
        };
        super::ledger_worker::tamper(self.fault, &mut commit.blocklist, &mut commit.findings);
        let deltas = outputs.deltas.iter();
        let records =
            deltas.map(|(ledger, deltas): &(u32, Deltas)| (*ledger, codec::encode(deltas)));
        Some((commit, records.collect()))
    }

    /// Processes part of a batch and crashes: before, within or after the end of the commit.
    pub fn crash_within(
        &mut self,
        scenario: &Scenario,
        batch: &[usize],
        clock: Option<UnixMillis>,
    ) {
        self.process(scenario, batch, clock);
        if self.crashes.is_multiple_of(2) {
            self.meter.finish();
        }
        self.crashes += 1;
        if self.fault == Some(Fault::PositionsOutsideTransaction) {
            self.position += batch.len();
        }
        self.restart(scenario);
    }

    fn process(
        &mut self,
        scenario: &Scenario,
        batch: &[usize],
        clock: Option<UnixMillis>,
    ) -> (Vec<(usize, Became)>, Vec<SeenRow>) {
        let mut rows = SeenRows::default();
        if clock.is_none() && self.meter.is_reconsidering() {
            // As between batches.
            self.meter.advance(self.meter.now());
        }
        self.meter.begin(self.seq + 1);
        self.running = self.desk.clone();
        let mut inputs = Vec::with_capacity(batch.len());
        for index in batch {
            let became = match scenario.log[*index].corrects {
                Some(_) => self.correct(scenario, *index, &mut rows),
                None => Became::Event(self.count(scenario, *index, &mut rows)),
            };
            inputs.push((*index, became));
        }
        let Some(clock) = clock else {
            return (inputs, rows.0);
        };
        let behind = self.input.get(self.position + batch.len());
        let at_end = behind.is_none_or(|next| scenario.log[*next].arrival > clock);
        let watermark = if at_end { clock } else { self.meter.now() };
        self.meter.advance(watermark);
        (inputs, rows.0)
    }

    fn count(&mut self, scenario: &Scenario, index: usize, rows: &mut SeenRows) -> Counted {
        let one = &scenario.log[index];
        let mut event = one.event.clone();
        let is_late = self.meter.now().max(one.arrival).since(event.time) > self.horizon_millis;
        match self.fault {
            Some(Fault::DedupeOff) => event.identity = Identity(index as u128),
            Some(Fault::VoidedCountsAgain) if self.running.is_void(scenario, event.identity) => {
                event.identity = Identity(index as u128);
            }
            Some(Fault::WindowByArrival) if !is_late || one.judged_at.is_some() => {
                event.time = one.arrival
            }
            _ => {}
        }
        let charge = charge(one.cost, one.priced);
        let origin = self.origin(one, index);
        let counted = match one.judged_at {
            Some(judged_at) => self
                .meter
                .count_history(&event, &charge, origin, judged_at, rows),
            None => self.meter.count(&event, &charge, origin, rows),
        };
        match counted {
            Counted::AtAddress(address) => {
                let counted_with = self.version as u64 + 1;
                self.running.counted(index, address, counted_with);
            }
            Counted::Grown(_) => {
                let before = self.running.standing_of(scenario, one.event.identity);
                before.inspect(|before| self.running.grown(index, *before));
            }
            _ => {}
        }
        counted
    }

    fn origin(&self, one: &LogEvent, index: usize) -> Origin {
        Origin {
            partition: self.partition,
            offset: index as i64,
            arrival: one.arrival,
            ..Origin::default()
        }
    }

    fn correct(&mut self, scenario: &Scenario, index: usize, rows: &mut SeenRows) -> Became {
        let Some(made) = self.running.make(scenario, index) else {
            return Became::Nothing;
        };
        let one = &scenario.log[index];
        let original = &scenario.log[made.of];
        let standing = |stands: &Stands| {
            let mut event = stands.event.clone();
            if original.judged_at.is_some() {
                event.flags.insert(Flags::BACKFILLED);
            }
            Standing {
                event,
                charge: charge(stands.cost, stands.priced),
            }
        };
        let before = made.before.as_ref().map(standing);
        let correction = Correction {
            id: &format!("c{index}"),
            identity: match self.fault {
                Some(Fault::CorrectionsForgotten) => Identity(index as u128),
                _ => made.identity,
            },
            content: made.content,
            entry: made.address,
            entry_id: &original.event.id,
            counted: CountedThen {
                budget_version: made.counted_with,
                arrival: original.arrival,
            },
            judged_at: made.judged_at,
            before: before.filter(|_| self.fault != Some(Fault::NothingTakenBack)),
            after: made.after.as_ref().map(standing),
            reason: "somebody: a test",
            is_rerate: made.is_rerate,
        };
        let origin = self.origin(one, index);
        let corrected = self.meter.correct(&correction, origin, rows);
        if let Corrected::Applied { .. } = corrected {
            self.running.applied(Made::clone(&made), one.arrival);
        }
        Became::Correction(corrected)
    }

    fn restart(&mut self, scenario: &Scenario) {
        let book = book(scenario, self.version, self.fault);
        self.meter = Meter::new(config(scenario, self.partition), book);
        self.changelog.compact(self.crashes * 7);
        let lost = match self.fault {
            Some(Fault::RestoreWithoutOneRecord) => self.changelog.records().len() / 2,
            _ => usize::MAX,
        };
        for (index, (key, value)) in self.changelog.records().iter().enumerate() {
            if index != lost {
                self.meter
                    .restore(key, value.as_deref())
                    .expect("own changelog");
            }
        }
        if self.fault != Some(Fault::RestoreWithoutIds) {
            for record in &self.ids {
                restore_ids(&mut self.meter, record, self.fault);
            }
        }
        assert!(self.meter.required_budget_version() <= self.version as u64 + 1);
        self.meter.restored();
    }
}

fn restore_ids(meter: &mut Meter, record: &[u8], fault: Option<Fault>) {
    let mut record = Cow::Borrowed(record);
    if fault == Some(Fault::RestoreWithoutCalls) {
        let mut ids: RememberedIds = codec::decode(&record).expect("own ids changelog");
        ids.calls.clear();
        record = Cow::Owned(codec::encode(&ids));
    }
    meter.restore_ids(&record).expect("own ids changelog");
}

fn charge(cost: CostParts, priced: PriceBasis) -> Charge<'static> {
    let at_ceiling = match priced {
        PriceBasis::Ceiling => cost.total(),
        PriceBasis::Book | PriceBasis::Reported => Nanos::ZERO,
    };
    Charge {
        cost,
        at_ceiling,
        priced,
        price_version: "test",
        ..Charge::default()
    }
}

fn config(scenario: &Scenario, partition: u32) -> MeterConfig {
    MeterConfig {
        partition,
        partitions: scenario.partitions,
        dedupe_horizon_millis: scenario.horizon_millis,
        dedupe_capacity: scenario.dedupe_capacity,
        session_idle_millis: scenario.idle_millis,
        session_capacity: 10_000_000,
    }
}

fn book(scenario: &Scenario, version: usize, fault: Option<Fault>) -> Arc<BudgetBook> {
    let book = scenario.book(version);
    if fault != Some(Fault::SeriesNotFiltered) {
        return book;
    }
    let mut unfiltered = (*book).clone();
    for series in &mut unfiltered.series {
        series.filter = Filter::default();
    }
    Arc::new(unfiltered)
}
