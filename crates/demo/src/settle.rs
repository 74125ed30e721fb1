//! After the last event: waits until everything that was sent is somewhere.

use std::time::{Duration, Instant};

use spendfuse_bus::Shutdown;
use spendfuse_warehouse::{Totals, Warehouse};
use tokio::runtime::Handle;

use crate::board::{SharedBoard, open};
use crate::error::DemoError;

/// Nothing has moved for this long, and the sums are right.
const QUIET: Duration = Duration::from_millis(1200);
/// Nothing has moved for this long, so nothing more will come.
const GIVE_UP: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(100);

/// Reads the processor's metrics, in Prometheus' text form.
pub type MetricsText = dyn Fn() -> String + Send + Sync;

/// Where the produced events are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Rows in ClickHouse.
    pub counted: u64,
    /// Recognised as sent again.
    pub duplicates: u64,
    /// In the DLQ.
    pub rejected: u64,
}

impl Whereabouts {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.counted + self.duplicates + self.rejected
    }
}

/// Waits until `produced` events are accounted for and nothing moves any more, or until nothing has
/// moved for so long that the rest will not come.
///
/// # Errors
/// What ClickHouse says, [`DemoError::Stopped`].
pub fn wait(
    produced: u64,
    warehouse: &Warehouse,
    runtime: &Handle,
    metrics: &MetricsText,
    board: &SharedBoard,
    shutdown: &Shutdown,
) -> Result<(Whereabouts, Totals), DemoError> {
    let mut last = (Whereabouts::default(), Totals::default());
    let mut moved_at = Instant::now();
    loop {
        let totals = runtime.block_on(warehouse.totals())?;
        let mut state = Whereabouts {
            counted: totals.entries,
            duplicates: duplicates(&metrics()),
            rejected: 0,
        };
        {
            let mut board = open(board);
            board.warehouse = (totals.entries, totals.cost);
            state.rejected = board.rejected_total();
        }
        if (state, totals) != last {
            last = (state, totals);
            moved_at = Instant::now();
        }
        let quiet = moved_at.elapsed();
        if (state.sum() == produced && quiet >= QUIET) || quiet >= GIVE_UP {
            return Ok(last);
        }
        if shutdown.wait(POLL) {
            return Err(DemoError::Stopped);
        }
    }
}

/// Events that the meter had counted before, from its metrics.
fn duplicates(metrics: &str) -> u64 {
    use spendfuse_processor::metrics::{EVENTS_CONFLICT, EVENTS_DUPLICATE, EVENTS_ECHO};
    let values = metrics.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.split('{').next()?;
        let counts = [EVENTS_DUPLICATE, EVENTS_CONFLICT, EVENTS_ECHO].contains(&name);
        counts.then(|| value.parse::<u64>().ok()).flatten()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_read_from_metrics() {
        let text = "# TYPE spendfuse_events_duplicate_total counter\n\
                    spendfuse_events_duplicate_total 12\n\
                    spendfuse_events_conflict_total 1\n\
                    spendfuse_events_counted_total{kind=\"usage\"} 7\n";
        assert_eq!(duplicates(text), 13);
    }
}
