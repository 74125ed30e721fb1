//! Keeps a replica up to date from Kafka, on a thread of its own, wherever there is a guard: in the
//! sidecar, on the command line, in the demo, in tests and benchmarks.

use std::time::{Duration, Instant};

use spendfuse_bus::{BusError, Follower, FollowerConfig, FollowerEvent, InputRecord, KafkaConfig};
use spendfuse_domain::topics::TOMBSTONE_MILLIS;
use spendfuse_domain::{Topics, UnixMillis};

use crate::clock::Clock;
use crate::error::GuardError;
use crate::writer::GuardWriter;

/// [`InputRecord::topic_index`] of blocklist records.
pub const BLOCKLIST: usize = 0;
/// That of budgets.
pub const BUDGETS: usize = 1;
/// That of findings.
pub const FINDINGS: usize = 2;
/// That of the first of [`Following::others`].
pub const OTHERS: usize = 3;

/// While records come without a pause readers get a new state this often, else at once.
const PUBLISH_EVERY: Duration = Duration::from_millis(2);

/// What a guard follows, and by which clock.
#[derive(Clone, Copy, Debug)]
pub struct Following<'a> {
    /// Brokers and client properties.
    pub kafka: &'a KafkaConfig,
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// Where the guard's own topics are.
    pub topics: &'a Topics,
    /// Further topics, whose records only the watcher sees.
    pub others: &'a [&'a str],
    /// The one by which checks are asked too.
    pub clock: Clock,
}

/// What a guard tells who watches it follow.
#[derive(Clone, Copy, Debug)]
pub enum Followed<'a> {
    /// A record came. One of the guard's own is taken, and readers see it from the next
    /// [`Followed::Published`] on.
    Record(&'a InputRecord<'a>),
    /// A record of the guard's own topics could not be taken, and why; what was known of its key
    /// stays.
    Bad(&'a InputRecord<'a>, &'a str),
    /// Readers see all that was taken.
    Published,
    /// Readers see all that the topics held when following began.
    CaughtUp,
    /// The position was lost: everything comes again. Readers keep what they have.
    Reset,
    /// The stage topics have another number of partitions than the guard was set to; it goes by
    /// theirs.
    OtherPartitions {
        /// What the guard was set to.
        configured: u32,
        /// What the blocklist topic has.
        found: u32,
    },
    /// The budgets topic was made anew and is empty: those of the former topic are in force until
    /// there are others.
    FormerBudgets,
    /// The brokers are away or the like; it goes on trying.
    Failed(&'a BusError),
    /// They are heard again.
    Recovered,
}

/// Hands what comes in the topics to `writer` until the follower is dropped, and tells `watch`.
///
/// # Errors
/// [`BusError::Property`] for client settings that cannot be used.
pub fn follow(
    following: Following<'_>,
    writer: GuardWriter,
    watch: impl FnMut(Followed<'_>) + Send + 'static,
) -> Result<Follower, BusError> {
    let topics = following.topics;
    let own = [&topics.blocklist, &topics.budgets, &topics.findings];
    let own = own.into_iter().map(String::as_str);
    let topics = own.chain(following.others.iter().copied());
    let config = FollowerConfig {
        kafka: following.kafka.clone(),
        name: following.name,
        topics: topics.map(str::to_owned).collect(),
        partition: None,
        tombstones: Duration::from_millis(TOMBSTONE_MILLIS.unsigned_abs()),
    };
    let mut feed = Feed {
        writer,
        clock: following.clock,
        published_at: Instant::now(),
        is_published: true,
        watch,
    };
    Follower::start(config, move |event| feed.handle(event))
}

struct Feed<W> {
    writer: GuardWriter,
    clock: Clock,
    published_at: Instant,
    is_published: bool,
    watch: W,
}

impl<W: FnMut(Followed<'_>)> Feed<W> {
    fn handle(&mut self, event: FollowerEvent<'_>) {
        match event {
            FollowerEvent::Record(record) => {
                match self.take(&record) {
                    Ok(()) => (self.watch)(Followed::Record(&record)),
                    Err(error) => (self.watch)(Followed::Bad(&record, &error)),
                }
                self.is_published = false;
                if self.published_at.elapsed() >= PUBLISH_EVERY {
                    self.publish();
                }
            }
            // Else the last of several would be seen with the next heartbeat only.
            FollowerEvent::Drained if !self.is_published => self.publish(),
            FollowerEvent::Drained => {}
            FollowerEvent::Partitions { topic_index, count } => {
                if topic_index == BLOCKLIST {
                    self.partitions(count);
                }
            }
            FollowerEvent::EndOfPartition {
                topic_index,
                partition,
                offset,
            } => {
                match topic_index {
                    BLOCKLIST => {
                        let now = self.clock.now().monotonic_millis;
                        self.writer.reached_end(partition, now);
                    }
                    BUDGETS => self.writer.reached_end_of_budgets(offset.unsigned_abs()),
                    _ => {}
                }
                self.publish();
            }
            FollowerEvent::CaughtUp => {
                self.writer.caught_up();
                self.publish();
                (self.watch)(Followed::CaughtUp);
                if self.writer.holds_former_budgets() {
                    (self.watch)(Followed::FormerBudgets);
                }
            }
            FollowerEvent::Reset => {
                self.writer.begin_again(self.clock.now().wall);
                (self.watch)(Followed::Reset);
            }
            // Meanwhile the state's age tells readers.
            FollowerEvent::Failed(error) => (self.watch)(Followed::Failed(error)),
            FollowerEvent::Recovered => (self.watch)(Followed::Recovered),
        }
    }

    fn partitions(&mut self, found: u32) {
        self.writer.expect_partitions(found);
        let configured = self.writer.configured_partitions();
        if found != configured {
            (self.watch)(Followed::OtherPartitions { configured, found });
        }
    }

    fn publish(&mut self) {
        if self.writer.is_reading_again() {
            return;
        }
        self.writer.publish(self.clock.now().wall);
        (self.published_at, self.is_published) = (Instant::now(), true);
        (self.watch)(Followed::Published);
    }

    fn take(&mut self, record: &InputRecord<'_>) -> Result<(), String> {
        if record.topic_index >= OTHERS {
            return Ok(());
        }
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let key = key.ok_or("the key is absent or not UTF-8")?;
        let taken: Result<(), GuardError> = match record.topic_index {
            BLOCKLIST => {
                let logged_at = UnixMillis(record.timestamp_millis);
                let now = self.clock.now();
                self.writer.apply(key, record.value, logged_at, now)
            }
            BUDGETS => {
                let version = record.offset.unsigned_abs() + 1;
                self.writer.apply_budget(key, record.value, version)
            }
            _ => self.writer.apply_finding(key, record.value),
        };
        taken.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_bus::Headers;

    use super::*;
    use crate::{Guard, GuardConfig};

    #[test]
    fn the_last_of_several_records_is_seen_before_the_broker_says_that_it_was_the_last() {
        let (writer, _guard) = Guard::new(GuardConfig::new(1));
        let (mut read, mut shown) = (0, 0);
        let seen = std::cell::Cell::new((0, 0));
        let mut feed = Feed {
            writer,
            clock: Clock::new(),
            published_at: Instant::now(),
            is_published: true,
            watch: |followed: Followed<'_>| {
                match followed {
                    Followed::Record(record) => read = record.offset,
                    Followed::Published => shown = read,
                    _ => {}
                }
                seen.set((read, shown));
            },
        };
        for offset in 1..=2 {
            // As under load: the readers have just got a new state.
            feed.published_at = Instant::now() + PUBLISH_EVERY;
            feed.handle(FollowerEvent::Record(InputRecord {
                topic_index: OTHERS,
                partition: 0,
                offset,
                timestamp_millis: 0,
                key: None,
                value: None,
                headers: Headers::from_slice(&[]),
            }));
        }
        assert_eq!(seen.get(), (2, 0));
        feed.handle(FollowerEvent::Drained);
        assert_eq!(seen.get(), (2, 2));
    }
}
