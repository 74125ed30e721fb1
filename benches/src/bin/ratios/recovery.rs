//! What a restart costs as state grows: the gap in enforcement after a kill, memory, and how long
//! a new guard takes to catch up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use spendfuse_benches::lab::{Lab, Role};
use spendfuse_benches::load::{Pace, send_at, write_fresh};
use spendfuse_benches::probe::{GuardProbe, Marks};
use spendfuse_benches::workload::Workload;

use crate::memory::{Piece, filled};
use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "recovery";
const PARTITIONS: u32 = 4;
/// Kills of each size.
const KILLS: usize = 3;
/// A verdict that is later than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of the row: one for each size.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for &size in &sitting.choose(sitting.sizes.clone(), vec![10_000]) {
        let what = format!("kill -9 with {size} sessions, ids and customers");
        match restart(sitting, size) {
            Ok(found) => {
                let millis = |gap: &Duration| format!("{:.2}", gap.as_secs_f64());
                let gaps: Vec<String> = found.gaps.iter().map(millis).collect();
                let longest = found.gaps.iter().max().copied().unwrap_or_default();
                let mut line = Line::new(ROW, what, format!("gap {} s", gaps.join(", ")));
                if size == 1_000_000 {
                    line = line
                        .target("≤ 3 s", longest <= Duration::from_secs(3))
                        .because(reason(&found, size)?);
                }
                lines.push(line.note(format!(
                    "a gap is the longest time from an acknowledged event to its verdict in force \
                     around a kill; {} accounts and {} sessions restored; processor {} MiB before \
                     and {} MiB after; a new guard caught up with {} scopes in {:.2} s",
                    found.accounts,
                    found.sessions,
                    found.memory_mib.0,
                    found.memory_mib.1,
                    found.entries,
                    found.caught_up.as_secs_f64()
                )));
            }
            Err(why) => lines.push(Line::failed(ROW, what, &why)),
        }
    }
    Ok(lines)
}

struct Found {
    gaps: Vec<Duration>,
    accounts: f64,
    sessions: f64,
    /// Seconds that the workers of meter and ledger restored for, after the last kill.
    restoring: (f64, f64),
    memory_mib: (u64, u64),
    entries: usize,
    caught_up: Duration,
}

fn reason(found: &Found, size: u64) -> Result<String> {
    Ok(format!(
        "the meter restored for {:.1} s and the ledger for {:.1} s, side by side with the broker \
         that they read from; without reading, one core restores a session in {} ns and an account \
         in {} ns",
        found.restoring.0,
        found.restoring.1,
        filled(Piece::RestoreSessions, size)?,
        filled(Piece::RestoreScopes, size)?
    ))
}

fn restart(sitting: &Sitting, size: u64) -> Result<Found> {
    let lab = sitting.lab(&format!("recovery{size}"), PARTITIONS)?;
    let processor = lab.start("processor", "1", &[])?;
    let marks = Arc::new(Marks::default());
    let mut workload = Workload::new("r");
    write_fresh(&lab, &mut workload, &marks, size)?;
    settle(&processor, size)?;
    let before = processor.usage()?.memory_kib / 1024;
    let began = Instant::now();
    let guard = GuardProbe::start(&lab, Arc::clone(&marks))?;
    let caught_up = began.elapsed();
    let entries = guard.entry_count();
    let mut gaps = Vec::new();
    for _ in 0..KILLS {
        gaps.push(gap(&lab, &processor, &mut workload, &marks)?);
    }
    // Gauges come with the first commits after a restart.
    thread::sleep(Duration::from_secs(2));
    let gauge = |name: &str| processor.metric(name).unwrap_or(f64::NAN);
    Ok(Found {
        gaps,
        accounts: gauge("spendfuse_ledger_accounts"),
        sessions: gauge("spendfuse_meter_sessions"),
        restoring: (
            gauge("spendfuse_stage_restore_seconds_sum{stage=\"meter\""),
            gauge("spendfuse_stage_restore_seconds_sum{stage=\"ledger\""),
        ),
        memory_mib: (before, processor.usage()?.memory_kib / 1024),
        entries,
        caught_up,
    })
}

/// Kills the processor under load, starts it again at once, and finds the longest lag.
fn gap(
    lab: &Lab,
    processor: &Role,
    workload: &mut Workload,
    marks: &Arc<Marks>,
) -> Result<Duration> {
    const LONGEST: Duration = Duration::from_secs(90);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let pace = Pace {
                rate: Some(500.0),
                duration: LONGEST,
                marked: 100.0,
            };
            send_at(lab, workload, pace, marks, &|| stop.load(Ordering::Relaxed))
        });
        let watched = (|| {
            thread::sleep(Duration::from_secs(1));
            let since = Instant::now();
            thread::sleep(Duration::from_secs(1));
            processor.kill();
            processor.restart()?;
            let restarted = Instant::now();
            // The next verdicts of events sent after the restart end the gap.
            thread::sleep(Duration::from_secs(1));
            marks.await_since(restarted, PATIENCE)?;
            Ok(since)
        })();
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join();
        sent.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let since: Result<Instant> = watched;
        Ok(marks.lags(since?, PATIENCE)?.longest())
    })
}

fn settle(processor: &Role, events: u64) -> Result<()> {
    processor.await_counted(events, PATIENCE * 2)?;
    // The ledger is a commit or two behind.
    thread::sleep(Duration::from_secs(2));
    Ok(())
}
