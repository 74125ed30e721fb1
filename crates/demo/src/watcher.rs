//! Follows what the pipeline publishes, as an enforcement point does: a guard is fed with it, and
//! the board is told. How long a verdict took from its event to the guard is measured here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spendfuse_bus::{Follower, InputRecord, KafkaConfig, Shutdown};
use spendfuse_domain::finding::Finding;
use spendfuse_domain::verdict::{BlocklistEntry, BlocklistKey};
use spendfuse_domain::{Topics, UnixMillis, Verdict};
use spendfuse_guard::follow::{BLOCKLIST, FINDINGS, OTHERS};
use spendfuse_guard::{Followed, Following, Guard, GuardConfig, State, follow};

use crate::board::{SharedBoard, Tone, open};
use crate::clock;
use crate::error::DemoError;
use crate::wait;

const REASON: &str = "spendfuse_reason";

/// A guard on the real topics.
pub struct Watcher {
    /// Its readers' side.
    pub guard: Guard,
    caught_up: Arc<AtomicBool>,
    _follower: Follower,
}

impl Watcher {
    /// Starts following.
    ///
    /// # Errors
    /// Client settings that cannot be used.
    pub fn start(
        kafka: &KafkaConfig,
        topics: &Topics,
        partitions: u32,
        board: &SharedBoard,
    ) -> Result<Self, DemoError> {
        let (writer, guard) = Guard::new(GuardConfig::new(partitions));
        let caught_up = Arc::new(AtomicBool::new(false));
        let following = Following {
            kafka,
            name: "demo",
            topics,
            others: &[&topics.dlq],
            clock: clock::of_guard(),
        };
        let mut watching = Watching {
            board: Arc::clone(board),
            caught_up: Arc::clone(&caught_up),
            causes: Vec::new(),
        };
        let follower = follow(following, writer, move |event| watching.take(event))?;
        Ok(Self {
            guard,
            caught_up,
            _follower: follower,
        })
    }

    /// Waits until every partition of the processor has reported.
    ///
    /// # Errors
    /// [`DemoError::NotReady`] after `patience`, [`DemoError::Stopped`].
    pub fn wait_until_live(
        &self,
        patience: Duration,
        shutdown: &Shutdown,
    ) -> Result<(), DemoError> {
        wait::until_live(patience, shutdown, || {
            let state = self
                .guard
                .state(clock::of_guard().now().monotonic_millis)
                .state;
            state == State::Live && self.caught_up.load(Ordering::Acquire)
        })
    }
}

struct Watching {
    board: SharedBoard,
    caught_up: Arc<AtomicBool>,
    /// When what made verdicts stricter happened, of those that readers do not see yet.
    causes: Vec<UnixMillis>,
}

impl Watching {
    fn take(&mut self, event: Followed<'_>) {
        match event {
            Followed::Record(record) => self.record(record),
            Followed::Bad(_, error) => {
                open(&self.board).tell(Tone::Bad, format!("unreadable: {error}"));
            }
            Followed::Published => {
                let now = clock::now();
                let mut board = open(&self.board);
                for cause in self.causes.drain(..) {
                    board.lag_millis.add(now.since(cause).max(0).unsigned_abs());
                }
            }
            Followed::CaughtUp => self.caught_up.store(true, Ordering::Release),
            Followed::Reset => {
                let mut board = open(&self.board);
                board.rejected.clear();
                board.findings.clear();
            }
            Followed::Failed(_)
            | Followed::Recovered
            | Followed::FormerBudgets
            | Followed::OtherPartitions { .. } => {}
        }
    }

    fn record(&mut self, record: &InputRecord<'_>) {
        if record.topic_index == OTHERS {
            let reason = record.headers.get(REASON).unwrap_or_default();
            let reason = String::from_utf8_lossy(reason).into_owned();
            *open(&self.board).rejected.entry(reason).or_insert(0) += 1;
            return;
        }
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let key = key.unwrap_or_default();
        match record.topic_index {
            BLOCKLIST => self.blocklist(key, record.value),
            FINDINGS => self.finding(key, record.value),
            _ => {}
        }
    }

    fn blocklist(&mut self, key: &str, value: Option<&[u8]>) {
        if let Some(BlocklistKey::Heartbeat { .. }) | None = BlocklistKey::parse(key) {
            return;
        }
        let entry: Option<BlocklistEntry> =
            value.and_then(|value| serde_json::from_slice(value).ok());
        let mut board = open(&self.board);
        if let Some(entry) = &entry {
            let before = board
                .scopes
                .get(key)
                .map_or(Verdict::Ok, |entry| entry.verdict);
            let cause = entry.caused_by.as_ref().and_then(|cause| cause.time);
            // A verdict that became stricter is due to its last event; a milder one is due to a
            // changed budget or a new window.
            if entry.verdict > before {
                self.causes.extend(cause);
            }
        }
        board.scope(key, entry);
    }

    fn finding(&mut self, key: &str, value: Option<&[u8]>) {
        let finding: Option<Finding> = value.and_then(|value| serde_json::from_slice(value).ok());
        if let Some(finding) = finding {
            open(&self.board).finding(key, finding);
        }
    }
}
