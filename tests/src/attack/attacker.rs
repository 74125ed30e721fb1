//! The hostile program, as a process of its own, and what it is told to do.
//!
//! Whoever attacks a sidecar from another machine does not take that machine's processors from it.
//! On one machine the attacker therefore has the lowest priority (`SCHED_IDLE`): it gets what the
//! sidecar and the honest caller leave over, and what is measured is what the sidecar makes of it.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Answers, Plan, hostile, slow};
use crate::admin::Address;

/// The flag by which the program is told that it is the attacker, and of which port.
pub const ATTACKER_FLAG: &str = "--attacker";

/// What is done, each on top of the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Slow,
    Half,
    Requests,
    Names,
}

impl Step {
    pub(super) const ALL: [Self; 4] = [Self::Slow, Self::Half, Self::Requests, Self::Names];

    fn word(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Half => "half",
            Self::Requests => "requests",
            Self::Names => "names",
        }
    }

    /// In words, for people.
    pub(super) fn told(self, plan: &Plan) -> String {
        match self {
            Self::Slow => format!("{} slow connections", plan.slow),
            Self::Half => {
                let megabytes = plan.half_bytes / 1_000_000;
                format!("and {} half bodies of {megabytes} MB", plan.half)
            }
            Self::Requests => format!("and {} hostile requests", plan.requests),
            Self::Names => format!("and {} invented names", plan.names),
        }
    }
}

/// A program that gets what others leave over, by `chrt` (util-linux).
pub fn of_lowest_priority(program: &Path) -> Command {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(program);
    command
}

/// The running attacker, as whoever watches it sees it. Dropped, it is killed.
pub(super) struct Attacker {
    process: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Attacker {
    /// Starts `program`, which calls [`obey`], against the sidecar at `address`.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub(super) fn start(program: &Path, address: Address, plan: &Plan) -> Self {
        let mut process = of_lowest_priority(program)
            .args([ATTACKER_FLAG, &address.port().to_string()])
            .args(plan.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("chrt (util-linux) starts the attacker");
        let orders = process.stdin.take().expect("it is piped");
        let said = process.stdout.take().expect("it is piped");
        Self {
            process,
            orders,
            said: BufReader::new(said),
        }
    }

    /// Returns when the step is done, or begun where it goes on until the end: the answers to it.
    ///
    /// # Panics
    /// Where the attacker has ended.
    pub(super) fn take(&mut self, step: Step) -> Answers {
        writeln!(self.orders, "{}", step.word()).expect("the attacker runs");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("the attacker runs");
        assert!(line.ends_with('\n'), "the attacker has ended");
        let pairs = line.split_whitespace().map(|pair| {
            let (status, count) = pair.split_once('=').expect("status=count");
            let number = |text: &str| text.parse::<usize>().expect("a number");
            (number(status) as u16, number(count))
        });
        pairs.collect()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The attacker's side: does what standard input says, a step a line, until it ends.
///
/// # Errors
/// Where nobody reads what it says.
pub fn obey(address: Address, plan: &Plan) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for line in io::stdin().lock().lines() {
            let line = line?;
            let step = Step::ALL.into_iter().find(|step| step.word() == line);
            let mut answers = Answers::new();
            match step {
                Some(Step::Slow) => {
                    scope.spawn(|| slow::heads(address, plan.slow, &stop));
                }
                Some(Step::Half) => {
                    scope.spawn(|| slow::bodies(address, plan.half, plan.half_bytes, &stop));
                }
                Some(Step::Requests) => answers = hostile::requests(address, plan),
                Some(Step::Names) => answers = hostile::names(address, plan),
                None => {}
            }
            let told: Vec<String> = answers
                .iter()
                .map(|(status, count)| format!("{status}={count}"))
                .collect();
            println!("{}", told.join(" "));
            io::stdout().flush()?;
        }
        stop.store(true, Ordering::SeqCst);
        Ok(())
    })
}
