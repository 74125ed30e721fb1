//! Those who send events: one that speaks Kafka, one that posts to the sidecar.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use spendfuse_bus::{BusError, EventProducer, EventRecord, KafkaConfig, ProducerOptions};
use spendfuse_tests::pause;

use crate::events::{Event, Events};
use crate::http;
use crate::ledger::Ledger;
use spendfuse_tests::random::Random;

/// Longer than any run: nothing is given up.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Events in one post at most.
const POST_EVENTS: u64 = 6;

/// Sends to the usage topic.
pub struct KafkaSender {
    producer: EventProducer,
    topic: String,
    ledger: Arc<Ledger>,
    refused: Arc<AtomicU64>,
}

impl KafkaSender {
    /// A sender to `topic`.
    pub fn new(kafka: &KafkaConfig, topic: String, ledger: Arc<Ledger>) -> Result<Self> {
        let options = ProducerOptions {
            delivery_timeout: DELIVERY_TIMEOUT,
            ..ProducerOptions::default()
        };
        Ok(Self {
            producer: EventProducer::open(kafka, &options)?,
            topic,
            ledger,
            refused: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Queues an event; waits where the queue is full.
    pub fn send(&self, event: &Event) -> Result<()> {
        let record = EventRecord {
            topic: &self.topic,
            partition: event.record.partition,
            key: event.record.key.as_deref(),
            value: Some(&event.record.value),
            headers: &[],
        };
        self.ledger.sent();
        loop {
            let (ledger, number) = (Arc::clone(&self.ledger), event.number);
            let refused = Arc::clone(&self.refused);
            let queued = self.producer.send(&record, move |outcome| match outcome {
                Ok(_) => ledger.acknowledged(number),
                Err(_) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
            match queued {
                Ok(()) => return Ok(()),
                Err(BusError::QueueFull { .. }) => pause(Duration::from_millis(5)),
                Err(error) => bail!("an event is refused: {error}"),
            }
        }
    }

    /// Waits until everything is acknowledged.
    pub fn flush(&self, patience: Duration) -> Result<()> {
        self.producer.flush(patience)?;
        let refused = self.refused.load(Ordering::Relaxed);
        if refused > 0 {
            bail!("the broker refused {refused} events");
        }
        Ok(())
    }
}

/// A sender on a thread of its own.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Running {
    /// Sends mixed events to Kafka, `per_second` of them, until it is stopped.
    pub fn kafka(sender: KafkaSender, mut events: Events, per_second: u64) -> Self {
        Self::spawn(move |stop| {
            let mut begin = Instant::now();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                if events.quiet.is_total() {
                    (begin, number) = (Instant::now(), 0);
                    pause(Duration::from_millis(50));
                    continue;
                }
                let due = Duration::from_micros(number * 1_000_000 / per_second);
                let ahead = due.saturating_sub(begin.elapsed());
                if ahead > Duration::from_millis(5) {
                    pause(ahead);
                }
                sender.send(&events.mixed(&sender.ledger))?;
                number += 1;
            }
            sender.flush(Duration::from_secs(120))
        })
    }

    /// Posts good events to the sidecar until it is stopped; what was not taken is posted again
    /// with the same ids.
    pub fn sidecar(sidecar: SidecarSender, mut events: Events, seed: u64, per_second: u64) -> Self {
        Self::spawn(move |stop| {
            let mut random = Random::new(seed, 4);
            let mut waiting: Vec<Event> = Vec::new();
            let mut deadline = None;
            loop {
                let is_over = stop.load(Ordering::Relaxed);
                if is_over && waiting.is_empty() {
                    return Ok(());
                }
                if is_over {
                    let deadline =
                        *deadline.get_or_insert_with(|| Instant::now() + Duration::from_secs(90));
                    if Instant::now() >= deadline {
                        bail!("the sidecar does not take {} events", waiting.len());
                    }
                } else if events.quiet.is_total() && waiting.is_empty() {
                    pause(Duration::from_millis(50));
                    continue;
                } else if !events.quiet.is_total() {
                    let count = 1 + random.below(POST_EVENTS);
                    waiting.extend((0..count).map(|_| events.good(&sidecar.ledger)));
                    pause(Duration::from_micros(count * 1_000_000 / per_second));
                }
                let batch = waiting.len().min(200);
                match sidecar.post(&waiting[..batch]) {
                    Ok(()) => drop(waiting.drain(..batch)),
                    Err(_) => pause(Duration::from_millis(100)),
                }
            }
        })
    }

    /// Works until it is told to stop.
    pub fn spawn(work: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        Self {
            stop,
            thread: thread::spawn(move || work(&seen)),
        }
    }

    /// Stops, and waits until everything sent is acknowledged.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Posts to the sidecar over its Unix socket.
pub struct SidecarSender {
    pub socket: PathBuf,
    /// Who notes what was promised.
    pub ledger: Arc<Ledger>,
    /// Posts answered by 202, and all others.
    pub posts: Arc<(AtomicU64, AtomicU64)>,
}

impl SidecarSender {
    /// Posts events; they are noted as acknowledged where the answer says so.
    pub fn post(&self, events: &[Event]) -> Result<()> {
        let texts: Vec<&str> = events
            .iter()
            .map(|event| std::str::from_utf8(&event.record.value).expect("events are texts"))
            .collect();
        for _ in events {
            self.ledger.sent();
        }
        let body = format!("[{}]", texts.join(","));
        let answer = http::post(&self.socket, "/v1/usage", &body);
        if !answer.as_ref().is_ok_and(|(status, _)| *status == 202) {
            self.posts.1.fetch_add(1, Ordering::Relaxed);
            bail!("not taken: {answer:?}");
        }
        self.posts.0.fetch_add(1, Ordering::Relaxed);
        for event in events {
            self.ledger.acknowledged(event.number);
        }
        Ok(())
    }
}
