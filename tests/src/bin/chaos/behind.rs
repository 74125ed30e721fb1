//! Whether the loader is far behind: then faults leave it, ClickHouse and Kafka alone until it has come
//! after.
//!
//! Logs of a run forget in seconds what real ones keep for days. A loader that faults held up for longer
//! than that would have lost rows, and be right to say so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use spendfuse_bus::{BusError, committed_offsets, log_ends};
use spendfuse_tests::pause;

use crate::fault::{Fault, Part};
use crate::logs::Logs;

const TOPICS: [&str; 2] = ["rows", "rows.ledger"];
const LOOK_EVERY: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(2);
/// A good part less than what logs keep (`retention::kept`).
const FAR: Duration = Duration::from_secs(20);

/// Watches the loader. Dropped, it stops.
pub struct Behind {
    is_far: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    watching: Option<JoinHandle<()>>,
}

impl Behind {
    /// Begins to watch the loaders of `group`.
    pub fn watch(logs: Logs, group: String) -> Self {
        let (is_far, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (told, is_over) = (Arc::clone(&is_far), Arc::clone(&stop));
        let watching = thread::spawn(move || {
            let (mut reached_at, mut seen) = (Instant::now(), VecDeque::new());
            while !is_over.load(Ordering::Relaxed) {
                // A broker that is down is a fault of the run; nobody knows then.
                if let Ok((positions, ends)) = look(&logs, &group) {
                    seen.push_back((Instant::now(), ends));
                    while let Some((at, ends)) = seen.front()
                        && has_passed(&logs, &positions, ends)
                    {
                        reached_at = *at;
                        seen.pop_front();
                    }
                }
                told.store(reached_at.elapsed() > FAR, Ordering::Relaxed);
                pause(LOOK_EVERY);
            }
        });
        Self {
            is_far,
            stop,
            watching: Some(watching),
        }
    }

    /// Whether this fault has to wait for another time.
    pub fn spares(&self, fault: Fault) -> bool {
        holds_loading_up(fault) && self.is_far.load(Ordering::Relaxed)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watching) = self.watching.take() {
            // It has nothing to say.
            let _ = watching.join();
        }
    }
}

/// Of all partitions of both topics.
type Offsets = BTreeMap<(String, u32), i64>;

/// Where the loader is, and where the logs end.
fn look(logs: &Logs, group: &str) -> Result<(Offsets, Offsets), BusError> {
    let (mut positions, mut ends) = (Offsets::new(), Offsets::new());
    for topic in TOPICS {
        let topic = logs.topic(topic);
        let place = |partition| (topic.clone(), partition);
        ends.extend(
            (0..)
                .map(place)
                .zip(log_ends(&logs.kafka, &topic, PATIENCE)?),
        );
        let committed = committed_offsets(&logs.kafka, group, &topic, PATIENCE)?;
        let committed = committed.into_iter().map(Option::unwrap_or_default);
        positions.extend((0..).map(place).zip(committed));
    }
    Ok((positions, ends))
}

/// Whether it has every row that was there at `ends`; ends of transactions are none.
fn has_passed(logs: &Logs, positions: &Offsets, ends: &Offsets) -> bool {
    ends.iter().all(|(place, end)| {
        let (topic, partition) = place;
        let position = positions.get(place).copied().unwrap_or_default();
        logs.tape.count(topic, *partition, position..*end) == 0
    })
}

fn holds_loading_up(fault: Fault) -> bool {
    let is_part = |part| matches!(part, Part::Loader | Part::ClickHouse | Part::Kafka(_));
    match fault {
        Fault::Kill { part, .. }
        | Fault::Pause { part, .. }
        | Fault::Clock { part, .. }
        | Fault::FullDisk { part, .. } => is_part(part),
        Fault::Slow { .. }
        | Fault::Silence { .. }
        | Fault::HalfClose { .. }
        | Fault::Cut { .. }
        | Fault::OffsetsLost { .. }
        | Fault::PowerLoss { .. } => true,
        Fault::KillAtAnswer { .. }
        | Fault::BreakStreams { .. }
        | Fault::Storm { .. }
        | Fault::Lose { .. }
        | Fault::Finalize
        | Fault::Quiet { .. }
        | Fault::Exchange { .. }
        | Fault::Budgets
        | Fault::Prices
        | Fault::Correct => false,
    }
}
