//! A membership of the loader's group: reads Kafka, carries out what the protocol decides.
//!
//! Any failure of Kafka ends the session; the next one starts from what is committed. Inserts that
//! were under way are taken up again by their intents.

mod acceptance;
mod opening;
mod rebuilding;
mod restarts;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use spendfuse_bus::{LogConsumer, LogConsumerConfig, LogEvent, LogPartition, Place, Shutdown};
use spendfuse_domain::UnixMillis;
use spendfuse_warehouse::Warehouse;
use tokio::runtime::Handle;

use crate::batch::RowsRecord;
use crate::healing::InsertGate;
use crate::identity_watch::IdentityWatch;
use crate::lane::{Lane, Pressure, clear_metrics};
use crate::openings::OpeningWatch;
use crate::present::WriterStage;
use crate::protocol::{Action, StopReason};
use crate::standing::{Parts, Standing};
use crate::sums::WholeSums;
use crate::{LoaderConfig, LoaderError, LoaderNews, NewsSink, known_epochs};
use work::{Report, Server};

/// How long to wait for records: while inserts are under way their ends must be seen soon.
const POLL_WORKING: Duration = Duration::from_millis(5);
const POLL_IDLE: Duration = Duration::from_millis(50);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Events taken from the client before the lanes get their turn.
const EVENTS_A_TURN: usize = 1000;
const SERVER_EVERY: Duration = Duration::from_secs(5);
const METRICS_EVERY: Duration = Duration::from_secs(1);

struct Session<'a> {
    config: &'a LoaderConfig,
    warehouse: &'a Warehouse,
    runtime: &'a Handle,
    alerts: &'a NewsSink,
    consumer: LogConsumer,
    lanes: HashMap<LogPartition, Lane>,
    /// Number of the assignment: reports for earlier ones are void.
    assignment: u64,
    /// ClickHouse as of late.
    server: Server,
    /// Epochs whose rows the topics may hold, as the warehouse knows them.
    known_epochs: BTreeSet<u32>,
    gate: Arc<InsertGate>,
    /// In this run of the server.
    whole_sums: Arc<WholeSums>,
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
    alerts: &NewsSink,
    parts: &Parts,
) -> Result<(), LoaderError> {
    let server = runtime.block_on(Server::ask(warehouse))?;
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
        server,
        known_epochs: runtime.block_on(known_epochs(config, warehouse))?,
        gate: Arc::default(),
        whole_sums: Arc::default(),
        reports,
        reporter,
        parts,
        standing: Standing::new(),
    };
    let mut identities = IdentityWatch::new(config, warehouse, runtime, alerts);
    let mut openings = OpeningWatch::new(config, warehouse, runtime);
    let mut server_at = Instant::now();
    let mut metrics_at = Instant::now();
    while !shutdown.is_requested() {
        session.read()?;
        session.take_reports()?;
        session.advance_all()?;
        if server_at.elapsed() >= SERVER_EVERY {
            server_at = Instant::now();
            session.ask_server();
        }
        if metrics_at.elapsed() >= METRICS_EVERY {
            metrics_at = Instant::now();
            session.standing.look(&session.consumer, parts);
            session.note_settled();
            identities.turn(session.has_first_partition());
            openings.turn(session.has_first_partition() && !session.lacks_rows());
            session.look_for_acceptance()?;
            let now = now();
            session
                .lanes
                .values_mut()
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
                    let (offset, log_time) = (record.offset, UnixMillis(record.timestamp_millis));
                    self.received(at, offset, log_time, value);
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
                    (self.alerts)(LoaderNews::Unreadable(lost));
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

    fn received(&mut self, at: LogPartition, offset: i64, log_time: UnixMillis, value: Bytes) {
        let Some(lane) = self.lanes.get_mut(&at) else {
            return;
        };
        lane.received(offset, log_time);
        let record = RowsRecord::read(offset, now(), value)
            .and_then(|record| of_known_epoch(record, &self.known_epochs));
        let Some(broken) = lane.protocol.received(offset, record) else {
            return;
        };
        if !lane.report_broken(offset, &broken) {
            return;
        }
        (self.alerts)(LoaderNews::BrokenLink {
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
        let names = partitions.iter();
        let names = names.map(|at| (self.topic(*at).to_owned(), at.partition));
        for (topic, partition) in self.parts.assigned(names.collect()) {
            clear_metrics(&topic, partition);
        }
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
            self.compare_runs(*at);
        }
        Ok(self.consumer.start(&starts)?)
    }

    fn advance_all(&mut self) -> Result<(), LoaderError> {
        let partitions: Vec<LogPartition> = self.lanes.keys().copied().collect();
        let now = now();
        for at in partitions {
            self.look_again(at)?;
            let Some(lane) = self.lanes.get_mut(&at) else {
                continue;
            };
            let action = lane.protocol.next(now, lane.read_to, &self.server.counters);
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

    /// Whether rows that are committed as loaded may be missing: the warehouse was set back, or is being
    /// compared with the log.
    fn lacks_rows(&self) -> bool {
        self.lanes.values().any(|lane| {
            let is_behind = matches!(lane.stopped_by, Some(StopReason::Behind { .. }));
            let protocol = &lane.protocol;
            is_behind || protocol.is_looking() && !protocol.looks_without_offsets()
        })
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
        self.standing.stopped(topic, partition, sentence);
        (self.alerts)(LoaderNews::Stopped {
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
