//! Whether compacted changelogs stay bounded: a day's work of sessions that come and go, and what
//! the broker keeps of what was written.

use std::fs;
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use spendfuse_benches::lab::Lab;
use spendfuse_benches::load::write_backlog;
use spendfuse_benches::workload::Workload;
use spendfuse_bus::{read_ranges, topic_ranges};

use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "churn";
const PATIENCE: Duration = Duration::from_secs(90);
/// The broker looks every 15 s whether there is something to compact.
const CLEANER: Duration = Duration::from_secs(45);
/// Small commits, as under a steady load: sessions are written again and again.
const BATCH: &str = "processor.batch_max_events=500";
/// Of what was written, at most this share may be kept.
const BOUND: f64 = 0.25;

/// The lines of the row: one for each changelog.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let events = sitting.choose(2_000_000, 400_000);
    let lab = sitting.lab("churn", 1)?;
    let mut workload = Workload::new("c");
    write_backlog(&lab, &mut workload, events)?;
    let processor = lab.start("processor", "1", &[BATCH.to_owned()])?;
    processor.await_counted(events, PATIENCE * 2)?;
    let topics = ["meter.changelog", "ledger.changelog"];
    let mut lines = Vec::new();
    for topic in topics {
        let log = Log::settled(sitting, &lab, topic)?;
        let written = log.bytes as f64 / log.records.max(1) as f64 * log.ever as f64;
        let (kept_mib, written_mib) = (log.bytes as f64 / MIB, written / MIB);
        let line = Line::new(
            ROW,
            format!("{topic}, {events} events"),
            format!("keeps {kept_mib:.0} MiB"),
        )
        .against(format!("written: {written_mib:.0} MiB"))
        .ratio(log.bytes as f64, written);
        let line = if written_mib > 400.0 {
            line.target("≤ ¼", (log.bytes as f64) < BOUND * written)
        } else {
            line
        };
        lines.push(line.note(format!(
            "{} of {} records; what is kept is live state and the last segments (64 MiB each), \
             which the broker compacts when they are full",
            log.records, log.ever
        )));
    }
    Ok(lines)
}

const MIB: f64 = 1024.0 * 1024.0;

/// What a changelog holds.
struct Log {
    /// On disk.
    bytes: u64,
    records: u64,
    /// Records that were ever written, transaction markers included.
    ever: u64,
}

impl Log {
    /// Once the broker has compacted what it will.
    fn settled(sitting: &Sitting, lab: &Lab, topic: &str) -> Result<Self> {
        let topic = lab.topic(topic);
        let folder = sitting.servers.broker_data().join(format!("{topic}-0"));
        let began = Instant::now();
        let mut least = size_of(&folder)?;
        let mut since = Instant::now();
        while began.elapsed() < CLEANER && since.elapsed() < CLEANER / 2 {
            thread::sleep(Duration::from_secs(1));
            let size = size_of(&folder)?;
            if size < least * 9 / 10 {
                (least, since) = (size, Instant::now());
            }
        }
        let ranges = topic_ranges(&lab.kafka(), &topic, None, PATIENCE)?;
        let ever = ranges.iter().map(|range| range.to.cast_unsigned()).sum();
        let mut records = 0;
        read_ranges(&lab.kafka(), &topic, &ranges, PATIENCE, &mut |_| {
            records += 1;
            ControlFlow::Continue(())
        })?;
        Ok(Self {
            bytes: size_of(&folder)?,
            records,
            ever,
        })
    }
}

fn size_of(folder: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name();
        // Files may go while they are listed.
        if name.to_string_lossy().ends_with(".log") {
            bytes += file.metadata().map_or(0, |known| known.len());
        }
    }
    Ok(bytes)
}
