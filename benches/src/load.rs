//! Sends the workload: as a backlog, at a steady rate, or as fast as the broker takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use spendfuse_bus::{BusError, EventProducer, EventRecord, ProducerOptions};
use spendfuse_domain::UnixMillis;

use crate::lab::Lab;
use crate::probe::Marks;
use crate::workload::{Made, Prices, Workload, routing_key};

const PATIENCE: Duration = Duration::from_secs(60);

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events.
    pub events: u64,
    /// Their JSON, bytes.
    pub bytes: u64,
    /// Their cost, nano-dollars.
    pub nanos: i128,
}

impl Backlog {
    fn add(&mut self, made: Made<'_>, clock: &Clock, prices: &mut Prices) -> Result<()> {
        self.events += 1;
        self.bytes += made.value.len() as u64;
        self.nanos += prices.cost(made.value, clock.now)?;
        Ok(())
    }
}

/// Sends events to a lab's usage topic.
pub struct Sender {
    producer: EventProducer,
    topic: String,
    failed: Arc<AtomicU64>,
}

impl Sender {
    /// A producer as applications use it.
    ///
    /// # Errors
    /// Where the client cannot be made.
    pub fn new(lab: &Lab) -> Result<Self> {
        let mut kafka = lab.kafka();
        // What librdkafka's producers do by default, and Java's since Kafka 4.
        kafka.properties.insert("linger.ms".into(), "5".into());
        Ok(Self {
            producer: EventProducer::open(&kafka, &ProducerOptions::default())?,
            topic: lab.topic("usage"),
            failed: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Queues an event, keyed so that it arrives at home; waits where the queue is full. `on_ack`
    /// is called when the broker has it.
    ///
    /// # Errors
    /// Where the client refuses it.
    pub fn send<F: Fn() + Clone + Send + 'static>(&self, made: Made<'_>, on_ack: F) -> Result<()> {
        self.queue(made.key.as_bytes(), made.value, on_ack)
    }

    fn queue<F: Fn() + Clone + Send + 'static>(
        &self,
        key: &[u8],
        value: &str,
        on_ack: F,
    ) -> Result<()> {
        let record = EventRecord {
            topic: &self.topic,
            partition: None,
            key: Some(key),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        loop {
            let (failed, on_ack) = (Arc::clone(&self.failed), on_ack.clone());
            let queued = self.producer.send(&record, move |outcome| match outcome {
                Ok(_) => on_ack(),
                Err(_) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            });
            match queued {
                Ok(()) => return Ok(()),
                Err(BusError::QueueFull { .. }) => thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the broker has everything.
    ///
    /// # Errors
    /// Where it does not take something.
    pub fn finish(&self) -> Result<()> {
        self.producer.flush(PATIENCE)?;
        let failed = self.failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} events were not taken by the broker");
        Ok(())
    }
}

/// Writes `events` events and adds up what they must come to.
///
/// # Errors
/// Where the broker does not take them.
pub fn write_backlog(lab: &Lab, workload: &mut Workload, events: u64) -> Result<Backlog> {
    let sender = Sender::new(lab)?;
    let mut prices = Prices::new()?;
    let mut backlog = Backlog::default();
    let mut clock = Clock::default();
    for _ in 0..events {
        clock.advance()?;
        let made = workload.next_event(&clock.text);
        backlog.add(made, &clock, &mut prices)?;
        sender.send(made, || {})?;
    }
    sender.finish()?;
    Ok(backlog)
}

/// Writes `events` events, as `make` writes each of its number and its time, keyed so that they arrive
/// at home, and adds up what they must come to.
///
/// # Errors
/// Where what is made is no event, or the broker does not take it.
pub fn write_each(lab: &Lab, events: u64, make: impl Fn(u64, &str) -> String) -> Result<Backlog> {
    let sender = Sender::new(lab)?;
    let mut prices = Prices::new()?;
    let mut backlog = Backlog::default();
    let mut clock = Clock::default();
    for number in 0..events {
        clock.advance()?;
        let value = make(number, &clock.text);
        let made = Made {
            key: "",
            value: &value,
        };
        backlog.add(made, &clock, &mut prices)?;
        sender.queue(&routing_key(&value, clock.now)?, &value, || {})?;
    }
    sender.finish()?;
    Ok(backlog)
}

/// Writes `events` events, each the first one of a customer and of a session.
///
/// # Errors
/// Where the broker does not take them.
pub fn write_fresh(lab: &Lab, workload: &mut Workload, marks: &Marks, events: u64) -> Result<()> {
    let sender = Sender::new(lab)?;
    let mut clock = Clock::default();
    for _ in 0..events {
        clock.advance()?;
        sender.send(workload.next_fresh(&clock.text, marks.next_number()), || {})?;
    }
    sender.finish()
}

/// Sends `events` calls, each of which breaks the budget of a customer of its own, and waits until
/// the broker has them.
///
/// # Errors
/// Where the broker does not take them.
pub fn write_ruinous(lab: &Lab, workload: &mut Workload, events: u64) -> Result<()> {
    let sender = Sender::new(lab)?;
    let mut clock = Clock::default();
    for _ in 0..events {
        clock.advance()?;
        let (_, made) = workload.next_ruinous(&clock.text);
        sender.send(made, || {})?;
        sender.finish()?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// How events are sent while something is measured.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Events a second; `None` = as fast as the broker takes them.
    pub rate: Option<f64>,
    /// For how long.
    pub duration: Duration,
    /// Marked events a second: the first ones of a customer.
    pub marked: f64,
}

/// Sends at a pace as [`send_at`] does, and adds what is sent to `written`.
///
/// # Errors
/// Where the broker does not take it.
pub fn send_and_add(
    lab: &Lab,
    workload: &mut Workload,
    pace: Pace,
    marks: &Arc<Marks>,
    stop: &dyn Fn() -> bool,
    written: &mut Backlog,
) -> Result<()> {
    let mut prices = Prices::new()?;
    let mut add = |made: Made<'_>, clock: &Clock| written.add(made, clock, &mut prices);
    send(lab, workload, pace, marks, stop, &mut add)?;
    Ok(())
}

/// Sends at a pace and notes in `marks` when marked events were acknowledged. Returns how many
/// events there were. A sender that cannot keep up sends what is due at once, so the rate holds.
///
/// # Errors
/// Where the broker does not take them.
pub fn send_at(
    lab: &Lab,
    workload: &mut Workload,
    pace: Pace,
    marks: &Arc<Marks>,
    stop: &dyn Fn() -> bool,
) -> Result<u64> {
    send(lab, workload, pace, marks, stop, &mut |_, _| Ok(()))
}

fn send(
    lab: &Lab,
    workload: &mut Workload,
    pace: Pace,
    marks: &Arc<Marks>,
    stop: &dyn Fn() -> bool,
    see: &mut dyn FnMut(Made<'_>, &Clock) -> Result<()>,
) -> Result<u64> {
    /// Events between two looks at the clock where no rate is set.
    const AT_ONCE: u64 = 200;
    let sender = Sender::new(lab)?;
    let began = Instant::now();
    let mut clock = Clock::default();
    let (mut sent, mut marked) = (0, 0);
    while began.elapsed() < pace.duration && !stop() {
        clock.advance()?;
        let seconds = began.elapsed().as_secs_f64();
        while (marked as f64) < seconds * pace.marked {
            let number = marks.next_number();
            let marks = Arc::clone(marks);
            let made = workload.next_fresh(&clock.text, number);
            see(made, &clock)?;
            sender.send(made, move || marks.acknowledged(number))?;
            marked += 1;
            sent += 1;
        }
        let due = match pace.rate {
            Some(rate) => (seconds * rate) as u64,
            None => sent + AT_ONCE,
        };
        while sent < due {
            let made = workload.next_event(&clock.text);
            see(made, &clock)?;
            sender.send(made, || {})?;
            sent += 1;
        }
        if pace.rate.is_some() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    sender.finish()?;
    Ok(sent)
}

/// The time as events carry it; written anew only where it has changed.
#[derive(Debug, Default)]
struct Clock {
    now: UnixMillis,
    text: String,
}

impl Clock {
    fn advance(&mut self) -> Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let now = UnixMillis(i64::try_from(since.as_millis())?);
        if now != self.now {
            self.now = now;
            self.text = now.to_string();
        }
        Ok(())
    }
}
