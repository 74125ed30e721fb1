//! The fault runs must be able to fail: each guarantee is broken on purpose, provoked, and must be
//! caught by the same checks as in every run.

mod plots;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use spendfuse_broken::Break;

use crate::check::Depth;
use crate::retention::Life;
use crate::run::{Outcome, World};
use crate::schedule::Releases;
use crate::system::SystemOptions;
use plots::Plot;
use spendfuse_tests::random::Random;

/// Seeds that are tried until one provokes what is broken.
const ATTEMPTS: u64 = 3;
/// About how long events come.
const SECONDS: u64 = 20;
const SETTLE: Duration = Duration::from_secs(45);
/// The same where something is broken: several times what it takes where nothing is.
const SETTLE_BROKEN: Duration = Duration::from_secs(20);

/// How a broken guarantee was found out, or was not.
pub struct Verdict {
    /// What was broken; `None` is the control, where nothing is.
    pub broken: Option<Break>,
    /// What was done.
    pub plot: &'static str,
    /// The seed that did it.
    pub seed: u64,
    /// How long that took.
    pub took: Duration,
    /// The checks that noticed, each with its first difference.
    pub noticed: Vec<(&'static str, String)>,
}

/// Runs the plot of every variant in `wanted` (all where empty) with the executable that can break
/// guarantees. As `control` nothing is broken, and nothing may be noticed: each plot once.
pub fn run(
    program: &Path,
    folder: &Path,
    seed: u64,
    wanted: &[Break],
    control: bool,
) -> Result<Vec<Verdict>> {
    ensure!(
        program.is_file(),
        "{} is not there: make chaos builds it",
        program.display()
    );
    let attempt = |plot, broken: Option<Break>, seed| {
        let name = broken.map_or("control", Break::name);
        let attempt = Attempt {
            program: program.to_owned(),
            folder: folder.join(format!("{name}-{plot:?}-{seed}")),
            seed,
            plot,
            broken,
        };
        attempt.carry_out()
    };
    let mut plots = Vec::new();
    let mut verdicts = Vec::new();
    let all = Break::ALL.into_iter();
    for broken in all.filter(|one| wanted.is_empty() || wanted.contains(one)) {
        let Some(plot) = Plot::for_breaking(broken) else {
            continue;
        };
        let verdict = if !control {
            let mut tried = seed;
            loop {
                let verdict = attempt(plot, Some(broken), tried);
                tried += 1;
                let is_last = tried == seed + ATTEMPTS;
                match verdict {
                    Ok(verdict) if verdict.is_right() || is_last => break verdict,
                    Err(error) if is_last => return Err(error.context(broken.name())),
                    Ok(verdict) => eprintln!("{}", verdict.line()),
                    Err(error) => eprintln!("{} cannot be run: {error:#}", broken.name()),
                }
            }
        } else if plots.contains(&plot) {
            continue;
        } else {
            plots.push(plot);
            attempt(plot, None, seed)?
        };
        eprintln!("{}", verdict.line());
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

impl Verdict {
    /// Whether it is as it must be.
    pub fn is_right(&self) -> bool {
        self.broken.is_some() != self.noticed.is_empty()
    }

    /// The verdict for people.
    pub fn line(&self) -> String {
        let name = self.broken.map_or("nothing broken", Break::name);
        let result = match (self.is_right(), self.broken) {
            (true, Some(_)) => "caught",
            (false, Some(_)) => "NOT CAUGHT",
            (true, None) => "ok",
            (false, None) => "WRONG",
        };
        let mut line = format!(
            "{result:<10}  {name}, seed {}, by {} ({} s)",
            self.seed,
            self.plot,
            self.took.as_secs()
        );
        for (check, difference) in &self.noticed {
            line.push_str(&format!("\n            {check}: {difference}"));
        }
        line
    }

    /// The verdict for programs.
    pub fn json(&self) -> Value {
        let noticed: Vec<Value> = self
            .noticed
            .iter()
            .map(|(check, difference)| json!({"check": check, "difference": difference}))
            .collect();
        json!({
            "broken": self.broken.map(Break::name),
            "plot": self.plot,
            "seed": self.seed,
            "seconds": self.took.as_secs(),
            "noticed": noticed,
            "ok": self.is_right(),
        })
    }
}

struct Attempt {
    program: PathBuf,
    folder: PathBuf,
    seed: u64,
    plot: Plot,
    broken: Option<Break>,
}

impl Attempt {
    fn carry_out(&self) -> Result<Verdict> {
        let begin = Instant::now();
        std::fs::create_dir_all(&self.folder)?;
        let options = SystemOptions {
            nodes: 1,
            program: self.program.clone(),
            previous: None,
            broken: self.broken.map(|broken| broken.name().to_owned()),
            life: Life::ShortMemory,
            length: Duration::from_secs(SECONDS),
            releases: Releases::One,
            folder: self.folder.clone(),
        };
        let mut world = World::start(options, self.seed, SECONDS)?;
        let senders = self
            .plot
            .carry_out(&mut world, &mut Random::new(self.seed, 7))?;
        let (patience, depth) = match self.broken {
            None => (SETTLE, Depth::Everything),
            Some(_) => (SETTLE_BROKEN, Depth::FirstDifference),
        };
        let outcome = world.settle(senders, patience, depth)?;
        Ok(Verdict {
            broken: self.broken,
            plot: self.plot.name(),
            seed: self.seed,
            took: begin.elapsed(),
            noticed: noticed(&outcome),
        })
    }
}

fn noticed(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let wrong = outcome.checks.iter().filter_map(|check| {
        let first = check.differences.first()?;
        let more = check.differences.len() - 1;
        let more = if more > 0 {
            format!(" (and {more} more)")
        } else {
            String::new()
        };
        Some((check.name, format!("{first}{more}")))
    });
    wrong.collect()
}
