//! A child process that cannot outlive us, with its log in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::error::{DevStackError, while_doing};
use crate::poll::wait_until;

const LOG_TAIL_BYTES: u64 = 6_000;

/// One process and how to start it again. It ends with the process that started it; dropped, it is
/// killed.
#[derive(Debug)]
pub struct ServerProcess {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    running: Mutex<Option<Child>>,
}

impl ServerProcess {
    /// `program` with `arguments`, not started yet; its output goes to the file `log`, and `name`
    /// stands in errors.
    pub fn new(name: String, program: PathBuf, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            name,
            program,
            arguments,
            log,
            running: Mutex::new(None),
        }
    }

    /// Starts the process; output is appended to the log. Does nothing where it runs already.
    ///
    /// # Errors
    /// Where the log cannot be opened or the program not be started.
    pub fn start(&self) -> Result<(), DevStackError> {
        let mut running = self.running();
        if let Some(child) = running.as_mut()
            && child.try_wait().is_ok_and(|status| status.is_none())
        {
            return Ok(());
        }
        let opening = format!("opening {}", self.log.display());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(while_doing(opening.clone()))?;
        let errors = log.try_clone().map_err(while_doing(opening))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let child = spawn_bound_to_this_process(command)
            .map_err(while_doing(format!("starting {}", self.program.display())))?;
        *running = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits for the end. Nothing where it does not run.
    pub fn kill(&self) {
        if let Some(mut child) = self.running().take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and SIGKILL where it has not ended after `patience`. Returns whether it ended by
    /// itself.
    pub fn stop(&self, patience: Duration) -> bool {
        self.terminate();
        let ended = wait_until("the end of a process", patience, || {
            self.exit_status().map(|_| ())
        });
        self.kill();
        ended.is_ok()
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
        // A paused process acts on the signal only once it goes on.
        self.signal(Signal::SIGCONT);
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT: ends a pause.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until `probe` succeeds, and fails at once where the process ends before.
    ///
    /// # Errors
    /// [`DevStackError::Ended`] or [`DevStackError::NotReady`], with the end of the log.
    pub fn wait_ready(
        &self,
        timeout: Duration,
        mut probe: impl FnMut() -> Result<(), String>,
    ) -> Result<(), DevStackError> {
        let begin = Instant::now();
        let mut reason = String::from("not asked");
        let outcome = wait_until("readiness", timeout, || {
            if let Some(status) = self.exit_status() {
                return Some(Err(status));
            }
            match probe() {
                Ok(()) => Some(Ok(())),
                Err(why) => {
                    reason = why;
                    None
                }
            }
        });
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(DevStackError::Ended {
                name: self.name.clone(),
                status,
                log: self.log.clone(),
                tail: self.log_tail(),
            }),
            Err(_) => Err(DevStackError::NotReady {
                name: self.name.clone(),
                waited: begin.elapsed(),
                reason,
                log: self.log.clone(),
                tail: self.log_tail(),
            }),
        }
    }

    /// How it ended, or `None` while it runs.
    pub fn exit_status(&self) -> Option<String> {
        match self.running().as_mut() {
            None => Some("not running".to_owned()),
            Some(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(format!("its status cannot be read: {error}")),
            },
        }
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.running().as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.running().as_ref() {
            let pid = i32::try_from(child.id()).expect("Linux process ids fit an i32");
            // An error means that it has ended: what follows notices that by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn log_tail(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            file.read_to_end(&mut text)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("(unreadable: {error})"),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

type SpawnRequest = (Command, Sender<io::Result<Child>>);

/// Starts a child that the kernel kills when this process ends, SIGKILL included.
///
/// `PR_SET_PDEATHSIG` watches the *thread* that forked, not the process: a child started by a test
/// thread or by a runtime's blocking thread would die with that thread. So one thread that never
/// ends starts them all.
fn spawn_bound_to_this_process(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<SpawnRequest>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel::<SpawnRequest>();
        std::thread::Builder::new()
            .name("devstack-spawner".to_owned())
            .spawn(move || {
                for (command, answer) in inbox {
                    // The asker always waits for the answer.
                    let _ = answer.send(spawn_bound_to_this_thread(command));
                }
            })
            .expect("a thread can be started");
        Mutex::new(requests)
    });
    let (answer, outcome) = channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .expect("the spawner thread never ends");
    outcome.recv().expect("the spawner thread never ends")
}

fn spawn_bound_to_this_thread(mut command: Command) -> io::Result<Child> {
    let us = Pid::this();
    // Its own process group: Ctrl-C in a terminal is for the parent, which decides in which order
    // its servers end.
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // We may have ended before the line above: then nobody would send the signal.
            if getppid() != us {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: PathBuf) -> ServerProcess {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        ServerProcess::new("a shell".to_owned(), "/bin/sh".into(), arguments, log)
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let process = std::thread::spawn(move || {
            let process = shell("exec sleep 60", log);
            process.start().unwrap();
            process
        })
        .join()
        .unwrap();
        let ended = wait_until("the end", Duration::from_millis(200), || {
            process.exit_status()
        });
        assert!(ended.is_err(), "{ended:?}");
    }

    #[test]
    fn a_process_that_ends_early_is_reported_with_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let process = shell("echo no such luck; exit 3", folder.path().join("log"));
        process.start().unwrap();
        let error = process
            .wait_ready(Duration::from_secs(5), || Err("still starting".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("no such luck"), "{error}");
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let process = shell(
            "trap '' TERM; echo trapped; sleep 60 & wait; wait",
            log.clone(),
        );
        process.start().unwrap();
        wait_until("the trap", Duration::from_secs(5), || {
            let text = std::fs::read_to_string(&log).unwrap();
            text.contains("trapped").then_some(())
        })
        .unwrap();
        assert!(!process.stop(Duration::from_millis(100)));
        assert_eq!(process.exit_status().as_deref(), Some("not running"));
    }
}
