//! One budget of a dollar, calls of a cent, and more callers than it has room for: what is spent
//! beyond it, what is left, who is refused while there is money, and how long it takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use spendfuse_benches::lab::{Lab, Role, free_address};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::callers::{Connection, Outcome, Traffic, get_text, run};
use crate::runs::{Runs, per_callers, told};
use crate::sitting::Sitting;
use crate::table::Line;
use crate::through;
use crate::waits::Waits;

/// As `--only` calls it.
pub const ROW: &str = "overspend";
const PARTITIONS: u32 = 4;
const BUDGETS: &str = r#"budgets:
  - {id: dollar, scope: {workspace: acme, customer: "*"}, limit: "1.00", window: lifetime}
"#;
/// Calls of the same model and feature that are known before, where a mode has them.
pub const KNOWN_CALLS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);
const MOST_SIDECARS: usize = 2;
/// A newcomer has its share of limits by then.
pub const SHARED_OUT: Duration = Duration::from_secs(5);
/// How many callers ask at a time.
pub const CALLERS: [usize; 4] = [1, 20, 100, 500];

/// A way to ask, and what it is to come to.
struct Mode {
    what: &'static str,
    question: fn() -> Value,
    usage: fn() -> Value,
    /// Whether [`KNOWN_CALLS`] were made before.
    is_known: bool,
    /// Whether the sidecar is killed in the middle.
    kills: bool,
    /// LiteLLM's proxy 1.108.7, one process, as a reviewer measured it on such a machine.
    theirs: &'static str,
    goal: Goal,
}

/// What is wanted.
#[derive(Clone, Copy)]
enum Goal {
    /// At most so many cents beyond the limit, by callers: 1, 20, 100, 500.
    Beyond([u64; 4]),
    /// Nothing beyond, everything spent within 1.5 times the ideal time, at most 50 needless
    /// refusals.
    AllSpent,
    /// Nothing that was acknowledged is missing.
    NothingMissing,
    /// It is shown as it is.
    None,
}

/// 400 tokens in and 900 out: a cent.
fn short() -> Value {
    json!({"input_tokens": 400, "output_tokens": 900})
}

/// A cent, nearly all of it for input.
fn long_input() -> Value {
    json!({"input_tokens": 3_920, "output_tokens": 20})
}

const MODES: [Mode; 7] = [
    Mode {
        what: "exact estimate",
        question: || json!({"reserve": true, "estimate": {"input_tokens": 400, "max_output_tokens": 900}}),
        usage: short,
        is_known: false,
        kills: false,
        theirs: "$0.00 / 0.00 / 0.00 beyond (20, 100, 500 callers)",
        goal: Goal::Beyond([0; 4]),
    },
    Mode {
        what: "input costs 70 times its text, ten calls known",
        question: || json!({"reserve": true, "estimate": {"input_tokens": 56, "max_output_tokens": 20}}),
        usage: long_input,
        is_known: true,
        kills: false,
        theirs: "$0.20 / 0.71 / 18.57 beyond",
        goal: Goal::Beyond([0, 10, 20, 50]),
    },
    Mode {
        what: "no max_tokens, ten calls known",
        question: || json!({"reserve": true, "estimate": {"input_tokens": 400}}),
        usage: short,
        is_known: true,
        kills: false,
        theirs: "all spent after 48 s, 1,477 needless refusals",
        goal: Goal::AllSpent,
    },
    Mode {
        what: "no max_tokens, nothing known",
        question: || json!({"reserve": true, "estimate": {"input_tokens": 400}}),
        usage: short,
        is_known: false,
        kills: false,
        theirs: "all spent after 48 s, 1,477 needless refusals",
        goal: Goal::None,
    },
    Mode {
        what: "max_tokens ten times too high, ten calls known",
        question: || json!({"reserve": true, "estimate": {"input_tokens": 400, "max_output_tokens": 9_000}}),
        usage: short,
        is_known: true,
        kills: false,
        theirs: "all spent after 16 s, 232 needless refusals",
        goal: Goal::AllSpent,
    },
    Mode {
        what: "no reservation",
        question: || json!({"estimate": {"input_tokens": 400, "max_output_tokens": 900}}),
        usage: short,
        is_known: false,
        kills: false,
        theirs: "$0.23 / 1.41 / 8.39 beyond",
        goal: Goal::None,
    },
    Mode {
        what: "kill -9 in the middle",
        question: || json!({"reserve": true, "estimate": {"input_tokens": 400, "max_output_tokens": 900}}),
        usage: short,
        is_known: false,
        kills: true,
        theirs: "25 to 40 % of what was acknowledged is missing, for good",
        goal: Goal::NothingMissing,
    },
];

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let lab = sitting.lab_with(ROW, PARTITIONS, BUDGETS)?;
    let _processor = lab.start("processor", "1", &[])?;
    let mut bench = Bench::start(sitting)?;
    let durations: &[u64] = sitting.choose(&[300, 2_000], &[300]);
    let mut lines = Vec::new();
    let (mut calm, mut killed) = (Waits::default(), Waits::default());
    for _ in 0..MOST_SIDECARS {
        bench.add_sidecar(&lab)?;
        for mode in &MODES {
            let before = bench.waits()?;
            for call in durations {
                lines.push(bench.line(mode, Duration::from_millis(*call))?);
            }
            let waits = if mode.kills { &mut killed } else { &mut calm };
            for (after, before) in bench.waits()?.iter().zip(&before) {
                waits.add(after, before);
            }
        }
    }
    let what = "wait of a check that reserves near a limit";
    lines.push(calm.line(ROW, what, Some(("p99 ≤ 30 ms", 0.03))));
    // Others wait for the answer of the one that is killed, once.
    lines.push(killed.line(ROW, "the same while a sidecar is killed", None));
    for (sidecar, _) in bench.sidecars {
        sidecar.stop();
    }
    match through::measure(sitting, &lab) {
        Ok(measured) => lines.extend(measured),
        Err(why) => lines.push(Line::failed(ROW, "through proxies", &why)),
    }
    Ok(lines)
}

/// Sidecars, and what goes on beside them.
struct Bench {
    runtime: Runtime,
    sidecars: Vec<(Role, String)>,
    runs: usize,
    callers: &'static [usize],
    offered: Duration,
}

impl Bench {
    fn start(sitting: &Sitting) -> Result<Self> {
        Ok(Self {
            runtime: Runtime::new()?,
            sidecars: Vec::new(),
            runs: sitting.choose(5, 1),
            callers: sitting.choose(&CALLERS, &CALLERS[1..3]),
            offered: sitting.choose(Duration::from_secs(20), Duration::from_secs(8)),
        })
    }

    /// Starts one more, and waits until it has its share.
    fn add_sidecar(&mut self, lab: &Lab) -> Result<()> {
        let (address, number) = (free_address()?, self.sidecars.len() + 1);
        let spool = lab.folder().join(format!("spool-{number}"));
        let settings = [
            format!("sidecar.listen={address}"),
            format!("sidecar.spool_dir={}", spool.display()),
        ];
        let role = lab.start("sidecar", &number.to_string(), &settings)?;
        self.sidecars.push((role, address));
        self.runtime.block_on(async {
            self.await_live().await?;
            sleep(SHARED_OUT).await;
            Ok(())
        })
    }

    /// What each sidecar says of waits so far.
    fn waits(&self) -> Result<Vec<Waits>> {
        let told = self.sidecars.iter().map(|(_, address)| {
            let metrics = self.runtime.block_on(get_text(address, "/metrics"))?;
            Ok(Waits::read(&metrics))
        });
        told.collect()
    }

    fn line(&self, mode: &Mode, call: Duration) -> Result<Line> {
        let mut all = Vec::new();
        for callers in self.callers {
            let mut outcomes = Vec::new();
            for run in 0..self.runs {
                let name = format!(
                    "{}-{callers}-{}-{}-{run}",
                    mode.what,
                    call.as_millis(),
                    self.sidecars.len()
                );
                let name = name.replace([' ', ','], "-");
                outcomes.push(
                    self.runtime
                        .block_on(self.run(mode, call, *callers, &name))?,
                );
            }
            all.push(Runs::of(*callers, &outcomes));
        }
        let ours = told(&all, mode.kills);
        let sidecars = match self.sidecars.len() {
            1 => "one sidecar".to_owned(),
            count => format!("{count} sidecars"),
        };
        let what = format!(
            "{}, calls of {} s, {sidecars}",
            mode.what,
            call.as_secs_f64()
        );
        let callers = per_callers(&all, |runs| runs.callers.to_string());
        let line = Line::new(ROW, what, ours)
            .against(mode.theirs)
            .note(format!(
                "{callers} callers, {} runs each: the worst of dollars, the median of refusals and times",
                self.runs
            ));
        Ok(match mode.goal {
            Goal::None => line,
            Goal::Beyond(most) => {
                let most = |runs: &Runs| {
                    CALLERS
                        .iter()
                        .zip(most)
                        .find(|(callers, _)| **callers == runs.callers)
                };
                let met = all
                    .iter()
                    .all(|runs| most(runs).is_some_and(|(_, most)| runs.beyond <= most));
                line.target("beyond ≤ the issue's", met)
            }
            Goal::AllSpent => {
                let met = all.iter().all(|runs| runs.is_all_spent(call, self.offered));
                line.target("nothing beyond, spent in 1.5 × ideal, ≤ 50 needless", met)
            }
            Goal::NothingMissing => {
                let met = all.iter().all(|runs| runs.missing == 0);
                line.target("$0.00 missing", met)
            }
        })
    }

    async fn run(
        &self,
        mode: &Mode,
        call: Duration,
        callers: usize,
        name: &str,
    ) -> Result<(Outcome, u64)> {
        let traffic = Traffic {
            sidecars: self.addresses(),
            customer: format!("c-{name}"),
            feature: format!("f-{name}"),
            callers,
            call,
            offered: self.offered,
            calls_each: u64::MAX,
            question: (mode.question)(),
            usage: (mode.usage)(),
        };
        if mode.is_known {
            let known = Traffic {
                customer: format!("known-{name}"),
                // Each sidecar knows what came through it.
                callers: self.sidecars.len(),
                call: Duration::ZERO,
                calls_each: KNOWN_CALLS,
                ..traffic.clone()
            };
            run(known).await?;
        }
        let customer = traffic.customer.clone();
        let running = tokio::spawn(run(traffic));
        if mode.kills {
            sleep(call + Duration::from_millis(50)).await;
            let (first, _) = &self.sidecars[0];
            first.kill();
            first.restart()?;
        }
        let outcome = running.await??;
        if mode.kills {
            self.await_live().await?;
        }
        let counted = self.await_counted(&customer, outcome.acknowledged).await?;
        Ok((outcome, counted))
    }

    /// Cents that the budget says are spent, once they are what was acknowledged, or will not be.
    async fn await_counted(&self, customer: &str, acknowledged: u64) -> Result<u64> {
        let mut connection = Connection::new(&self.sidecars[0].1);
        let question = json!({"workspace": "acme", "customer": customer});
        let began = Instant::now();
        loop {
            let answer = connection.post("/v1/check", &question).await?;
            let spent = answer["budgets"][0]["spent_usd"]
                .as_str()
                .context("spent")?;
            let cents = (spent.parse::<f64>()? * 100.0).round() as u64;
            if cents == acknowledged || began.elapsed() > PATIENCE {
                return Ok(cents);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn addresses(&self) -> Vec<String> {
        let addresses = self.sidecars.iter().map(|(_, address)| address.clone());
        addresses.collect()
    }

    async fn await_live(&self) -> Result<()> {
        for address in self.addresses() {
            let mut connection = Connection::new(&address);
            let question = json!({"workspace": "acme", "customer": "nobody"});
            let began = Instant::now();
            loop {
                if let Ok(answer) = connection.post("/v1/check", &question).await
                    && answer["state"] == "live"
                    && answer["budgets"][0].is_object()
                {
                    break;
                }
                ensure!(began.elapsed() < PATIENCE, "the sidecar is not live");
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}
