//! Other work on the machine, of the lowest priority.
//!
//! An attack keeps processors from sleeping, and on a shared host from being lent to others: answers
//! take another time then, whoever is attacked.

use std::hint::black_box;
use std::io::{self, Read};
use std::path::Path;
use std::process::{self, Child, Stdio};
use std::thread;

use anyhow::{Context as _, Result};
use spendfuse_tests::attack::of_lowest_priority;

/// The flag by which this program is told to [`compute`].
pub const BUSY_FLAG: &str = "busy";

/// A program on each processor that computes whenever nobody else wants it. Dropped, they are killed.
pub struct BusyProcessors(Vec<Child>);

impl BusyProcessors {
    pub fn start(program: &Path) -> Result<Self> {
        let processors = thread::available_parallelism().context("the number of processors")?;
        let started = (0..processors.get()).map(|_| {
            of_lowest_priority(program)
                .arg(format!("--{BUSY_FLAG}"))
                .stdin(Stdio::piped())
                .spawn()
                .context("chrt (util-linux) starts a program that computes")
        });
        started.collect::<Result<_>>().map(Self)
    }
}

impl Drop for BusyProcessors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Computes until standard input ends, as it does with whoever started this.
pub fn compute() -> ! {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(0);
    });
    let mut sum = 0_u64;
    loop {
        sum = black_box(sum.wrapping_add(1));
    }
}
