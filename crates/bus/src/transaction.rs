//! A transactional producer whose steps are named, timed and drained.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_broken::{Break, is_broken};

use crate::config::KafkaConfig;
use crate::context::{FailureContext, delivery_error};
use crate::error::BusError;
use crate::native::{self, PatientCaller, Poller};
use crate::outputs::OutputSink;

/// One transactional producer. After any error it must be dropped: the transaction's outcome may
/// be unknown, and going on with the same client can tear the next one.
pub(crate) struct TransactionalProducer {
    producer: Arc<BaseProducer<FailureContext>>,
    timeout: Duration,
    /// Where the changelog goes outside of transactions: only where that is broken on purpose.
    outside: Option<BaseProducer<FailureContext>>,
    is_fencing: Cell<bool>,
    patience: Duration,
    offsets_sender: PatientCaller<KafkaResult<()>>,
}

/// What a call gets beyond its own time-out, before it is given up.
const GRACE: Duration = Duration::from_secs(1);

impl TransactionalProducer {
    /// Creates the client and fences whoever used the same id before; its open transaction is
    /// aborted. Waits for the broker at most `patience`.
    pub(crate) fn open(
        kafka: &KafkaConfig,
        transactional_id: &str,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Self, BusError> {
        let config = kafka.transactional(transactional_id, timeout)?;
        let producer = BaseProducer::from_config_and_context(&config, FailureContext::default())
            .map_err(BusError::Client)?;
        let producer = native::keep(producer, &config)?;
        let outside = match is_broken(Break::ChangelogOutsideTransaction) {
            false => None,
            true => {
                let made = BaseProducer::from_config_and_context(
                    &kafka.producer()?,
                    FailureContext::default(),
                );
                Some(made.map_err(BusError::Client)?)
            }
        };
        let opened = Self {
            producer,
            timeout,
            outside,
            is_fencing: Cell::new(false),
            patience,
            offsets_sender: PatientCaller::new(),
        };
        if !is_broken(Break::InitAfterRestore) {
            opened.fence_predecessors()?;
        }
        Ok(opened)
    }

    /// Fences whoever used the same id before, once.
    pub(crate) fn fence_predecessors(&self) -> Result<(), BusError> {
        if !self.is_fencing.replace(true) {
            self.producer
                .init_transactions(self.patience)
                .map_err(self.step("init_transactions"))?;
        }
        Ok(())
    }

    /// Begins a transaction; local, no request.
    pub(crate) fn begin(&self) -> Result<(), BusError> {
        self.producer
            .begin_transaction()
            .map_err(self.step("begin_transaction"))
    }

    /// Adds the consumer's offsets. The group metadata, read after the last poll, carries the
    /// generation that fences a worker whose partitions have moved.
    pub(crate) fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        member: &Poller,
    ) -> Result<(), BusError> {
        let group = member
            .consumer()
            .group_metadata()
            .expect("the member has a group id");
        let (producer, timeout) = (Arc::clone(&self.producer), self.timeout);
        let offsets = offsets.clone();
        let sent = self.offsets_sender.call(timeout + GRACE, move || {
            producer.send_offsets_to_transaction(&offsets, &group, timeout)
        });
        match sent {
            Some(sent) => sent.map_err(self.step("send_offsets_to_transaction")),
            None => Err(BusError::TimedOut {
                doing: "adding offsets to a transaction whose coordinator does not answer"
                    .to_owned(),
                after: timeout + GRACE,
            }),
        }
    }

    /// Commits, once every record is acknowledged.
    pub(crate) fn commit(&self) -> Result<(), BusError> {
        self.drain()?;
        self.producer
            .commit_transaction(self.timeout)
            .map_err(self.step("commit_transaction"))?;
        match self.producer.context().take_failure() {
            // Cannot be: a commit with a failed record is refused. But if it were, state and log
            // would differ without anybody knowing.
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Gives the transaction up and the client with it, so that readers need not wait for the
    /// time-out. Where this fails as well, the time-out does it.
    pub(crate) fn abandon(self) {
        if let Err(error) = self.abort() {
            tracing::debug!(error = %error, "a transaction is left to its time-out");
        }
    }

    /// Takes back what was sent.
    pub(crate) fn abort(&self) -> Result<(), KafkaError> {
        self.producer.abort_transaction(self.timeout)
    }

    /// Waits for the acknowledgements before the commit, whose own flush goes in 100 ms steps.
    fn drain(&self) -> Result<(), BusError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            // A failed record stays in flight until its report is polled, so wait in slices.
            let mut drained = native::flush(&self.producer, Duration::from_millis(20));
            self.producer.poll(Duration::ZERO);
            if let Some(outside) = &self.outside {
                drained &= native::flush(outside, Duration::from_millis(20));
                outside.poll(Duration::ZERO);
            }
            if let Some(failure) = self.producer.context().take_failure() {
                return Err(failure);
            }
            if drained {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(BusError::TimedOut {
                    doing: "waiting for acknowledgements".to_owned(),
                    after: self.timeout,
                });
            }
        }
    }

    /// Names the failed step, and prefers the cause (a failed record) over its consequence.
    fn step(&self, step: &'static str) -> impl FnOnce(KafkaError) -> BusError {
        let cause = self.producer.context().take_failure();
        move |error| cause.unwrap_or(BusError::Transaction { step, error })
    }
}

impl OutputSink for TransactionalProducer {
    fn send(
        &mut self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<(), BusError> {
        let partition = partition.cast_signed();
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        record.key = key;
        record.payload = value;
        record.headers = owned_headers(headers);
        let deadline = Instant::now() + self.timeout;
        let producer = match &self.outside {
            Some(outside) if topic.ends_with("changelog") => outside,
            _ => &self.producer,
        };
        loop {
            record = match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, refused)) => {
                    let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !is_full || Instant::now() >= deadline {
                        let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
                        return Err(delivery_error(&error, topic, partition, bytes));
                    }
                    refused
                }
            };
            // Makes room: failed records leave the queue, acknowledged ones do so by themselves.
            self.producer.poll(Duration::from_millis(1));
        }
    }
}

/// Headers in librdkafka's form; `None` where there are none.
pub(crate) fn owned_headers(headers: &[(&str, &[u8])]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.iter().fold(owned, |owned, (key, value)| {
        owned.insert(Header {
            key,
            value: Some(*value),
        })
    }))
}
