//! Sends usage events: an idempotent producer with acknowledgements and back-pressure, for apps,
//! the sidecar and `ingest`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::config::KafkaConfig;
use crate::context::{LoggingContext, Refused, delivery_error};
use crate::error::BusError;
use crate::metrics::PRODUCER_FAILURES;
use crate::native::{keep, request};
use crate::topics::partition_counts;
use crate::transaction::owned_headers;

/// How long the thread that takes acknowledgements sleeps at most. rdkafka's own threaded producer
/// wakes every 100 ms and spins through the last millisecond of each (0.39): most of what an idle
/// process cost.
const ACKS_WAKE: Duration = Duration::from_secs(5);

/// Bounds of an [`EventProducer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerOptions {
    /// How long a record may wait for its acknowledgement, retries included.
    pub delivery_timeout: Duration,
    /// Records that may wait; more are refused with [`BusError::QueueFull`].
    pub max_queued: u32,
    /// Kibibytes that may wait.
    pub max_queued_kib: u32,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            delivery_timeout: Duration::from_secs(30),
            max_queued: 100_000,
            max_queued_kib: 256 * 1024,
        }
    }
}

/// One record to send.
#[derive(Debug, Clone, Copy)]
pub struct EventRecord<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition; `None` is murmur2 of the key, as Java's clients do, or any without a key.
    pub partition: Option<u32>,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Where an acknowledged record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: i64,
}

/// An idempotent producer; a record is acknowledged once all in-sync replicas have it. Dropped,
/// it forgets within seconds what was not acknowledged: call [`EventProducer::flush`] before.
pub struct EventProducer {
    producer: Arc<BaseProducer<AckContext>>,
    brokers: String,
    /// Tells the thread that takes acknowledgements to end; nobody waits for it.
    dropped: Arc<AtomicBool>,
}

impl EventProducer {
    /// Creates the client; the brokers may be away.
    ///
    /// # Errors
    /// [`BusError::Property`], [`BusError::Client`].
    ///
    /// # Panics
    /// Where the system has no thread left.
    pub fn open(kafka: &KafkaConfig, options: &ProducerOptions) -> Result<Self, BusError> {
        let mut config = kafka.producer()?;
        let timeout = options.delivery_timeout.as_millis().to_string();
        config
            .set("message.timeout.ms", timeout)
            .set(
                "queue.buffering.max.messages",
                options.max_queued.to_string(),
            )
            .set(
                "queue.buffering.max.kbytes",
                options.max_queued_kib.to_string(),
            )
            // librdkafka's own default puts keys elsewhere than Java's clients.
            .set("partitioner", "murmur2_random");
        let context = AckContext::default();
        let producer =
            BaseProducer::from_config_and_context(&config, context).map_err(BusError::Client)?;
        let producer = keep(producer, &config)?;
        let dropped = Arc::new(AtomicBool::new(false));
        let (polled, is_over) = (Arc::clone(&producer), Arc::clone(&dropped));
        thread::Builder::new()
            .name("acks".to_owned())
            .spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    polled.poll(ACKS_WAKE);
                }
            })
            .expect("the system has a thread for a client that has three of its own");
        Ok(Self {
            producer,
            brokers: kafka.brokers.clone(),
            dropped,
        })
    }

    /// Queues a copy of the record and returns at once. `on_ack` is called on the producer's
    /// thread when the record is acknowledged or has failed; not at all where this returns an
    /// error.
    ///
    /// # Errors
    /// [`BusError::QueueFull`] (slow down, then try again), [`BusError::TooLarge`],
    /// [`BusError::Send`].
    pub fn send(
        &self,
        record: &EventRecord<'_>,
        on_ack: impl FnOnce(Result<Delivered, BusError>) + Send + 'static,
    ) -> Result<(), BusError> {
        let on_ack = Box::new(OnAck(Mutex::new(Some(Box::new(on_ack)))));
        let mut native: BaseRecord<'_, [u8], [u8], Box<OnAck>> =
            BaseRecord::with_opaque_to(record.topic, on_ack);
        native.partition = record.partition.map(u32::cast_signed);
        native.key = record.key;
        native.payload = record.value;
        native.headers = owned_headers(record.headers);
        self.producer.send(native).map_err(|(error, _)| {
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                return BusError::QueueFull {
                    queued: self.queued(),
                };
            }
            let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            let partition = record.partition.map_or(-1, u32::cast_signed);
            delivery_error(&error, record.topic, partition, bytes)
        })
    }

    /// Records that wait for their acknowledgement.
    pub fn queued(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// Waits until every record is acknowledged or has failed.
    ///
    /// # Errors
    /// [`BusError::Request`] where `timeout` passes first.
    pub fn flush(&self, timeout: Duration) -> Result<(), BusError> {
        self.producer
            .flush(timeout)
            .map_err(request("waiting for acknowledgements"))
    }

    /// Number of partitions of a topic, to route records.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] after `patience`, [`BusError::TopicMissing`].
    pub fn partition_count(&self, topic: &str, patience: Duration) -> Result<u32, BusError> {
        partition_counts(self.producer.client(), &self.brokers, patience)?
            .get(topic)
            .copied()
            .ok_or_else(|| BusError::TopicMissing {
                topic: topic.to_owned(),
            })
    }
}

impl Drop for EventProducer {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

type AckFunction = Box<dyn FnOnce(Result<Delivered, BusError>) + Send>;

/// Travels through librdkafka with its record. Behind a mutex because rdkafka wants it `Sync`.
struct OnAck(Mutex<Option<AckFunction>>);

#[derive(Default)]
struct AckContext(LoggingContext);

impl ClientContext for AckContext {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, message: &str) {
        self.0.log(level, kind, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl Refused for AckContext {
    const IS_POLLED: bool = true;

    fn logging(&self) -> &LoggingContext {
        &self.0
    }
}

impl ProducerContext for AckContext {
    type DeliveryOpaque = Box<OnAck>;

    fn delivery(&self, result: &DeliveryResult<'_>, on_ack: Box<OnAck>) {
        let outcome = match result {
            Ok(message) => Ok(Delivered {
                partition: message.partition().cast_unsigned(),
                offset: message.offset(),
            }),
            Err((error, message)) => {
                let topic = message.topic().to_owned();
                let failed = delivery_error(error, &topic, message.partition(), 0);
                metrics::counter!(PRODUCER_FAILURES, "topic" => topic).increment(1);
                Err(failed)
            }
        };
        let function = on_ack.0.into_inner().ok().flatten();
        if let Some(function) = function {
            function(outcome);
        }
    }
}
