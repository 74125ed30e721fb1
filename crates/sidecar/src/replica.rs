//! Keeps the guard's replica and the price book up to date from Kafka, on a thread of its own.

use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use spendfuse_bus::follower::{Follower, FollowerConfig, FollowerEvent};
use spendfuse_bus::{BusError, Condition, InputRecord, KafkaConfig, Part};
use spendfuse_domain::{Topics, UnixMillis};
use spendfuse_guard::{Guard, GuardError, GuardWriter};

use crate::clock::Clock;
use crate::metrics::{GUARD_BAD_RECORDS, GUARD_BUDGETS, GUARD_ENTRIES};
use crate::prices::{PriceFollower, Prices};

const BLOCKLIST: usize = 0;
const BUDGETS: usize = 1;
const FINDINGS: usize = 2;
const PRICES: usize = 3;
const TOPICS: [&str; 4] = ["blocklist", "budgets", "findings", "prices"];

/// Under load readers get a new state this often; at rest at once.
const PUBLISH_EVERY: Duration = Duration::from_millis(2);

/// Follows the topics until the follower is dropped.
///
/// # Errors
/// [`BusError::Property`] for client settings that cannot be used.
pub(crate) fn follow(
    kafka: &KafkaConfig,
    topics: &Topics,
    writer: GuardWriter,
    guard: Guard,
    prices: Prices,
    clock: Clock,
    health: Part,
) -> Result<Follower, BusError> {
    let config = FollowerConfig {
        kafka: kafka.clone(),
        name: "guard",
        topics: vec![
            topics.blocklist.clone(),
            topics.budgets.clone(),
            topics.findings.clone(),
            topics.prices.clone(),
        ],
        partition: None,
    };
    let mut replica = Replica {
        writer,
        guard,
        prices,
        price_follower: PriceFollower::default(),
        clock,
        published_at: Instant::now(),
        health,
        is_failing: true,
    };
    for topic in TOPICS {
        counter!(GUARD_BAD_RECORDS, "topic" => topic).increment(0);
    }
    Follower::start(config, move |event| replica.handle(event))
}

struct Replica {
    writer: GuardWriter,
    guard: Guard,
    prices: Prices,
    price_follower: PriceFollower,
    clock: Clock,
    published_at: Instant,
    health: Part,
    is_failing: bool,
}

impl Replica {
    fn handle(&mut self, event: FollowerEvent<'_>) {
        match event {
            FollowerEvent::Record(record) => {
                self.follows();
                self.take(&record);
                if self.published_at.elapsed() >= PUBLISH_EVERY {
                    self.publish();
                }
            }
            FollowerEvent::EndOfPartition { .. } => self.publish(),
            FollowerEvent::CaughtUp => {
                self.follows();
                self.writer.caught_up();
                self.publish();
                tracing::info!(
                    entries = self.guard.entry_count(),
                    budgets = self.guard.budget_count(),
                    "the guard has caught up"
                );
            }
            FollowerEvent::Reset => {
                tracing::warn!("the position in the topics was lost; they are read again");
                self.writer.begin_again(self.clock.now().wall);
                self.price_follower = PriceFollower::default();
            }
            // The follower logs it; meanwhile the state's age tells readers.
            FollowerEvent::Failed(error) => {
                self.is_failing = true;
                let note = format!("cannot be followed: {error}");
                self.health.tell(Condition::ReadyBut(note));
            }
        }
    }

    fn follows(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            self.health.ready();
        }
    }

    fn publish(&mut self) {
        self.writer.publish(self.clock.now().wall);
        self.published_at = Instant::now();
        gauge!(GUARD_ENTRIES).set(self.guard.entry_count() as f64);
        gauge!(GUARD_BUDGETS).set(self.guard.budget_count() as f64);
    }

    fn take(&mut self, record: &InputRecord<'_>) {
        let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
            bad_record(record, "the key is absent or not UTF-8");
            return;
        };
        let taken: Result<(), GuardError> = match record.topic_index {
            BLOCKLIST => {
                let logged_at = UnixMillis(record.timestamp_millis);
                self.writer
                    .apply(key, record.value, logged_at, self.clock.now())
            }
            BUDGETS => {
                let version = record.offset.unsigned_abs() + 1;
                self.writer.apply_budget(key, record.value, version)
            }
            FINDINGS => self.writer.apply_finding(key, record.value),
            _ => {
                debug_assert_eq!(record.topic_index, PRICES);
                if let Some(value) = record.value {
                    self.price_follower.take(key, value, &self.prices);
                }
                Ok(())
            }
        };
        if let Err(error) = taken {
            bad_record(record, &error.to_string());
        }
    }
}

fn bad_record(record: &InputRecord<'_>, error: &str) {
    let topic = TOPICS[record.topic_index];
    let (partition, offset) = (record.partition, record.offset);
    tracing::error!(
        topic,
        partition,
        offset,
        error,
        "record ignored by the guard"
    );
    counter!(GUARD_BAD_RECORDS, "topic" => topic).increment(1);
}
