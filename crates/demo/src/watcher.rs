//! Follows what the pipeline publishes, as an enforcement point does: a guard is fed with it, and
//! the board is told. How long a verdict took from its event to the guard is measured here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spendfuse_bus::{Follower, FollowerConfig, FollowerEvent, InputRecord, KafkaConfig, Shutdown};
use spendfuse_domain::finding::Finding;
use spendfuse_domain::verdict::{BlocklistEntry, BlocklistKey};
use spendfuse_domain::{Topics, UnixMillis, Verdict};
use spendfuse_guard::{Guard, GuardConfig, GuardWriter, State};

use crate::board::{SharedBoard, open};
use crate::clock;
use crate::error::DemoError;
use crate::wait;

const BLOCKLIST: usize = 0;
const BUDGETS: usize = 1;
const FINDINGS: usize = 2;
const DLQ: usize = 3;
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
        let config = FollowerConfig {
            kafka: kafka.clone(),
            name: "demo",
            topics: vec![
                topics.blocklist.clone(),
                topics.budgets.clone(),
                topics.findings.clone(),
                topics.dlq.clone(),
            ],
            partition: None,
        };
        let mut watching = Watching {
            writer,
            board: Arc::clone(board),
            caught_up: Arc::clone(&caught_up),
        };
        let follower = Follower::start(config, move |event| watching.take(event))?;
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
            let state = self.guard.state(clock::guard_now().monotonic_millis).state;
            state == State::Live && self.caught_up.load(Ordering::Acquire)
        })
    }
}

struct Watching {
    writer: GuardWriter,
    board: SharedBoard,
    caught_up: Arc<AtomicBool>,
}

impl Watching {
    fn take(&mut self, event: FollowerEvent<'_>) {
        let now = clock::guard_now();
        match event {
            FollowerEvent::Record(record) => self.record(&record),
            FollowerEvent::CaughtUp => {
                self.writer.caught_up();
                self.caught_up.store(true, Ordering::Release);
            }
            FollowerEvent::Reset => {
                self.writer.begin_again(now.wall);
                let mut board = open(&self.board);
                board.rejected.clear();
                board.findings.clear();
            }
            FollowerEvent::EndOfPartition { .. } | FollowerEvent::Failed(_) => {}
        }
        self.writer.publish(now.wall);
    }

    fn record(&mut self, record: &InputRecord<'_>) {
        if record.topic_index == DLQ {
            let reason = record.headers.get(REASON).unwrap_or_default();
            let reason = String::from_utf8_lossy(reason).into_owned();
            *open(&self.board).rejected.entry(reason).or_insert(0) += 1;
            return;
        }
        let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
            return;
        };
        let now = clock::guard_now();
        let logged_at = UnixMillis(record.timestamp_millis);
        let version = record.offset.unsigned_abs() + 1;
        let applied = match record.topic_index {
            BLOCKLIST => self.writer.apply(key, record.value, logged_at, now),
            BUDGETS => self.writer.apply_budget(key, record.value, version),
            FINDINGS => self.writer.apply_finding(key, record.value),
            _ => Ok(()),
        };
        if let Err(error) = applied {
            let tone = crate::board::Tone::Bad;
            open(&self.board).tell(tone, format!("unreadable: {error}"));
            return;
        }
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
        // Readers see it from here on; only now the lag ends.
        self.writer.publish(clock::now());
        let mut board = open(&self.board);
        if let Some(entry) = &entry {
            let before = board
                .scopes
                .get(key)
                .map_or(Verdict::Ok, |entry| entry.verdict);
            let cause = entry.caused_by.as_ref().and_then(|cause| cause.time);
            // A verdict that became stricter is due to its last event; a milder one is due to a
            // changed budget or a new window.
            if let (true, Some(cause)) = (entry.verdict > before, cause) {
                let lag = clock::now().since(cause).max(0);
                board.lag_millis.add(lag.unsigned_abs());
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
