//! One life of a worker: from connecting to an error or the request to stop.

mod assignment;
mod lost_input;
mod not_yet;
mod ticks;

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use super::batch::{Batch, Slot};
use super::broken;
use super::clock::LogClock;
use super::config::StageConfig;
use super::kept::Kept;
use super::logic::{PartitionLogic, StageLogic};
use super::membership::taken_over;
use super::observer::StageObserver;
use super::position::POSITION_KEY;
use super::progress::LogEnds;
use super::standing::Standing;
use super::suspicion::{Doing, Suspicion};
use crate::config::Membership;
use crate::error::{BusError, LogicError};
use crate::metrics::{STAGE_COMMIT_SECONDS, STAGE_COMMITS, STAGE_RECORDS, STAGE_REJECTED};
use crate::native::{Message, Polled, Poller, TopicPartition};
use crate::outputs::{OutputSink, Outputs};
use crate::place::Place;
use crate::shutdown::Shutdown;
use crate::topics::partition_counts;
use crate::transaction::TransactionalProducer;

/// How long a life waits for a broker that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for input before looking for other work.
const IDLE: Duration = Duration::from_millis(50);

/// Lives until `shutdown` (`Ok`) or an error.
pub(super) fn live<L: StageLogic>(
    config: &StageConfig,
    place: &Place,
    stage: &mut L,
    suspicion: &mut Suspicion,
    clock: &mut LogClock,
    shutdown: &Shutdown,
    observer: &dyn StageObserver,
) -> Result<(), BusError> {
    let poller = Poller::new(&config.kafka.member(&Membership {
        group_id: &config.group_id,
        instance_id: &config.instance_id,
        session_timeout: config.session_timeout,
        max_poll_interval: config.max_poll_interval,
    })?)?;
    check_topics(config, &poller)?;
    place.settle(&poller, &config.inputs, config.session_timeout, shutdown)?;
    let log_ends = LogEnds::open(config)?;
    let producer = open_producer(config)?;
    let inputs: Vec<&str> = config.subscribed().map(String::as_str).collect();
    poller
        .consumer()
        .subscribe(&inputs)
        .map_err(crate::native::request("subscribing to the inputs"))?;
    let ended = Worker {
        config,
        stage,
        suspicion,
        clock,
        shutdown,
        observer,
        poller: &poller,
        log_ends: &log_ends,
        producer,
        slots: Vec::new(),
        kept: Vec::new(),
        slot_of: vec![None; config.partitions as usize],
        batch: Batch::default(),
        last_write: None,
        next_tick: Instant::now() + config.tick_every,
        asked_at: Instant::now(),
        standing: Standing::new(),
    }
    .run();
    log_ends.close();
    if shutdown.is_requested() {
        place.give_up(&poller);
    }
    ended
}

/// A producer of the worker's id; whoever had it before is fenced.
pub(super) fn open_producer(config: &StageConfig) -> Result<TransactionalProducer, BusError> {
    TransactionalProducer::open(
        &config.kafka,
        &config.transactional_id,
        config.transaction_timeout,
        config.transaction_timeout * 2,
    )
}

/// All topics are there, with the right number of partitions where that matters.
fn check_topics(config: &StageConfig, poller: &Poller) -> Result<(), BusError> {
    let client = poller.consumer().client();
    let existing = partition_counts(client, &config.kafka.brokers, PATIENCE)?;
    let history = config.history.iter().map(|history| &history.topic);
    let co_partitioned = config
        .inputs
        .iter()
        .chain([&config.changelog])
        .chain(history);
    for topic in co_partitioned.clone().chain(&config.outputs) {
        if !existing.contains_key(topic) {
            return Err(BusError::TopicMissing {
                topic: topic.clone(),
            });
        }
    }
    for topic in co_partitioned {
        if existing[topic] != config.partitions {
            return Err(BusError::PartitionCount {
                topic: topic.clone(),
                found: existing[topic],
                expected: config.partitions,
            });
        }
    }
    Ok(())
}

struct Worker<'w, L: StageLogic> {
    config: &'w StageConfig,
    stage: &'w mut L,
    suspicion: &'w mut Suspicion,
    clock: &'w mut LogClock,
    shutdown: &'w Shutdown,
    observer: &'w dyn StageObserver,
    poller: &'w Poller,
    log_ends: &'w LogEnds,
    producer: TransactionalProducer,
    slots: Vec<Slot<L::Partition>>,
    /// What was taken back and may come again.
    kept: Vec<Kept<L::Partition>>,
    /// Index into `slots` by partition.
    slot_of: Vec<Option<usize>>,
    batch: Batch,
    /// One of the partitions of the last commit, and when that was.
    last_write: Option<(u32, Instant)>,
    next_tick: Instant,
    /// When it was last asked whether lost input is accepted.
    asked_at: Instant,
    standing: Standing,
}

impl<L: StageLogic> Worker<'_, L> {
    fn run(mut self) -> Result<(), BusError> {
        let ended = self.take_turns();
        // The next life may be given other partitions.
        self.clear_metrics();
        ended
    }

    fn take_turns(&mut self) -> Result<(), BusError> {
        loop {
            if self.shutdown.is_requested() {
                return self.commit_all();
            }
            let poller = self.poller;
            match poller.poll(self.poll_timeout()) {
                Polled::Record(message) => self.record(&message)?,
                Polled::End { at, offset } => self.end_reached(&at, offset),
                Polled::Nothing => self.drained()?,
                Polled::Assigned(assigned) => self.assigned(assigned)?,
                Polled::Revoked => self.revoked()?,
                Polled::Failed(failure) => self.failed(&failure)?,
            }
            // Between batches only: reading the clock for each record would cost as much as a lookup.
            if self.batch.is_empty() && Instant::now() >= self.next_tick {
                self.tick()?;
            }
        }
    }

    /// Long enough not to spin, short enough not to delay a commit or a tick.
    fn poll_timeout(&self) -> Duration {
        if self.batch.is_empty() {
            IDLE.min(self.next_tick.saturating_duration_since(Instant::now()))
        } else {
            self.batch.patience(self.config)
        }
    }

    fn record(&mut self, message: &Message<'_>) -> Result<(), BusError> {
        let input = self.input_of(message.topic());
        let partition = message.partition().cast_unsigned();
        let slot = self.slot_of.get(partition as usize).copied().flatten();
        // Left over from an assignment that was just replaced.
        let (Some(input), Some(index)) = (input, slot) else {
            return Ok(());
        };
        let record = message.as_input(input);
        let address = (input, partition, record.offset);
        let limit = self.suspicion.limit(address);
        if limit.is_some_and(|limit| self.batch.records >= limit) {
            self.commit_open_batch()?;
        }
        if self.batch.is_empty() {
            self.call_between_batches();
        }
        let slot = &mut self.slots[index];
        if slot.lost.is_some() {
            return Ok(());
        }
        if !slot.begun {
            slot.logic.begin(slot.seq + 1, self.clock.millis());
            slot.begun = true;
        }
        if self.batch.is_empty() {
            self.batch
                .begin(self.clock.millis() - record.timestamp_millis);
        }
        self.batch.add(record.value.map_or(0, <[u8]>::len));
        self.batch.limit = limit.or(self.batch.limit);
        self.suspicion.record(address);
        match self.suspicion.verdict(address) {
            None => match slot.logic.process(&record) {
                Err(LogicError::NotYet(_)) => self.process_later(index, address, &record)?,
                processed => processed?,
            },
            Some(verdict) => {
                let (stage, offset, reason) = (self.config.stage, record.offset, &*verdict.reason);
                tracing::error!(stage, partition, offset, error = reason, "record rejected");
                metrics::counter!(STAGE_REJECTED, "stage" => stage).increment(1);
                let kept = if verdict.is_place_only {
                    record.without_content()
                } else {
                    record
                };
                slot.logic.reject(&kept, reason)?;
            }
        }
        let slot = &mut self.slots[index];
        slot.records += 1;
        slot.next[input] = record.offset + 1;
        slot.ends[input] = None;
        if self.batch.is_full(self.config) {
            self.commit()?;
        }
        Ok(())
    }

    fn input_of(&self, topic: &[u8]) -> Option<usize> {
        let mut inputs = self.config.inputs.iter();
        inputs.position(|input| input.as_bytes() == topic)
    }

    fn end_reached(&mut self, at: &TopicPartition, offset: i64) {
        let slot = self.slot_of.get(at.partition.cast_unsigned() as usize);
        let slot = slot.copied().flatten();
        if let (Some(input), Some(slot)) = (self.input_of(at.topic.as_bytes()), slot) {
            self.slots[slot].ends[input] = Some(offset);
        }
    }

    /// No record waits.
    fn drained(&mut self) -> Result<(), BusError> {
        if !self.batch.is_empty() {
            // `poll_timeout` waited out what was left of `commit_min`.
            return self.commit();
        }
        self.call_between_batches();
        self.commit_if_output()
    }

    fn call_between_batches(&mut self) {
        debug_assert!(self.batch.is_empty());
        self.suspicion.now(Doing::Other);
        let mut partitions = self
            .slots
            .iter_mut()
            .map(|slot| (slot.partition, &mut slot.logic));
        self.stage.between_batches(&mut partitions);
    }

    fn commit_open_batch(&mut self) -> Result<(), BusError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.commit()
    }

    /// Before partitions are given up: the open batch, and the ends of inputs, which an idle partition
    /// would commit later. Nobody may come again before the log's retention has passed.
    fn commit_all(&mut self) -> Result<(), BusError> {
        let is_before_end = self.slots.iter().any(Slot::is_before_end);
        match is_before_end || !self.batch.is_empty() {
            true => self.commit_slots(|slot| slot.has_news() || slot.is_before_end()),
            false => Ok(()),
        }
    }

    fn commit_if_output(&mut self) -> Result<(), BusError> {
        if self.slots.iter().any(|slot| slot.logic.has_output()) {
            self.commit()?;
        }
        Ok(())
    }

    /// Writes what the batch produced, its state and its offsets, all or nothing.
    fn commit(&mut self) -> Result<(), BusError> {
        self.commit_slots(Slot::has_news)
    }

    fn commit_slots(
        &mut self,
        wanted: impl Fn(&Slot<L::Partition>) -> bool,
    ) -> Result<(), BusError> {
        let began = Instant::now();
        let slots = self.slots.iter_mut().filter(|slot| wanted(slot));
        let mut slots: Vec<_> = slots.collect();
        let mut offsets = TopicPartitionList::new();
        for slot in &mut slots {
            slot.pass_markers();
            slot.add_offsets(&self.config.inputs, &mut offsets)?;
        }
        self.suspicion.now(Doing::Committing);
        self.producer.begin()?;
        // First of all: as long as the coordinator still ends the transaction before, it refuses a new
        // one's requests. Offsets it is asked for again after `retry.backoff.ms`; partitions, which
        // librdkafka (2.12.1) registers a millisecond after their first record, only after 20 ms.
        let is_tick = self.batch.is_empty();
        let sent = broken::send_offsets(&self.producer, &offsets, self.poller, is_tick);
        let sent = broken::go_on_after(sent.map_err(|error| taken_over(self.config, error)))?;
        for slot in &mut slots {
            self.suspicion.now(Doing::Finishing(slot.partition));
            if !slot.begun {
                slot.logic.begin(slot.seq + 1, self.clock.millis());
                slot.begun = true;
            }
            let changelog = &self.config.changelog;
            let mut outputs = Outputs::new(&mut self.producer, changelog, slot.partition);
            slot.logic.finish(&mut outputs)?;
            self.suspicion.now(Doing::Other);
            let position = slot.next_position(self.config).encode();
            self.producer.send(
                changelog,
                slot.partition,
                Some(POSITION_KEY),
                Some(&position),
                &[],
            )?;
        }
        self.suspicion.now(Doing::Committing);
        sent.and_then(|()| self.producer.commit())
            .or_else(|error| {
                let failure = taken_over(self.config, error);
                broken::after_failure(&mut self.producer, self.config, failure)
            })?;
        self.suspicion.committed();
        self.last_write = None;
        for slot in slots {
            slot.committed();
            self.last_write = Some((slot.partition, Instant::now()));
        }
        let stage = self.config.stage;
        metrics::counter!(STAGE_COMMITS, "stage" => stage).increment(1);
        metrics::counter!(STAGE_RECORDS, "stage" => stage).increment(self.batch.records as u64);
        self.tick_when_due();
        let took = began.elapsed();
        metrics::histogram!(STAGE_COMMIT_SECONDS, "stage" => stage).record(took.as_secs_f64());
        self.batch.committed(took);
        Ok(())
    }
}
