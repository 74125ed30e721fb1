//! A role of the real binary as a child process, with its log.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use spendfuse_devstack::ServerProcess;

use crate::wait::eventually;

/// How long a role may take to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Lines of a role's log that a failing test shows.
const SHOWN_LINES: usize = 30;

/// A running role. Dropped, it is killed.
#[derive(Debug)]
pub struct Role {
    name: String,
    process: ServerProcess,
    log: PathBuf,
    started_at_byte: usize,
}

impl Role {
    /// Starts `program` with `arguments`.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(name: &str, program: PathBuf, arguments: Vec<String>, log: PathBuf) -> Self {
        let process = ServerProcess::new(name.to_owned(), program, arguments, log.clone());
        process.start().expect("the binary starts");
        Self {
            name: name.to_owned(),
            process,
            log,
            started_at_byte: 0,
        }
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// Where it has not ended after 20 s.
    pub fn stop(&self) {
        let ended = self.process.stop(STOP_PATIENCE);
        assert!(
            ended,
            "{} does not end on SIGTERM:\n{}",
            self.name,
            self.log()
        );
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Starts it again after a kill or stop.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn restart(&mut self) {
        self.started_at_byte = fs::metadata(&self.log).map_or(0, |data| data.len() as usize);
        self.process.start().expect("the binary starts");
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.exit_status().is_none()
    }

    /// Its process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.process_id()
    }

    /// Processor time that it has used since its last start, in seconds.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.process_id().expect("the role runs"))
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[self.started_at_byte.min(bytes.len())..]).into_owned()
    }

    /// Waits for a line with `text` since the last start.
    ///
    /// # Panics
    /// Where none comes within `patience`, or the role ends.
    pub fn await_line(&self, text: &str, patience: Duration) -> String {
        eventually(&format!("{} says {text:?}", self.name), patience, || {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            let status = self.process.exit_status();
            assert_eq!(status, None, "{} ended:\n{log}", self.name);
            Err(log)
        })
    }
}

/// A test that fails shows what its roles said last.
impl Drop for Role {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        eprintln!("the last that {} said:\n{}\n", self.name, last.join("\n"));
    }
}

/// Processor time that a process has used, in seconds.
///
/// # Panics
/// Where it does not run.
pub fn cpu_seconds(process: u32) -> f64 {
    // Linux counts in hundredths of a second; the 14th and 15th fields are user and system time,
    // after a name in parentheses that may contain blanks.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    let (_, fields) = stat
        .rsplit_once(')')
        .expect("the name stands in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}
