//! One partition of the meter stage: decode, route, price, count.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::{
    InputProgress, InputRecord, LogicError, Outputs, PartitionLogic, RestoreSource, Unreadable,
};
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Body, Call, Event, Flags, RejectReason, Rejection, decode};
use spendfuse_domain::recovered::RECOVERED_KEY;
use spendfuse_domain::row::{Origin, SpendRow};
use spendfuse_domain::verdict::Stage;
use spendfuse_domain::{Nanos, Topics, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, Rows};
use spendfuse_pricing::{PriceBook, Pricer};
use spendfuse_warehouse::block::{RowFormat, SpendBlock};

use super::broken;
use super::rejects::{BACKFILL, Handover, RejectedRecord, VERIFIED_LATE, headers_of};
use super::settled::SettledCalls;
use super::tallies::Tallies;
use super::{CORRECTIONS, REROUTED, USAGE};
use crate::heartbeat::Watermark;
use crate::publish::{BLOCK_BYTES, LINKS_KEY, RowLinks};
use crate::tables::Tables;
use crate::unreadable;

const SPEND_TABLE: &str = "spend";

/// One partition of the meter stage.
pub struct MeterPartition {
    pub(super) config: MeterConfig,
    pub(super) topics: Arc<Topics>,
    pub(super) tables: Arc<Tables>,
    pub(super) meter: Meter,
    pricer: Pricer,
    pub(super) seq: u64,
    pub(super) watermark: Watermark,
    pub(super) rows: SpendRows,
    // The running batch:
    pub(super) handovers: Vec<Handover>,
    pub(super) rejects: Vec<RejectedRecord>,
    pub(super) settled: SettledCalls,
    pub(super) tallies: Tallies,
}

/// Rows of the running commit, as finished records and a block in the making.
pub struct SpendRows {
    block: SpendBlock,
    pub(super) finished: Vec<Vec<u8>>,
    pub(super) links: RowLinks,
    partition: u32,
    seq: u64,
}

/// Who says that an event was not counted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// The meter's memory.
    Here,
    /// The warehouse, of an event that was late (`dlq replay --verify`).
    Late,
    /// The warehouse, as far as it was at this time, of history (`ingest --backfill`).
    History(UnixMillis),
}

impl Judged {
    fn of(headers: &[(&str, &[u8])]) -> Self {
        let value = |wanted| headers.iter().find(|(name, _)| *name == wanted);
        // A time that cannot be read is none.
        let history =
            value(BACKFILL).and_then(|(_, at)| std::str::from_utf8(at).ok()?.parse().ok());
        match (history, value(VERIFIED_LATE)) {
            (Some(at), _) => Self::History(UnixMillis(at)),
            (None, Some(_)) => Self::Late,
            (None, None) => Self::Here,
        }
    }
}

impl MeterPartition {
    /// A partition with nothing restored yet.
    pub fn new(config: MeterConfig, topics: Arc<Topics>, tables: Arc<Tables>) -> Self {
        let budgets = tables.budgets.load_full();
        let pricer = Pricer::new(tables.prices.load_full(), Arc::clone(&tables.policy));
        let block = SpendBlock::new(topics.usage.as_str());
        let mut block = block.with_corrections(topics.corrections.as_str());
        let mut inputs = vec![topics.usage.as_str(), &topics.rerouted];
        if tables.takes_corrections.load(Ordering::Relaxed) {
            inputs.push(&topics.corrections);
        }
        block.set_format(tables.row_format);
        let mut meter = Meter::new(config.clone(), budgets);
        if tables.row_format == RowFormat::Schema1 {
            meter.count_first_events_alone();
        }
        Self {
            meter,
            pricer,
            seq: 0,
            watermark: Watermark::new(Stage::Meter, config.partition, &inputs),
            rows: SpendRows {
                block,
                finished: Vec::new(),
                links: RowLinks::default(),
                partition: config.partition,
                seq: 0,
            },
            handovers: Vec::new(),
            rejects: Vec::new(),
            settled: SettledCalls::default(),
            tallies: Tallies::default(),
            config,
            topics,
            tables,
        }
    }

    /// The state machine, for audits and tests.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Between batches: takes over new budgets and prices.
    pub fn use_tables(&mut self, budgets: &Arc<BudgetBook>, prices: &Arc<PriceBook>) {
        // Not by version: those of a topic that was made anew begin again.
        if !Arc::ptr_eq(budgets, self.meter.book()) {
            self.meter.set_book(Arc::clone(budgets));
            // Whoever waits for the budgets to be in force learns it.
            self.watermark.announce();
        }
        if self.meter.is_reconsidering() {
            // Changed session budgets are judged at once, a slice with every batch and many times a
            // second, not at the next tick.
            self.meter.advance(self.meter.now());
        }
        if prices.version() != self.pricer.version() {
            self.pricer = Pricer::new(Arc::clone(prices), Arc::clone(&self.tables.policy));
        }
    }

    fn take_in(&mut self, record: &InputRecord<'_>) {
        let origin = Handover::origin_of(record);
        let headers = headers_of(record);
        let value = record.value.unwrap_or_default();
        let mut event = match decode(value, &headers, origin.arrival) {
            Ok(event) => event,
            Err(rejection) => return self.set_aside(record, &rejection),
        };
        let home = event.home(self.config.partitions);
        if is_broken(Break::DedupeBeforeRerouting) && !broken::judge_first(record, &mut event, home)
        {
            return;
        }
        if record.topic_index == USAGE && home != self.config.partition {
            self.handovers.push(Handover::of(record, home));
            return;
        }
        if let Err(rejection) = self.count(&event, origin, Judged::of(&headers)) {
            self.set_aside(record, &rejection);
        }
    }

    fn count(
        &mut self,
        event: &Event<'_>,
        origin: Origin,
        judged: Judged,
    ) -> Result<(), Rejection> {
        let charge = match &event.body {
            Body::Usage(call) => {
                let who = &event.attribution;
                let priced = self
                    .pricer
                    .price(&who.provider, &who.account, call, &who.model, event.time)
                    .map_err(|error| Rejection::new(RejectReason::BadMoney, error.to_string()))?;
                let told =
                    self.pricer
                        .told(&who.provider, &who.account, call, &who.model, event.time);
                Charge {
                    cost: priced.parts,
                    at_ceiling: priced.at_ceiling,
                    priced: priced.basis,
                    flags: priced.flags,
                    price_version: told.version,
                    priced_as: told.priced_as,
                    price_detail: told.detail,
                }
            }
            Body::Revenue(_) | Body::SessionEnd => Charge::default(),
        };
        let rows = &mut self.rows;
        let meter = &mut self.meter;
        let counted = match judged {
            Judged::Here => meter.count(event, &charge, origin, rows),
            Judged::Late => meter.count_verified(event, &charge, origin, rows),
            Judged::History(at) => meter.count_history(event, &charge, origin, at, rows),
        };
        let cost = charge.cost.total();
        // Of several instruments not the first may be the one that knows of the reservation.
        if let Counted::AtAddress(_) | Counted::Grown(_) | Counted::Echo = counted
            && let Body::Usage(call) = &event.body
            && !call.reservation_id.is_empty()
            && !matches!(judged, Judged::History(_))
        {
            self.tell_settled(call, cost, origin);
        }
        match (counted, &event.body) {
            (Counted::Duplicate, _) => self.tallies.duplicates += 1,
            (Counted::Conflict, _) => self.tallies.conflicts += 1,
            (Counted::Grown(_), _) => self.tallies.grown += 1,
            (Counted::Echo, _) => self.tallies.echoes += 1,
            (Counted::SessionEnded, _) => self.tallies.session_ends += 1,
            (Counted::AtAddress(_), Body::Revenue(_) | Body::SessionEnd) => {
                self.tallies.revenue += 1;
            }
            (Counted::AtAddress(_), Body::Usage(_)) => {
                let is_partly_read = event.flags.contains(Flags::PARTLY_READ);
                self.tallies.usage += 1;
                self.tallies.partly_read += u64::from(is_partly_read);
            }
            (Counted::Late, _) => {
                let detail = match judged {
                    Judged::History(at) => format!(
                        "judged against the warehouse of {at}, but what was counted since then is not all remembered; the same `spendfuse ingest --backfill` again counts it if the warehouse does not know it",
                    ),
                    _ => format!(
                        "time {} lies further before the arrival at {} than the dedupe horizon; `spendfuse dlq replay --verify` counts it if the warehouse does not know it",
                        event.time, origin.arrival
                    ),
                };
                self.meter.tell_of_late(event, origin);
                return Err(Rejection::new(RejectReason::Late, detail));
            }
        }
        Ok(())
    }

    fn tell_settled(&mut self, call: &Call<'_>, cost: Nanos, origin: Origin) {
        if self.tables.tells_settled.load(Ordering::Relaxed) {
            let spend = Spend::of_call(cost, call.tokens.total());
            self.settled.add(&call.reservation_id, &spend, origin);
        }
    }

    fn set_aside(&mut self, record: &InputRecord<'_>, rejection: &Rejection) {
        // Late ones are told of where it is known whose they are.
        if rejection.reason != RejectReason::Late {
            let origin = Handover::origin_of(record);
            self.meter.tell_of_rejected(rejection, origin);
        }
        self.rejects
            .push(RejectedRecord::of(record, rejection, &self.topics));
    }
}

impl PartitionLogic for MeterPartition {
    fn restore(
        &mut self,
        source: RestoreSource,
        key: &[u8],
        value: Option<&[u8]>,
        _timestamp_millis: i64,
    ) -> Result<(), LogicError> {
        let restored = match (source, value) {
            (RestoreSource::History(_), _) if is_broken(Break::DedupeNotRestored) => Ok(()),
            (RestoreSource::History(_), Some(value)) => self.meter.restore_ids(value),
            (RestoreSource::History(_), None) => Ok(()),
            (RestoreSource::Changelog, Some(value)) if key == LINKS_KEY => {
                return self.rows.links.restore(value);
            }
            (RestoreSource::Changelog, value) => self.meter.restore(key, value),
        };
        restored.map_err(|error| LogicError::Fatal(error.to_string()))
    }

    fn restored_time(&self) -> Option<i64> {
        Some(self.meter.now().0).filter(|time| *time > 0)
    }

    fn history(&mut self, _index: usize, complete_since_millis: i64) {
        self.meter
            .remembers_since(UnixMillis(complete_since_millis));
    }

    fn restored(&mut self, _seq: u64) -> Result<(), LogicError> {
        self.meter.restored();
        Ok(())
    }

    /// Nothing is counted before the budgets are known that the restored state was made with.
    fn ready(&mut self) -> Result<bool, LogicError> {
        Ok(self
            .tables
            .need_budgets(self.meter.required_budget_version()))
    }

    fn begin(&mut self, seq: u64, now_millis: i64) {
        self.seq = seq;
        self.watermark.begin(now_millis);
        self.rows.seq = seq;
        self.meter.begin(seq);
        self.meter.set_present(UnixMillis(now_millis));
    }

    fn process(&mut self, record: &InputRecord<'_>) -> Result<(), LogicError> {
        debug_assert!([USAGE, REROUTED, CORRECTIONS].contains(&record.topic_index));
        let log_time = UnixMillis(record.timestamp_millis);
        self.watermark
            .processed(record.topic_index, record.offset, log_time);
        match record.topic_index {
            CORRECTIONS if record.key == Some(RECOVERED_KEY) => self.recover(record),
            CORRECTIONS => self.correct(record),
            _ => self.take_in(record),
        }
        Ok(())
    }

    fn reject(&mut self, record: &InputRecord<'_>, reason: &str) -> Result<(), LogicError> {
        match record.topic_index {
            CORRECTIONS => Self::refuse(record, "internal_error", reason),
            _ => self.set_aside(record, &Rejection::new(RejectReason::InternalError, reason)),
        }
        Ok(())
    }

    fn unreadable(&mut self, _topic_index: usize, lost: &Unreadable) -> Result<(), LogicError> {
        self.rejects.push(RejectedRecord::unreadable(lost));
        let alert = unreadable::alert(lost, self.meter.now());
        self.meter.tell(alert);
        Ok(())
    }

    fn tick(&mut self, now_millis: i64, inputs: &[InputProgress]) {
        self.watermark.tick(now_millis, inputs);
        for alert in self.watermark.take_alerts() {
            self.meter.tell(alert);
        }
        self.meter.advance(self.watermark.complete_to());
    }

    fn next_due(&self) -> Option<i64> {
        self.meter.next_due().map(|time| time.0)
    }

    fn has_output(&self) -> bool {
        self.watermark.is_due() || self.meter.has_output()
    }

    fn clear_metrics(&self) {
        self.watermark.clear_metrics();
        self.show_sizes(0, 0);
    }

    fn finish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        self.rows.close_block();
        self.publish(outputs)?;
        self.tallies.export();
        Ok(())
    }
}

impl Rows for SpendRows {
    fn push(&mut self, row: &SpendRow<'_>) {
        self.block.push(row);
        if self.block.bytes_estimate() >= BLOCK_BYTES {
            self.close_block();
        }
    }
}

impl SpendRows {
    fn close_block(&mut self) {
        if self.block.rows() == 0 {
            return;
        }
        let link = self.links.next(SPEND_TABLE, self.partition, self.seq);
        self.finished.extend(self.block.finish_record(link));
    }
}
