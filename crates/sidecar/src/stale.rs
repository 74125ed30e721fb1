//! Tells people that this guard has been stale for long: its budgets follow `on_stale` then, and most
//! let calls through.
//!
//! Whoever should have counted is away, so the sidecar says it itself. All guards say it under one
//! key an hour, so that people hear it once. Where Kafka is away too it is told when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spendfuse_bus::producer::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_bus::{BusError, KafkaConfig};
use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};
use spendfuse_guard::{State, StateAge};

/// A guard is stale for long after so many times `stale_after`: a minute by default.
const LONG: u32 = 6;
/// Where Kafka does not take the alert it is sent again after this time, milliseconds.
const AGAIN_AFTER: i64 = 10_000;
const HOUR_MILLIS: i64 = 3_600_000;

/// How long the guard was stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outage {
    millis: i64,
    is_over: bool,
}

/// Decides when people are told. Times are those of a monotonic clock, milliseconds.
#[derive(Debug)]
struct StaleWatch {
    long: i64,
    since: Option<i64>,
    told_at: Option<i64>,
    tried_at: Option<i64>,
    /// It is over, and people do not know that it was.
    missed: Option<i64>,
}

impl StaleWatch {
    fn new(stale_after: Duration) -> Self {
        let long = stale_after.saturating_mul(LONG).as_millis();
        Self {
            long: i64::try_from(long).unwrap_or(i64::MAX),
            since: None,
            told_at: None,
            tried_at: None,
            missed: None,
        }
    }

    /// What people are to be told now, if anything.
    fn look(&mut self, is_stale: bool, now: i64) -> Option<Outage> {
        match (is_stale, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                let is_missed = now - since >= self.long && self.told_at.is_none();
                self.missed = is_missed.then_some(now - since);
                self.since = None;
                self.told_at = None;
            }
            _ => {}
        }
        let is_told = self.told_at.is_some_and(|at| now - at < HOUR_MILLIS);
        let outage = match (self.since, self.missed) {
            (Some(since), _) if now - since >= self.long && !is_told => Outage {
                millis: now - since,
                is_over: false,
            },
            (None, Some(millis)) => Outage {
                millis,
                is_over: true,
            },
            _ => return None,
        };
        if self.tried_at.is_some_and(|at| now - at < AGAIN_AFTER) {
            return None;
        }
        self.tried_at = Some(now);
        Some(outage)
    }

    /// Kafka has taken it.
    fn told(&mut self, now: i64) {
        self.missed = None;
        self.told_at = self.since.map(|_| now);
    }
}

/// Watches one guard.
pub(crate) struct StaleTeller {
    watch: StaleWatch,
    kafka: KafkaConfig,
    topic: String,
    instance: String,
    /// Only while there is something to tell.
    producer: Option<EventProducer>,
    is_taken: Arc<AtomicBool>,
}

impl StaleTeller {
    /// Tells in `topic`, in the name of `instance`.
    pub(crate) fn new(
        kafka: &KafkaConfig,
        topic: String,
        instance: String,
        stale_after: Duration,
    ) -> Self {
        Self {
            watch: StaleWatch::new(stale_after),
            kafka: kafka.clone(),
            topic,
            instance,
            producer: None,
            is_taken: Arc::default(),
        }
    }

    /// Looks at the guard's state; once a second.
    pub(crate) fn look(&mut self, state: StateAge, monotonic_millis: i64, wall: UnixMillis) {
        if self.is_taken.swap(false, Ordering::Relaxed) {
            self.watch.told(monotonic_millis);
            self.producer = None;
        }
        let is_stale = state.state == State::Stale;
        let Some(outage) = self.watch.look(is_stale, monotonic_millis) else {
            return;
        };
        let alert = alert(outage, state.complete_to, &self.instance, wall);
        tracing::warn!("{}", alert.message);
        if let Err(error) = self.send(&alert) {
            failed(&error);
        }
    }

    fn send(&mut self, alert: &Alert) -> Result<(), BusError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => EventProducer::open(&self.kafka, &ProducerOptions::default())?,
        };
        let value = alert.to_record();
        let record = EventRecord {
            topic: &self.topic,
            partition: None,
            key: Some(alert.key.as_bytes()),
            value: Some(&value),
            headers: &[],
        };
        let is_taken = Arc::clone(&self.is_taken);
        let sent = producer.send(&record, move |outcome| match outcome {
            Ok(_) => is_taken.store(true, Ordering::Relaxed),
            Err(error) => failed(&error),
        });
        self.producer = Some(producer);
        sent
    }
}

fn failed(error: &BusError) {
    tracing::warn!(error = %error, "nobody is told yet that this guard is stale; it is tried again");
}

fn alert(
    outage: Outage,
    complete_to: Option<UnixMillis>,
    instance: &str,
    now: UnixMillis,
) -> Alert {
    let seconds = outage.millis / 1_000;
    let known = complete_to.map_or_else(
        || "it has not heard of every partition yet".to_owned(),
        |time| format!("what it knows is complete to {time}"),
    );
    let message = match outage.is_over {
        false => format!(
            "the guard of sidecar {instance} has been stale for {seconds} s: {known}, and budgets follow their on_stale, which lets calls through unless they say otherwise; it ends by itself when every partition of meter and ledger is heard again: no processor runs, an input is held back, or the sidecar does not reach Kafka"
        ),
        true => format!(
            "the guard of sidecar {instance} was stale for {seconds} s and could not say so: budgets followed their on_stale; it is live again"
        ),
    };
    let hour = now.hour();
    Alert {
        v: 1,
        key: format!("stale_guard|{hour}"),
        kind: AlertKind::StaleGuard,
        severity: match outage.is_over {
            false => Severity::Critical,
            true => Severity::Warning,
        },
        scope: "*".to_owned(),
        subject: format!("sidecar {instance}"),
        message,
        at: now,
        count: None,
        details: AlertDetails::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000;

    /// The seconds at which people are told, and whether it is over by then; `is_stale` and `is_away`
    /// (nothing is taken) by the second.
    fn told(
        seconds: i64,
        is_stale: impl Fn(i64) -> bool,
        is_away: impl Fn(i64) -> bool,
    ) -> Vec<(i64, bool)> {
        let mut watch = StaleWatch::new(Duration::from_secs(10));
        let mut told = Vec::new();
        for second in 0..seconds {
            if let Some(outage) = watch.look(is_stale(second), second * SECOND)
                && !is_away(second)
            {
                watch.told(second * SECOND);
                told.push((second, outage.is_over));
            }
        }
        told
    }

    #[test]
    fn people_are_told_after_a_minute_and_every_hour_while_it_lasts() {
        let never = |_| false;
        assert_eq!(told(120, |second| second > 10 && second < 70, never), []);
        let long = told(8_000, |second| second >= 10, never);
        assert_eq!(long, [(70, false), (3_670, false), (7_270, false)]);
        // Each outage by itself.
        let twice = told(400, |second| second % 200 < 100, never);
        assert_eq!(twice, [(60, false), (260, false)]);
    }

    #[test]
    fn what_kafka_did_not_take_is_told_when_it_is_back() {
        let stale = |second: i64| second < 100;
        assert_eq!(told(300, stale, |second| second < 75), [(80, false)]);
        assert_eq!(told(300, stale, |second| second < 150), [(150, true)]);
    }
}
