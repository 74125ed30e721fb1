//! What the operating system knows of this process, under the names that all exporters use.

use std::fmt::Write as _;
use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};
use spendfuse_metrics::Kind;

spendfuse_metrics::table! {
    /// Seconds of processor time that this process has used.
    counter CPU_SECONDS = "process_cpu_seconds_total";
    /// Bytes of physical memory that it holds.
    gauge RESIDENT_BYTES = "process_resident_memory_bytes";
    /// Bytes of its address space.
    gauge VIRTUAL_BYTES = "process_virtual_memory_bytes";
    /// Files and connections that it has open.
    gauge OPEN_FDS = "process_open_fds";
    /// How many it may have.
    gauge MAX_FDS = "process_max_fds";
    /// Its threads.
    gauge THREADS = "process_threads";
    /// When it started, seconds since 1970.
    gauge START_TIME = "process_start_time_seconds";
}

/// Adds the metrics to `text`. Where there is no /proc, nothing is added.
pub(super) fn render(text: &mut String) {
    for (name, value) in read() {
        let Some(metric) = ALL.iter().find(|metric| metric.name == name) else {
            continue;
        };
        let kind = match metric.kind {
            Kind::Counter => "counter",
            _ => "gauge",
        };
        let help = super::help(metric);
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        );
    }
}

fn read() -> Vec<(&'static str, f64)> {
    let mut found = Vec::new();
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|text| Stat::parse(&text))
    {
        let ticks = per_unit(SysconfVar::CLK_TCK, 100.0);
        let page = per_unit(SysconfVar::PAGE_SIZE, 4096.0);
        found.push((CPU_SECONDS, stat.cpu_ticks / ticks));
        found.push((RESIDENT_BYTES, stat.resident_pages * page));
        found.push((VIRTUAL_BYTES, stat.virtual_bytes));
        found.push((THREADS, stat.threads));
        if let Some(boot) = boot_seconds() {
            found.push((START_TIME, boot + stat.started_ticks / ticks));
        }
    }
    if let Some(open) = open_files() {
        found.push((OPEN_FDS, open as f64));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        found.push((MAX_FDS, soft as f64));
    }
    found
}

/// To list a thousand connections keeps a processor for a millisecond, and nobody can interrupt the
/// kernel in it; so the system is asked for their number (Linux 6.2), and counts only where it does
/// not know.
fn open_files() -> Option<u64> {
    const OPEN: &str = "/proc/self/fd";
    match fs::metadata(OPEN).ok()?.len() {
        // One of them reads this folder.
        0 => Some((fs::read_dir(OPEN).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

fn per_unit(variable: SysconfVar, usual: f64) -> f64 {
    let known = sysconf(variable).ok().flatten();
    known.map_or(usual, |value| value as f64)
}

fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// Of `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    started_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name may hold spaces and parentheses.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Counted from 1 in the manual, and `rest` begins with the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1234 4096000 100 0";
        let stat = Stat::parse(line);
        let expected = Stat {
            cpu_ticks: 200.0,
            threads: 9.0,
            started_ticks: 1234.0,
            virtual_bytes: 4_096_000.0,
            resident_pages: 100.0,
        };
        assert_eq!(stat, Some(expected));
    }

    #[test]
    fn this_process_is_described() {
        let mut text = String::new();
        render(&mut text);
        for metric in ALL {
            assert!(text.contains(&format!("\n{} ", metric.name)), "{text}");
        }
    }
}
