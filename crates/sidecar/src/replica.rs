//! Keeps the guard's replica and the price book up to date from Kafka, on a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{counter, gauge};
use spendfuse_bus::{BusError, Condition, Follower, InputRecord, KafkaConfig, Part};
use spendfuse_domain::Topics;
use spendfuse_guard::follow::{BLOCKLIST, BUDGETS, OTHERS};
use spendfuse_guard::{Clock, Followed, Following, Guard, GuardWriter};

use crate::in_flight::Positions;
use crate::metrics::{GUARD_BAD_RECORDS, GUARD_BUDGETS, GUARD_ENTRIES};
use crate::prices::{PriceFollower, Prices};

/// By index, in metrics and logs.
const TOPICS: [&str; OTHERS + 1] = ["blocklist", "budgets", "findings", "prices"];

const FORMER_BUDGETS: &str = "the budgets topic was made anew and is empty; the budgets from before stay in force until `spendfuse budgets apply FILE` writes others";

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
    (clock, positions): (Clock, Arc<Positions>),
    health: Part,
) -> Result<Follower, BusError> {
    for topic in TOPICS {
        counter!(GUARD_BAD_RECORDS, "topic" => topic).increment(0);
    }
    let mut replica = Replica {
        guard,
        positions,
        prices,
        price_follower: PriceFollower::default(),
        health,
        is_failing: true,
        bad_budgets: BTreeMap::new(),
        has_former_budgets: false,
        other_partitions: None,
    };
    let following = Following {
        kafka,
        name: "guard",
        topics,
        others: &[&topics.prices],
        clock,
    };
    spendfuse_guard::follow(following, writer, move |event| replica.watch(event))
}

struct Replica {
    guard: Guard,
    positions: Arc<Positions>,
    prices: Prices,
    price_follower: PriceFollower,
    health: Part,
    is_failing: bool,
    /// What cannot be read of budgets, by their keys.
    bad_budgets: BTreeMap<String, String>,
    has_former_budgets: bool,
    /// What is wrong with the number of partitions.
    other_partitions: Option<String>,
}

impl Replica {
    fn watch(&mut self, event: Followed<'_>) {
        match event {
            Followed::Record(record) => match record.topic_index {
                BLOCKLIST => self.positions.has_read(record.partition, record.offset),
                OTHERS => self.take_price(record),
                BUDGETS => self.budget_is_known(record),
                _ => {}
            },
            Followed::Bad(record, error) => {
                if record.topic_index == BLOCKLIST {
                    self.positions.has_read(record.partition, record.offset);
                }
                bad_record(record, error);
                if record.topic_index == BUDGETS {
                    self.bad_budgets.insert(key_of(record), error.to_owned());
                    self.tell();
                }
            }
            Followed::OtherPartitions { configured, found } => {
                let sentence = format!(
                    "this sidecar is set to {configured} partitions, but the stage topics have {found}; it goes by {found}; set `partitions` to {found}, and look whether `topic_prefix` is the right one"
                );
                tracing::error!("{sentence}");
                self.other_partitions = Some(sentence);
                self.tell();
            }
            Followed::FormerBudgets => {
                tracing::error!("{FORMER_BUDGETS}");
                self.has_former_budgets = true;
                self.tell();
            }
            Followed::Published => {
                self.positions.are_shown();
                gauge!(GUARD_ENTRIES).set(self.guard.entry_count() as f64);
                gauge!(GUARD_BUDGETS).set(self.guard.budget_count() as f64);
            }
            Followed::CaughtUp => {
                self.follows();
                self.price_follower.caught_up(&self.prices);
                tracing::info!(
                    entries = self.guard.entry_count(),
                    budgets = self.guard.budget_count(),
                    "the guard has caught up"
                );
            }
            Followed::Reset => {
                tracing::warn!("the position in the topics was lost; they are read again");
                self.price_follower.begin_again();
                // What of this is still true is told again on the way.
                self.bad_budgets.clear();
                self.other_partitions = None;
                self.has_former_budgets = false;
                if !self.is_failing {
                    self.tell();
                }
            }
            // The follower logs it.
            Followed::Failed(error) => {
                self.is_failing = true;
                let note = format!("cannot be followed: {error}");
                self.health.tell(Condition::ReadyBut(note));
            }
            Followed::Recovered => self.follows(),
        }
    }

    fn follows(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            self.tell();
        }
    }

    fn budget_is_known(&mut self, record: &InputRecord<'_>) {
        let was_bad = self.bad_budgets.remove(&key_of(record)).is_some();
        if std::mem::take(&mut self.has_former_budgets) || was_bad {
            self.tell();
        }
    }

    /// Tells people what is not as it should be.
    fn tell(&self) {
        let mut notes: Vec<String> = self.other_partitions.iter().cloned().collect();
        if self.has_former_budgets {
            notes.push(FORMER_BUDGETS.to_owned());
        }
        if let Some((key, error)) = self.bad_budgets.first_key_value() {
            let count = self.bad_budgets.len();
            notes.push(format!(
                "{count} records of budgets cannot be read, the first is {key}: {error}; what was known of them stays in force, and what nobody here has read is not enforced; update spendfuse, or write them again with `spendfuse budgets apply FILE`"
            ));
        }
        self.health.tell(match notes.is_empty() {
            true => Condition::Ready,
            false => Condition::ReadyBut(notes.join("; ")),
        });
    }

    fn take_price(&mut self, record: &InputRecord<'_>) {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        match (key, record.value) {
            (Some(key), Some(value)) => {
                let taken = self.price_follower.take(key, value, &self.prices);
                taken.unwrap_or_else(|error| bad_record(record, &error.to_string()));
            }
            (Some(_), None) => {}
            (None, _) => bad_record(record, "the key is absent or not UTF-8"),
        }
    }
}

fn key_of(record: &InputRecord<'_>) -> String {
    String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned()
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

#[cfg(test)]
mod tests {
    use spendfuse_bus::Health;
    use spendfuse_guard::GuardConfig;
    use spendfuse_pricing::PricingPolicy;

    use super::*;

    #[test]
    fn what_was_told_before_topics_are_read_again_is_taken_back_or_told_again() {
        let (_writer, guard) = Guard::new(GuardConfig::new(1));
        let health = Health::default();
        let mut replica = Replica {
            guard,
            positions: Arc::default(),
            prices: Prices::new(PricingPolicy::default()),
            price_follower: PriceFollower::default(),
            health: health.part("guard"),
            is_failing: true,
            bad_budgets: BTreeMap::new(),
            has_former_budgets: false,
            other_partitions: None,
        };
        let (configured, found) = (1, 2);
        replica.watch(Followed::CaughtUp);
        assert_eq!(health.report().reasons, [""; 0]);
        replica.watch(Followed::OtherPartitions { configured, found });
        replica.watch(Followed::FormerBudgets);
        let told = health.report().reasons.join("\n");
        assert!(told.contains("partitions") && told.contains(FORMER_BUDGETS));
        replica.watch(Followed::Reset);
        assert_eq!(health.report().reasons, [""; 0]);
        replica.watch(Followed::CaughtUp);
        replica.watch(Followed::FormerBudgets);
        let told = health.report().reasons.join("\n");
        assert!(!told.contains("partitions") && told.contains(FORMER_BUDGETS));

        let away = BusError::Stopped;
        replica.watch(Followed::Failed(&away));
        let told = health.report().reasons.join("\n");
        assert!(told.contains("cannot be followed") && !told.contains(FORMER_BUDGETS));
        // Without any record.
        replica.watch(Followed::Recovered);
        assert_eq!(
            health.report().reasons,
            [format!("guard: {FORMER_BUDGETS}")]
        );
    }
}
