//! Traffic sent at a steady rate while a test does other things.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use spendfuse_bus::{BusError, EventProducer, EventRecord, ProducerOptions};

use crate::expected::Expected;
use crate::lab::Lab;
use crate::traffic::{Record, Traffic};
use crate::wait::{eventually, pause};

/// Longer than any restart of a broker.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends records and counts what was not acknowledged.
pub struct Sender {
    producer: EventProducer,
    topic: String,
    failed: Arc<AtomicU64>,
}

impl Sender {
    /// A sender for a lab's usage topic.
    ///
    /// # Panics
    /// Where the client cannot be made.
    pub fn new(lab: &Lab) -> Self {
        Self::with_properties(lab, &[])
    }

    /// As [`Sender::new`], with other client properties.
    ///
    /// # Panics
    /// Where the client cannot be made.
    pub fn with_properties(lab: &Lab, properties: &[(&str, &str)]) -> Self {
        let mut kafka = lab.kafka_config();
        let named = properties.iter();
        let named = named.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        kafka.properties.extend(named);
        let options = ProducerOptions {
            delivery_timeout: DELIVERY_TIMEOUT,
            ..ProducerOptions::default()
        };
        let producer = EventProducer::open(&kafka, &options);
        Self {
            producer: producer.expect("a producer can be made"),
            topic: lab.topic("usage"),
            failed: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Queues a record; waits where the queue is full.
    ///
    /// # Panics
    /// Where the client refuses it.
    pub fn send(&self, record: &Record) {
        self.send_with(record, &[]);
    }

    /// As [`Sender::send`], with headers.
    ///
    /// # Panics
    /// Where the client refuses it.
    pub fn send_with(&self, record: &Record, headers: &[(&str, &[u8])]) {
        let native = EventRecord {
            topic: &self.topic,
            partition: record.partition,
            key: record.key.as_deref(),
            value: Some(&record.value),
            headers,
        };
        loop {
            let failed = Arc::clone(&self.failed);
            let queued = self.producer.send(&native, move |outcome| {
                if outcome.is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            });
            match queued {
                Ok(()) => return,
                Err(BusError::QueueFull { .. }) => pause(Duration::from_millis(2)),
                Err(error) => panic!("an event is refused: {error}"),
            }
        }
    }

    /// Waits until everything is acknowledged.
    ///
    /// # Panics
    /// Where a record was not.
    pub fn flush(&self) {
        self.producer
            .flush(DELIVERY_TIMEOUT)
            .expect("everything is acknowledged in time");
        let failed = self.failed.load(Ordering::Relaxed);
        assert_eq!(failed, 0, "records that the broker did not take");
    }
}

/// Mixed traffic on its way.
pub struct Load {
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Traffic>,
}

impl Load {
    /// Sends `total` records of mixed traffic, `per_second` of them.
    pub fn start(lab: &Lab, mut traffic: Traffic, per_second: u64, total: u64) -> Self {
        let sender = Sender::new(lab);
        let sent = Arc::new(AtomicU64::new(0));
        let progress = Arc::clone(&sent);
        let thread = thread::spawn(move || {
            let begin = Instant::now();
            for number in 0..total {
                let due = Duration::from_micros(number * 1_000_000 / per_second);
                let ahead = due.saturating_sub(begin.elapsed());
                if ahead > Duration::from_millis(5) {
                    pause(ahead);
                }
                sender.send(&traffic.mixed());
                progress.store(number + 1, Ordering::Relaxed);
            }
            sender.flush();
            traffic
        });
        Self { sent, thread }
    }

    /// Waits until `count` records are on their way.
    ///
    /// # Panics
    /// Where that takes more than two minutes.
    pub fn await_sent(&self, count: u64) {
        eventually("the load goes on", Duration::from_secs(120), || {
            let sent = self.sent.load(Ordering::Relaxed);
            if sent >= count || self.thread.is_finished() {
                return Ok(());
            }
            Err(format!("{sent} of {count} sent"))
        });
    }

    /// Waits until everything is sent and acknowledged; what it must come to.
    ///
    /// # Panics
    /// Where a record was not acknowledged.
    pub fn finish(self) -> Expected {
        self.await_sent(u64::MAX);
        match self.thread.join() {
            Ok(traffic) => traffic.into_expected(),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
