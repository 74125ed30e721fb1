//! Follows verdicts and notes when those of marked events are in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spendfuse_bus::KafkaConfig;
use spendfuse_bus::follower::{Follower, FollowerConfig, FollowerEvent};
use spendfuse_domain::Topics;
use spendfuse_guard::follow::BLOCKLIST;
use spendfuse_guard::{Clock, Followed, Following, Guard, GuardConfig, follow};

use crate::figures::Times;
use crate::lab::Lab;
use crate::workload::fresh_number;

/// The budget whose state is published at a customer's first spend.
const MARKED_BUDGET: &str = "customer";

/// When marked events were acknowledged by the broker, and when their verdicts were in force.
#[derive(Debug, Default)]
pub struct Marks {
    numbers: AtomicU64,
    acknowledged: Mutex<BTreeMap<u64, Instant>>,
    in_force: Mutex<HashMap<u64, Instant>>,
}

impl Marks {
    /// Marks whose numbers begin at `first`: readers of the same topic must not share numbers.
    pub fn from(first: u64) -> Self {
        Self {
            numbers: AtomicU64::new(first),
            ..Self::default()
        }
    }

    /// A number that no marked event has had.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The broker has the event.
    pub fn acknowledged(&self, number: u64) {
        lock(&self.acknowledged).insert(number, Instant::now());
    }

    /// Verdicts of these events can be seen now.
    fn in_force(&self, numbers: &mut Vec<u64>) {
        let now = Instant::now();
        let mut times = lock(&self.in_force);
        for number in numbers.drain(..) {
            times.entry(number).or_insert(now);
        }
    }

    /// Waits until the verdict of an event that was acknowledged at or after `since` is in force.
    ///
    /// # Errors
    /// Where none is after `patience`.
    pub fn await_since(&self, since: Instant, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            {
                let acknowledged = lock(&self.acknowledged);
                let in_force = lock(&self.in_force);
                let mut later = acknowledged
                    .iter()
                    .rev()
                    .take_while(|(_, at)| **at >= since);
                if later.any(|(number, _)| in_force.contains_key(number)) {
                    return Ok(());
                }
            }
            ensure!(
                Instant::now() < deadline,
                "no verdict came within {patience:?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The lags of events acknowledged at or after `since`; waits up to `patience` for the last.
    /// An event acknowledged after its verdict was in force has a lag of zero.
    ///
    /// # Errors
    /// Where verdicts are missing then.
    pub fn lags(&self, since: Instant, patience: Duration) -> Result<Times> {
        let deadline = Instant::now() + patience;
        loop {
            let (acknowledged, in_force) = (lock(&self.acknowledged), lock(&self.in_force));
            let wanted = acknowledged.iter().filter(|(_, at)| **at >= since);
            let lags: Vec<Option<Duration>> = wanted
                .map(|(number, at)| Some(in_force.get(number)?.saturating_duration_since(*at)))
                .collect();
            let missing = lags.iter().filter(|lag| lag.is_none()).count();
            if missing == 0 {
                return Ok(lags.into_iter().flatten().collect());
            }
            drop((acknowledged, in_force));
            ensure!(
                Instant::now() < deadline,
                "{missing} of {} verdicts did not come within {patience:?}",
                lags.len()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A guard in this process that follows a lab's topics as a sidecar does.
pub struct GuardProbe {
    guard: Guard,
    _follower: Follower,
}

impl GuardProbe {
    /// Follows, and waits until it has caught up.
    ///
    /// # Errors
    /// Where it has not after half a minute.
    pub fn start(lab: &Lab, marks: Arc<Marks>) -> Result<Self> {
        let (writer, guard) = Guard::new(GuardConfig::new(lab.partitions));
        let following = Following {
            kafka: &lab.kafka(),
            name: "bench-guard",
            topics: &Topics::new(&lab.topic("")),
            others: &[],
            clock: Clock::new(),
        };
        let (caught_up, has_caught_up) = std::sync::mpsc::channel();
        // Marked events whose verdicts were taken and not yet shown to readers.
        let mut seen = Vec::new();
        let follower = follow(following, writer, move |event| match event {
            Followed::Record(record) if record.topic_index == BLOCKLIST => {
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                seen.extend(key.and_then(marked_number));
            }
            Followed::Published => marks.in_force(&mut seen),
            // Nobody listens any more after the first time.
            Followed::CaughtUp => drop(caught_up.send(())),
            Followed::Bad(_, error) => eprintln!("the guard cannot read a record: {error}"),
            Followed::Failed(error) => eprintln!("the guard cannot follow: {error}"),
            Followed::Record(_)
            | Followed::Recovered
            | Followed::Reset
            | Followed::FormerBudgets
            | Followed::OtherPartitions { .. } => {}
        })?;
        has_caught_up.recv_timeout(Duration::from_secs(30))?;
        Ok(Self {
            guard,
            _follower: follower,
        })
    }

    /// Entries that its readers see.
    pub fn entry_count(&self) -> usize {
        self.guard.entry_count()
    }
}

/// A reader of committed verdicts of a peer: keys `customer|SCOPE`, whatever the values.
pub struct VerdictProbe {
    _follower: Follower,
}

impl VerdictProbe {
    /// Follows `topic`, and waits until it has caught up.
    ///
    /// # Errors
    /// Where it has not after half a minute.
    pub fn start(kafka: KafkaConfig, topic: &str, marks: Arc<Marks>) -> Result<Self> {
        let config = FollowerConfig {
            kafka,
            name: "bench-verdicts",
            topics: vec![topic.to_owned()],
            partition: None,
            tombstones: Duration::from_secs(86_400),
        };
        let (caught_up, has_caught_up) = std::sync::mpsc::channel();
        let follower = Follower::start(config, move |event| match event {
            FollowerEvent::Record(record) => {
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                if let Some(number) = key.and_then(marked_number) {
                    marks.in_force(&mut vec![number]);
                }
            }
            FollowerEvent::CaughtUp => {
                let _ = caught_up.send(());
            }
            FollowerEvent::Failed(error) => eprintln!("verdicts cannot be followed: {error}"),
            FollowerEvent::Partitions { .. }
            | FollowerEvent::EndOfPartition { .. }
            | FollowerEvent::Drained
            | FollowerEvent::Recovered
            | FollowerEvent::Reset => {}
        })?;
        has_caught_up.recv_timeout(Duration::from_secs(30))?;
        Ok(Self {
            _follower: follower,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn marked_number(key: &str) -> Option<u64> {
    let (budget, scope) = key.split_once('|')?;
    (budget == MARKED_BUDGET).then(|| fresh_number(scope))?
}
