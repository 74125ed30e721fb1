//! A membership of the loader's group: reads Kafka, carries out what the protocol decides.
//!
//! Any failure of Kafka ends the session; the next one starts from what is committed. Inserts that
//! were under way are taken up again by their intents.

mod acceptance;
mod restarts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::{LogConsumer, LogConsumerConfig, LogEvent, LogPartition, Place, Shutdown};
use spendfuse_domain::UnixMillis;
use spendfuse_warehouse::migrations::{DEDUPLICATION_SECONDS, DEDUPLICATION_WINDOW};
use spendfuse_warehouse::{Warehouse, WarehouseError};
use tokio::runtime::Handle;

use crate::batch::{Batch, RowsRecord};
use crate::checkpoint::{Checkpoint, Links};
use crate::identity_watch::IdentityWatch;
use crate::inserting::{
    Attempt, InsertGate, WriterStage, chain_ends, insert_until_done, inspect, restore,
};
use crate::lane::{Lane, Pressure};
use crate::metrics as names;
use crate::protocol::{Action, PartitionProtocol, ProtocolRules, StopReason};
use crate::recovery::{StartingPoint, TableFacts, starting_point};
use crate::region::Region;
use crate::standing::{Parts, Standing};
use crate::{AlertSink, LoaderAlert, LoaderConfig, LoaderError};

/// How long to wait for records: while inserts are under way their ends must be seen soon.
const POLL_WORKING: Duration = Duration::from_millis(5);
const POLL_IDLE: Duration = Duration::from_millis(50);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Events taken from the client before the lanes get their turn.
const EVENTS_A_TURN: usize = 1000;
/// How long inserts under way may take when partitions are taken back or the loader ends.
const FAREWELL: Duration = Duration::from_secs(3);
const COUNTERS_EVERY: Duration = Duration::from_secs(5);
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// What a task on the runtime reports.
enum Report {
    Inserted(u64, LogPartition, Result<(), WarehouseError>),
    Inspected(u64, LogPartition, Result<Vec<TableFacts>, WarehouseError>),
    Counters(Result<(BTreeMap<String, u64>, Option<i64>), WarehouseError>),
}

/// What is done with a batch in ClickHouse.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Insert(Attempt),
    Restore,
    Inspect,
    Compare,
}

struct Session<'a> {
    config: &'a LoaderConfig,
    warehouse: &'a Warehouse,
    runtime: &'a Handle,
    alerts: &'a AlertSink,
    consumer: LogConsumer,
    lanes: HashMap<LogPartition, Lane>,
    /// Number of the assignment: reports for earlier ones are void.
    assignment: u64,
    /// Insert counters of the tables as of late, for intents.
    counters: BTreeMap<String, u64>,
    /// When ClickHouse started, by its clock; `None` where inserts go to several replicas.
    server_start: Option<i64>,
    gate: Arc<InsertGate>,
    reports: Receiver<Report>,
    reporter: Sender<Report>,
    parts: &'a Parts,
    standing: Standing,
}

/// Loads until `shutdown` is requested.
pub(crate) fn run(
    config: &LoaderConfig,
    place: &Place,
    warehouse: &Warehouse,
    runtime: &Handle,
    shutdown: &Shutdown,
    alerts: &AlertSink,
    parts: &Parts,
) -> Result<(), LoaderError> {
    let counters = runtime.block_on(warehouse.insert_counters())?;
    let consumer = LogConsumer::open_at(
        place,
        LogConsumerConfig {
            kafka: config.kafka.clone(),
            group_id: config.group_id.clone(),
            instance_id: config.instance_id.clone(),
            topics: vec![config.rows_topic.clone(), config.ledger_rows_topic.clone()],
            session_timeout: config.session_timeout,
            max_poll_interval: config.max_poll_interval,
        },
        REQUEST_TIMEOUT,
        shutdown,
    )?;
    let (reporter, reports) = channel();
    let mut session = Session {
        config,
        warehouse,
        runtime,
        alerts,
        consumer,
        lanes: HashMap::new(),
        assignment: 0,
        counters,
        server_start: runtime.block_on(warehouse.server_start())?,
        gate: Arc::default(),
        reports,
        reporter,
        parts,
        standing: Standing::new(),
    };
    let mut identities = IdentityWatch::new(config, warehouse, runtime, alerts);
    let mut counters_at = Instant::now();
    let mut metrics_at = Instant::now();
    while !shutdown.is_requested() {
        session.read()?;
        session.take_reports()?;
        session.advance_all()?;
        if counters_at.elapsed() >= COUNTERS_EVERY {
            counters_at = Instant::now();
            session.refresh_counters();
        }
        if metrics_at.elapsed() >= METRICS_EVERY {
            metrics_at = Instant::now();
            session.standing.look(&session.consumer, parts);
            session.note_settled();
            identities.turn(session.has_first_partition());
            session.look_for_acceptance()?;
            let now = now();
            session
                .lanes
                .values()
                .for_each(|lane| lane.publish_metrics(now));
        }
    }
    session.finish_work()?;
    session.leave_lanes();
    session.consumer.close(place);
    Ok(())
}

impl Session<'_> {
    /// Takes what the client has, waiting shortly where it has nothing.
    fn read(&mut self) -> Result<(), LoaderError> {
        let working = self.lanes.values().any(|lane| lane.work.is_some());
        let mut timeout = if working { POLL_WORKING } else { POLL_IDLE };
        for _ in 0..EVENTS_A_TURN {
            let assigned = match self.consumer.poll(timeout)? {
                LogEvent::Nothing => return Ok(()),
                LogEvent::Record(holder) => {
                    let record = holder.record();
                    let at = LogPartition {
                        topic_index: record.topic_index,
                        partition: record.partition,
                    };
                    // A record without a value becomes one without a header: it cannot be loaded.
                    let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
                    let offset = record.offset;
                    self.received(at, offset, value);
                    None
                }
                LogEvent::EndOfPartition { at, offset } => {
                    if let Some(lane) = self.lanes.get_mut(&at) {
                        lane.read_to = lane.read_to.max(offset);
                    }
                    None
                }
                LogEvent::Unreadable { at, lost } => {
                    if let Some(lane) = self.lanes.get_mut(&at) {
                        lane.read_to = lane.read_to.max(lost.to);
                    }
                    // Which commits are missing is said by the chain at the next block.
                    (self.alerts)(LoaderAlert::Unreadable(lost));
                    None
                }
                LogEvent::Gone { at, from, to } => {
                    for lane in self.lanes.values_mut() {
                        lane.assigned_again();
                    }
                    if let Some(lane) = self.lanes.get_mut(&at)
                        && lane.protocol.gone(from, to)
                    {
                        lane.log_begins_at(from, to);
                        self.consumer.begin(at, to)?;
                    }
                    None
                }
                LogEvent::Assigned(partitions) => Some(partitions),
                LogEvent::Revoked => Some(Vec::new()),
            };
            if let Some(partitions) = assigned {
                return self.assign(&partitions);
            }
            timeout = Duration::ZERO;
        }
        Ok(())
    }

    fn received(&mut self, at: LogPartition, offset: i64, value: Bytes) {
        let Some(lane) = self.lanes.get_mut(&at) else {
            return;
        };
        lane.read_to = offset + 1;
        let record = RowsRecord::read(offset, now(), value)
            .and_then(|record| of_known_epoch(record, &self.config.known_epochs));
        let Some(broken) = lane.protocol.received(offset, record) else {
            return;
        };
        if !lane.report_broken(offset, &broken) {
            return;
        }
        (self.alerts)(LoaderAlert::BrokenLink {
            topic: lane.topic.clone(),
            partition: at.partition,
            offset,
            broken,
        });
    }

    /// Begins anew with exactly these partitions.
    fn assign(&mut self, partitions: &[LogPartition]) -> Result<(), LoaderError> {
        if !self.consumer.is_lost() {
            self.finish_work()?;
            self.leave_lanes();
        }
        self.lanes.clear();
        self.assignment += 1;
        self.standing.assigned();
        if partitions.is_empty() {
            return Ok(self.consumer.release()?);
        }
        let mut starts = Vec::new();
        for at in partitions {
            let Some(lane) = self.open_lane(*at)? else {
                continue;
            };
            if !lane.protocol.is_stopped() {
                starts.push((*at, lane.read_to));
            }
            self.lanes.insert(*at, lane);
            self.compare_starts(*at);
        }
        Ok(self.consumer.start(&starts)?)
    }

    /// The lane of a partition from what is committed; `None` where it cannot be read.
    fn open_lane(&mut self, at: LogPartition) -> Result<Option<Lane>, LoaderError> {
        let topic = self.topic(at).to_owned();
        let committed = self.consumer.committed(at, REQUEST_TIMEOUT)?;
        let committed = committed.map(|known| (known.offset, known.metadata));
        let (first, _) = self.consumer.bounds(at, REQUEST_TIMEOUT)?;
        let Some(committed) = committed else {
            return self.open_without_offset(at, &topic, first).map(Some);
        };
        let start = match starting_point(committed, first) {
            Ok(start) => start,
            Err(reason) => {
                self.stopped(&topic, at, reason);
                return Ok(None);
            }
        };
        let StartingPoint {
            position,
            checkpoint,
            lost,
        } = start;
        if let Some(intent) = &checkpoint.intent {
            tracing::info!(
                topic,
                partition = at.partition,
                start = position,
                end = intent.end,
                records = intent.records,
                "taking up an interrupted insert"
            );
        }
        let rules = self.rules();
        let mut protocol =
            PartitionProtocol::start(&topic, at.partition, rules, position, checkpoint);
        if let Some(reason) = &lost {
            protocol = protocol.stopped();
            self.stopped(&topic, at, reason.clone());
        }
        let mut lane = Lane::new(at, &topic, protocol, Some(position));
        lane.stopped_by = lost;
        Ok(Some(lane))
    }

    /// The lane of a partition that nobody has loaded from, or whose offsets are gone: what the
    /// warehouse has is told by the warehouse.
    fn open_without_offset(
        &self,
        at: LogPartition,
        topic: &str,
        first: i64,
    ) -> Result<Lane, LoaderError> {
        let (partition, rules) = (at.partition, self.rules());
        let asked = chain_ends(self.warehouse, self.config.epoch, partition, stage_of(at));
        let ends = self.runtime.block_on(asked)?;
        // Asked after the warehouse: everything that it has is before this end.
        let (_, end) = self.consumer.bounds(at, REQUEST_TIMEOUT)?;
        if ends == Links::default() || is_broken(Break::LoaderTrustsOffsetsOnly) {
            let nothing = Checkpoint::default();
            let protocol = PartitionProtocol::start(topic, partition, rules, first, nothing);
            return Ok(Lane::new(at, topic, protocol, None));
        }
        tracing::warn!(
            topic,
            partition,
            from = first,
            to = end,
            "no offset is committed, and the warehouse has rows: looking what is there"
        );
        let accepts_loss = self
            .accepted_gap(topic, partition)?
            .is_some_and(|gap| gap.from == 0 && gap.to >= first);
        let region = Region::without_offsets(end, ends, accepts_loss);
        let nothing = Checkpoint::default();
        let protocol =
            PartitionProtocol::start_with(topic, partition, rules, first, region, nothing);
        Ok(Lane::new(at, topic, protocol, None))
    }

    fn rules(&self) -> ProtocolRules {
        ProtocolRules {
            limits: self.config.limits,
            flush_interval: self.config.flush_interval.as_millis() as i64,
            deduplication_window: DEDUPLICATION_WINDOW,
            deduplication_millis: DEDUPLICATION_SECONDS as i64 * 1000,
            epoch: self.config.epoch,
            content_tokens: self.config.content_tokens,
        }
    }

    fn take_reports(&mut self) -> Result<(), LoaderError> {
        while let Ok(report) = self.reports.try_recv() {
            self.take_report(report)?;
        }
        Ok(())
    }

    fn take_report(&mut self, report: Report) -> Result<(), LoaderError> {
        let (at, action) = match report {
            Report::Counters(Ok((counters, server_start))) => {
                self.parts.clickhouse.ready();
                self.counters = counters;
                if let Some(start) = server_start {
                    self.server_started(start);
                }
                return Ok(());
            }
            // The older figures err on the safe side.
            Report::Counters(Err(error)) => {
                self.parts.clickhouse.not_ready(error.to_string());
                return Ok(());
            }
            Report::Inserted(assignment, ..) | Report::Inspected(assignment, ..)
                if assignment != self.assignment =>
            {
                return Ok(());
            }
            Report::Inserted(_, at, result) => {
                let Some(lane) = self.lanes.get_mut(&at) else {
                    return Ok(());
                };
                lane.work = None;
                let action = match result {
                    Ok(()) => lane.protocol.inserted(),
                    Err(error) => lane.protocol.failed(error),
                };
                (at, action)
            }
            Report::Inspected(_, at, result) => {
                let Some(lane) = self.lanes.get_mut(&at) else {
                    return Ok(());
                };
                lane.work = None;
                let action = match result {
                    Ok(facts) => lane.protocol.inspected(now(), &facts),
                    Err(error) if error.is_final() => lane.protocol.failed(error),
                    Err(error) => return Err(error.into()),
                };
                let outcome = match &action {
                    Some(Action::InsertAgain(_)) => "replayed",
                    Some(Action::Restore(_)) => "restored",
                    Some(Action::Stop(_)) => "doubt",
                    _ => "complete",
                };
                metrics::counter!(
                    names::LOADER_RECOVERIES_TOTAL,
                    "topic" => lane.topic.clone(),
                    "outcome" => outcome
                )
                .increment(1);
                (at, action)
            }
        };
        self.carry_out(at, action)
    }

    fn advance_all(&mut self) -> Result<(), LoaderError> {
        let partitions: Vec<LogPartition> = self.lanes.keys().copied().collect();
        let now = now();
        for at in partitions {
            self.look_again(at)?;
            let Some(lane) = self.lanes.get_mut(&at) else {
                continue;
            };
            let action = lane.protocol.next(now, lane.read_to, &self.counters);
            self.carry_out(at, action)?;
            let pressure = self.lanes.get_mut(&at).and_then(Lane::pressure);
            match pressure {
                Some(Pressure::Pause) => self.consumer.pause(&[at])?,
                Some(Pressure::Resume) => self.consumer.resume(&[at])?,
                None => {}
            }
        }
        Ok(())
    }

    /// Does what the protocol wants until it waits for something.
    fn carry_out(&mut self, at: LogPartition, first: Option<Action>) -> Result<(), LoaderError> {
        let mut next = first;
        while let Some(action) = next.take() {
            match action {
                Action::Commit { offset, metadata } => {
                    self.consumer.commit(at, offset, &metadata)?;
                    next = self.lanes.get_mut(&at).and_then(|lane| {
                        lane.committed = Some(offset);
                        lane.protocol.committed()
                    });
                }
                Action::Insert(batch) => self.begin(at, batch, Work::Insert(Attempt::First)),
                Action::InsertAgain(batch) => self.begin(at, batch, Work::Insert(Attempt::Again)),
                Action::Restore(batch) => self.begin(at, batch, Work::Restore),
                Action::Inspect(batch) => self.begin(at, batch, Work::Inspect),
                Action::Compare(batch) => self.begin(at, batch, Work::Compare),
                Action::Stop(reason) => {
                    let topic = self.topic(at).to_owned();
                    if let Some(lane) = self.lanes.get_mut(&at) {
                        lane.stopped_by = Some(reason.clone());
                    }
                    self.stopped(&topic, at, reason);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, at: LogPartition, batch: Batch, work: Work) {
        let (warehouse, reporter) = (self.warehouse.clone(), self.reporter.clone());
        let (assignment, stage) = (self.assignment, stage_of(at));
        let gate = Arc::clone(&self.gate);
        let task = self.runtime.spawn(async move {
            let report = match work {
                Work::Insert(attempt) => {
                    let done = insert_until_done(&warehouse, &gate, &batch, stage, attempt).await;
                    Report::Inserted(assignment, at, done)
                }
                Work::Restore => {
                    let done = restore(&warehouse, &gate, &batch, stage).await;
                    Report::Inserted(assignment, at, done)
                }
                Work::Inspect | Work::Compare => {
                    let compares_content = work == Work::Compare;
                    let facts = inspect(&warehouse, &batch, stage, compares_content).await;
                    Report::Inspected(assignment, at, facts)
                }
            };
            // Nobody listens any more where the session has ended.
            let _ = reporter.send(report);
        });
        if let Some(lane) = self.lanes.get_mut(&at) {
            lane.work = Some(task);
        }
    }

    fn refresh_counters(&self) {
        let (warehouse, reporter) = (self.warehouse.clone(), self.reporter.clone());
        self.runtime.spawn(async move {
            let asked = async {
                let counters = warehouse.insert_counters().await?;
                Ok((counters, warehouse.server_start().await?))
            };
            let _ = reporter.send(Report::Counters(asked.await));
        });
    }

    /// Gives inserts under way some time, and commits those that end.
    fn finish_work(&mut self) -> Result<(), LoaderError> {
        let deadline = Instant::now() + FAREWELL;
        while self.lanes.values().any(|lane| lane.work.is_some()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.take_report(report)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Commits how far lanes at rest have been read, before they are given up.
    fn leave_lanes(&mut self) {
        for (at, lane) in &mut self.lanes {
            let left = lane.protocol.leave(lane.read_to);
            let Some(Action::Commit { offset, metadata }) = left else {
                continue;
            };
            // Whoever comes next goes on from what is committed.
            if let Err(error) = self.consumer.commit(*at, offset, &metadata) {
                tracing::debug!(topic = lane.topic, %error, "end of the log not committed");
                return;
            }
        }
    }

    fn has_first_partition(&self) -> bool {
        let mut all = self.lanes.keys();
        all.any(|at| at.partition == 0 && stage_of(*at) == WriterStage::Meter)
    }

    fn stopped(&mut self, topic: &str, at: LogPartition, reason: StopReason) {
        let partition = at.partition;
        let sentence = reason.with_way_out(topic, partition);
        tracing::error!(
            topic,
            partition,
            reason = sentence,
            "partition stopped; others go on"
        );
        metrics::gauge!(
            names::LOADER_STOPPED,
            "topic" => topic.to_owned(),
            "partition" => partition.to_string()
        )
        .set(1);
        self.standing.stopped(topic, partition, sentence);
        (self.alerts)(LoaderAlert::Stopped {
            topic: topic.to_owned(),
            partition,
            reason,
        });
    }

    fn topic(&self, at: LogPartition) -> &str {
        match stage_of(at) {
            WriterStage::Meter => &self.config.rows_topic,
            WriterStage::Ledger => &self.config.ledger_rows_topic,
        }
    }
}

/// Rows of an epoch that has other topics would get addresses that others have.
fn of_known_epoch(record: RowsRecord, known: &BTreeSet<u32>) -> Result<RowsRecord, String> {
    let epoch = record.block.epoch;
    match known.is_empty() || known.contains(&epoch) {
        true => Ok(record),
        false => Err(format!(
            "its rows are of epoch {epoch}, but these topics are of {known:?}: they were written \
             before this epoch was recorded; what they hold can only be counted again, in topics \
             that are made anew"
        )),
    }
}

/// The topics are subscribed in this order.
fn stage_of(at: LogPartition) -> WriterStage {
    match at.topic_index {
        0 => WriterStage::Meter,
        _ => WriterStage::Ledger,
    }
}

/// This machine's time when the loader was started, and what has passed since: records that were
/// received before the clock was set back would wait until it is where it was.
fn now() -> UnixMillis {
    static BEGIN: LazyLock<(UnixMillis, Instant)> =
        LazyLock::new(|| (UnixMillis::from(Timestamp::now()), Instant::now()));
    let (began, at) = &*BEGIN;
    began.plus(at.elapsed().as_millis() as i64)
}
