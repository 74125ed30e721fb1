//! What Linux knows about a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Unit of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every current architecture.
const TICKS_A_SECOND: u64 = 100;

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of all its threads, in user and kernel mode.
    pub cpu: Duration,
    /// Its largest resident set.
    pub peak_memory_kib: u64,
    /// Its resident set now.
    pub memory_kib: u64,
}

/// Processor time of a process's threads whose names begin with `name`.
///
/// # Errors
/// Where the process does not run.
pub fn thread_time(process_id: u32, name: &str) -> Result<Duration> {
    let mut time = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process_id}/task"))? {
        // A thread may end while it is looked at.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let comm = stat.split_once('(').map_or("", |(_, rest)| rest);
        if comm.starts_with(name) {
            time += time_of(&stat)?;
        }
    }
    Ok(time)
}

/// Asks for a running process.
///
/// # Errors
/// Where it does not run.
pub fn usage(process_id: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|text| text.split_whitespace().next()?.parse().ok())
    };
    Ok(Usage {
        cpu: time_of(&stat)?,
        peak_memory_kib: kib("VmHWM:").context("no peak memory")?,
        memory_kib: kib("VmRSS:").context("no resident memory")?,
    })
}

/// The same of a process and all that it has started, as far as they run.
///
/// # Errors
/// Where it does not run.
pub fn usage_with_children(process_id: u32) -> Result<Usage> {
    let mut sum = usage(process_id)?;
    let parent = process_id.to_string();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        if fields.split_whitespace().nth(1) == Some(parent.as_str())
            && let Ok(one) = usage_with_children(child)
        {
            sum.cpu += one.cpu;
            sum.peak_memory_kib += one.peak_memory_kib;
            sum.memory_kib += one.memory_kib;
        }
    }
    Ok(sum)
}

/// User and system time of a line of `/proc/…/stat`.
fn time_of(stat: &str) -> Result<Duration> {
    // The name in parentheses may hold anything; the third field follows it.
    let fields = stat.rsplit(')').next().context("no fields")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}

/// The load average of the last minute: figures of a busy machine say little.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}
