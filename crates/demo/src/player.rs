//! Plays the script: sends each event when its time has come, asks before those that ask.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use spendfuse_bus::{BusError, EventProducer, EventRecord, KafkaConfig, ProducerOptions, Shutdown};

use crate::board::{Phase, SharedBoard, Tone, open};
use crate::budgets::DemoBudgets;
use crate::clock;
use crate::error::DemoError;
use crate::event::{Body, DemoEvent};
use crate::gate::Gate;
use crate::scenario::{Action, Route, Scenario, UPGRADING_CUSTOMER};

/// A retry comes this long after the first sending.
const REPEAT_AFTER: Duration = Duration::from_millis(1500);
/// One producer stands for many apps; without a pause the broker would see a request an event.
const LINGER_MILLIS: &str = "5";
const FLUSH: Duration = Duration::from_secs(20);
/// The board hears of sent events this often.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// A deliberate fault, to show that the check can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// One event never reaches the pipeline.
    Lose,
    /// One event reaches it twice under different ids.
    Double,
}

/// What was played.
#[derive(Debug, Default)]
pub struct Played {
    /// The events as the apps sent them, one JSON text each, in their order.
    pub events: Vec<Vec<u8>>,
    /// What the DLQ must say of them, by reason.
    pub broken: std::collections::BTreeMap<&'static str, u64>,
    /// Repetitions among the events.
    pub repeated: u64,
    /// From the raised limit to the first call let in, if it was refused before.
    pub let_in_after: Option<Duration>,
    /// Whether the upgrading customer was refused before its upgrade.
    pub was_refused: bool,
    /// The first event's moment.
    pub began: Option<Instant>,
}

/// Plays scripts.
pub struct Player<'a> {
    kafka: &'a KafkaConfig,
    topic: &'a str,
    partitions: u32,
    board: &'a SharedBoard,
    gate: Gate,
    budgets: DemoBudgets,
    sabotage: Option<Sabotage>,
    failures: Arc<AtomicU64>,
    played: Played,
    repeats: VecDeque<(Instant, Vec<u8>, Vec<u8>)>,
    unannounced: u64,
    announced_at: Instant,
    upgraded_at: Option<Instant>,
}

impl<'a> Player<'a> {
    /// A player that sends to `topic`.
    pub fn new(
        kafka: &'a KafkaConfig,
        topic: &'a str,
        partitions: u32,
        board: &'a SharedBoard,
        gate: Gate,
        budgets: DemoBudgets,
        sabotage: Option<Sabotage>,
    ) -> Self {
        Self {
            kafka,
            topic,
            partitions,
            board,
            gate,
            budgets,
            sabotage,
            failures: Arc::default(),
            played: Played::default(),
            repeats: VecDeque::new(),
            unannounced: 0,
            announced_at: Instant::now(),
            upgraded_at: None,
        }
    }

    /// Plays `scenario` to its end; everything is acknowledged then.
    ///
    /// # Errors
    /// [`DemoError::Stopped`], or what Kafka or the sidecar say.
    pub fn play(mut self, scenario: &Scenario, shutdown: &Shutdown) -> Result<Played, DemoError> {
        let mut kafka = self.kafka.clone();
        let linger = kafka.properties.entry("linger.ms".to_owned());
        linger.or_insert_with(|| LINGER_MILLIS.to_owned());
        let producer = EventProducer::open(&kafka, &ProducerOptions::default())?;
        let began = Instant::now();
        self.played.began = Some(began);
        {
            let mut board = open(self.board);
            board.phase = Phase::Playing;
            board.began = Some(began);
            board.length = scenario.length;
            board.planned = scenario.steps.len() as u64;
        }
        let middle = scenario.real_calls / 2;
        let mut real_calls = 0;
        for step in &scenario.steps {
            self.wait_until(began + step.at, &producer, shutdown)?;
            match &step.action {
                Action::Send {
                    event,
                    route,
                    repeat,
                } => {
                    real_calls += 1;
                    let fault = self.sabotage.filter(|_| real_calls == middle);
                    self.report(&producer, event, *route, *repeat, fault)?;
                }
                Action::Ask(event) => self.ask(&producer, event)?,
                Action::Broken { value, reason } => {
                    *self.played.broken.entry(reason).or_insert(0) += 1;
                    let value = value.clone().into_bytes();
                    self.send(&producer, None, None, &value)?;
                    self.remember(value);
                }
                Action::Upgrade => self.upgrade()?,
            }
        }
        while let Some((due, ..)) = self.repeats.front() {
            let due = *due;
            self.wait_until(due, &producer, shutdown)?;
        }
        self.announce();
        producer.flush(FLUSH)?;
        if self.failures.load(Ordering::Relaxed) > 0 {
            let doing = "sending events".to_owned();
            let after = FLUSH;
            return Err(BusError::TimedOut { doing, after }.into());
        }
        Ok(self.played)
    }

    /// Waits for `moment`; meanwhile sends what is due for the second time.
    fn wait_until(
        &mut self,
        moment: Instant,
        producer: &EventProducer,
        shutdown: &Shutdown,
    ) -> Result<(), DemoError> {
        loop {
            if shutdown.is_requested() {
                return Err(DemoError::Stopped);
            }
            let now = Instant::now();
            while self.repeats.front().is_some_and(|(due, ..)| *due <= now) {
                if let Some((_, key, value)) = self.repeats.pop_front() {
                    self.send(producer, None, Some(&key), &value)?;
                    self.played.repeated += 1;
                    self.remember(value);
                }
            }
            if now.duration_since(self.announced_at) >= TELL_EVERY {
                self.announce();
            }
            let left = moment.saturating_duration_since(now);
            if left.is_zero() {
                return Ok(());
            }
            shutdown.wait(left.min(TELL_EVERY));
        }
    }

    fn ask(&mut self, producer: &EventProducer, event: &DemoEvent) -> Result<(), DemoError> {
        let asked = Instant::now();
        let may_call = self.gate.lets_through(event)?;
        let micros = asked.elapsed().as_micros();
        {
            let mut board = open(self.board);
            board.asked += 1;
            board.refused += u64::from(!may_call);
            board
                .check_micros
                .add(u64::try_from(micros).unwrap_or(u64::MAX));
        }
        if is_upgrading(event) {
            match self.upgraded_at {
                None => self.played.was_refused |= !may_call,
                Some(upgraded_at) if may_call && self.played.let_in_after.is_none() => {
                    self.played.let_in_after = Some(upgraded_at.elapsed());
                }
                Some(_) => {}
            }
        }
        if may_call {
            self.report(producer, event, Route::Home, false, None)?;
        }
        Ok(())
    }

    fn upgrade(&mut self) -> Result<(), DemoError> {
        self.budgets.upgrade(clock::now())?;
        self.upgraded_at = Some(Instant::now());
        let text = format!("upgrade   {UPGRADING_CUSTOMER}: a new limit goes to the budgets topic");
        open(self.board).tell(Tone::Good, text);
        Ok(())
    }

    /// Sends an event with the present time; `fault` is what goes wrong with it.
    fn report(
        &mut self,
        producer: &EventProducer,
        event: &DemoEvent,
        route: Route,
        repeat: bool,
        fault: Option<Sabotage>,
    ) -> Result<(), DemoError> {
        let value = event.render(clock::now());
        let key = event.routing_key();
        if fault != Some(Sabotage::Lose) {
            let (partition, key) = match route {
                Route::Home => (None, Some(key.as_slice())),
                Route::Librdkafka => (Some(crc32(&key) % self.partitions), Some(key.as_slice())),
                Route::Anywhere => (None, None),
            };
            self.send(producer, partition, key, &value)?;
        } else {
            self.unannounced += 1;
        }
        if fault == Some(Sabotage::Double) {
            let twin = DemoEvent {
                id: format!("{}-again", event.id),
                ..event.clone()
            };
            let value = twin.render(clock::now());
            self.send(producer, None, Some(&key), &value)?;
        }
        if repeat {
            let due = Instant::now() + REPEAT_AFTER;
            self.repeats.push_back((due, key, value.clone()));
        }
        self.remember(value);
        Ok(())
    }

    fn send(
        &mut self,
        producer: &EventProducer,
        partition: Option<u32>,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), DemoError> {
        let record = EventRecord {
            topic: self.topic,
            partition,
            key,
            value: Some(value),
            headers: &[],
        };
        let failures = Arc::clone(&self.failures);
        producer.send(&record, move |outcome| {
            if outcome.is_err() {
                failures.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        self.unannounced += 1;
        Ok(())
    }

    fn remember(&mut self, value: Vec<u8>) {
        self.played.events.push(value);
    }

    fn announce(&mut self) {
        self.announced_at = Instant::now();
        open(self.board).sent(std::mem::take(&mut self.unannounced));
    }
}

fn is_upgrading(event: &DemoEvent) -> bool {
    matches!(&event.body, Body::Call(call) if call.customer == UPGRADING_CUSTOMER)
}

/// CRC-32 as zlib computes it: what librdkafka's default partitioner hashes keys with.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = (crc & 1).wrapping_neg();
            crc = (crc >> 1) ^ (0xedb8_8320 & mask);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
