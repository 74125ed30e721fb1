//! A role of the real executable as a process that is killed and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spendfuse_devstack::ServerProcess;

/// A role that ended by itself is started again after this time, as a supervisor would.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const TAIL_LINES: usize = 3;

/// A role and what is wanted of it.
pub struct Actor {
    /// Its name: that of its log.
    pub name: String,
    process: ServerProcess,
    log: PathBuf,
    is_wanted: bool,
    ended_at: Option<Instant>,
    /// The end of the log of each time that it ended by itself.
    pub own_ends: Vec<String>,
}

impl Actor {
    /// `program` with `arguments`; not started yet. Its log is in `folder`.
    pub fn new(name: &str, program: &Path, arguments: Vec<String>, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self {
            name: name.to_owned(),
            process: ServerProcess::new(
                name.to_owned(),
                program.to_owned(),
                arguments,
                log.clone(),
            ),
            log,
            is_wanted: false,
            ended_at: None,
            own_ends: Vec::new(),
        }
    }

    /// Starts it where it does not run.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.is_wanted = true;
        self.ended_at = None;
        Ok(self.process.start()?)
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        self.process.exit_status().is_none()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.note_own_end();
        self.is_wanted = false;
        self.process.kill();
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&mut self) {
        self.note_own_end();
        self.is_wanted = false;
        self.process.terminate();
    }

    /// SIGTERM, and SIGKILL after a while. Returns whether it ended by itself.
    pub fn stop(&mut self) -> bool {
        self.is_wanted = false;
        self.process.stop(Duration::from_secs(20))
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Starts it again where it ended by itself; to be called now and then.
    pub fn supervise(&mut self) -> anyhow::Result<()> {
        self.note_own_end();
        if self.is_wanted
            && self
                .ended_at
                .is_some_and(|at| at.elapsed() >= RESTART_AFTER)
        {
            self.start()?;
        }
        Ok(())
    }

    /// How often a worker of it panicked.
    pub fn panics(&self) -> usize {
        self.lines_with("panicked").len()
    }

    /// Lines of its log with `text`.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    fn note_own_end(&mut self) {
        if !self.is_wanted || self.ended_at.is_some() {
            return;
        }
        if let Some(status) = self.process.exit_status() {
            self.ended_at = Some(Instant::now());
            self.own_ends.push(format!("{status}: {}", self.tail()));
        }
    }

    fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(TAIL_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" ⏎ ")
    }
}
