//! One budget of a dollar and calls of a cent through our proxies, and through LiteLLM's from the
//! same callers to the same stub.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use spendfuse_benches::lab::{Lab, Servers};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::callers::{BETWEEN_ATTEMPTS, Connection, Outcome, Progress};
use crate::litellm::{self, LiteLlm, Settings};
use crate::overspend::{CALLERS, KNOWN_CALLS, ROW, SHARED_OUT};
use crate::proxy;
use crate::runs::{Runs, per_callers, told};
use crate::sitting::{Sitting, fetch};
use crate::stub::{Stub, Wanted};
use crate::table::Line;

const CALL: Duration = Duration::from_millis(300);

/// A way to ask.
struct Mode {
    what: &'static str,
    max_tokens: Option<u64>,
    /// Tokens that are billed, of input and output: a cent.
    billed: (u64, u64),
    /// Whether ours has [`KNOWN_CALLS`] of the feature before; LiteLLM does not learn.
    is_known: bool,
    /// Cents beyond the limit at most, by callers: 20, 100, 500; and in words.
    most: ([u64; 3], &'static str),
}

const NOTHING: ([u64; 3], &str) = ([0; 3], "nothing beyond");

const MODES: [Mode; 4] = [
    Mode {
        what: "exact max_tokens",
        max_tokens: Some(990),
        billed: (40, 990),
        is_known: false,
        most: NOTHING,
    },
    Mode {
        what: "input costs far more than its text, ten calls known",
        max_tokens: Some(20),
        billed: (3_920, 20),
        is_known: true,
        most: ([10, 20, 50], "beyond ≤ $0.10 / 0.20 / 0.50"),
    },
    Mode {
        what: "no max_tokens, ten calls known",
        max_tokens: None,
        billed: (40, 990),
        is_known: true,
        most: NOTHING,
    },
    Mode {
        what: "max_tokens ten times too high, ten calls known",
        max_tokens: Some(9_900),
        billed: (40, 990),
        is_known: true,
        most: NOTHING,
    },
];

/// The lines: through one proxy and two, beside as many workers of LiteLLM.
pub fn measure(sitting: &Sitting, lab: &Lab) -> Result<Vec<Line>> {
    let bench = Bench {
        runtime: Runtime::new()?,
        stub: Stub::start()?,
        runs: sitting.choose(5, 1),
        callers: sitting.choose(&CALLERS[1..], &CALLERS[1..3]),
        offered: sitting.choose(Duration::from_secs(20), Duration::from_secs(8)),
    };
    let is_there = fetch("litellm").and_then(|_| fetch("redis"));
    let mut proxies = Vec::new();
    let mut lines = Vec::new();
    for count in 1..=2 {
        let mut theirs: Vec<Result<Vec<String>>> = Vec::new();
        if is_there.is_ok() {
            let measured = |settings| bench.through_theirs(&sitting.servers, settings, count);
            theirs.extend(litellm::SETTINGS.map(measured));
        }
        proxies.push(proxy::start(lab, &bench.stub, &format!("through-{count}"))?);
        let addresses: Vec<String> = proxies.iter().map(|(_, address)| address.clone()).collect();
        thread::sleep(SHARED_OUT);
        for (number, mode) in MODES.iter().enumerate() {
            let all = bench.through_ours(mode, &addresses)?;
            let skipped = is_there.as_ref().err().map(litellm::skipped);
            let measured = theirs.iter().map(|one| match one {
                Ok(figures) => figures[number].clone(),
                Err(why) => litellm::skipped(why),
            });
            let against: Vec<String> = skipped.into_iter().chain(measured).collect();
            let (most, goal) = mode.most;
            let met = all.iter().zip(most).all(|(runs, most)| runs.beyond <= most);
            let callers = per_callers(&all, |runs| runs.callers.to_string());
            let what = format!("{}, proxies: {count}", mode.what);
            let line = Line::new(ROW, what, told(&all, false)).against(against.join("; "));
            lines.push(line.target(goal, met).note(format!(
                "{callers} callers, calls of 0.3 s, {} runs each: the worst of dollars, the median \
                 of refusals and times",
                bench.runs
            )));
        }
    }
    Ok(lines)
}

struct Bench {
    runtime: Runtime,
    stub: Stub,
    runs: usize,
    callers: &'static [usize],
    offered: Duration,
}

/// Callers of one run.
struct Load {
    addresses: Vec<String>,
    path: &'static str,
    /// Header lines, each with its end.
    headers: String,
    body: Value,
    callers: usize,
    calls_each: u64,
    offered: Duration,
}

impl Bench {
    fn load(&self, mode: &Mode, call: Duration, callers: usize) -> Load {
        let (input, output) = mode.billed;
        let wanted = Wanted {
            call,
            input,
            output,
        };
        let message = json!({"role": "user", "content": wanted.in_words()});
        let mut body = json!({"model": "gpt-4o", "messages": [message]});
        if let Some(most) = mode.max_tokens {
            body["max_tokens"] = json!(most);
        }
        Load {
            addresses: Vec::new(),
            path: litellm::PATH,
            headers: String::new(),
            body,
            callers,
            calls_each: u64::MAX,
            offered: self.offered,
        }
    }

    fn through_ours(&self, mode: &Mode, addresses: &[String]) -> Result<Vec<Runs>> {
        self.all(|callers, run| {
            let name = format!("{}-{callers}-{}-{run}", mode.what, addresses.len());
            let name = name.replace([' ', ','], "-");
            let asked = |call, callers, calls_each, customer: &str| Load {
                addresses: addresses.to_vec(),
                path: "/openai/v1/chat/completions",
                headers: format!(
                    "x-spendfuse-customer: {customer}-{name}\r\nx-spendfuse-feature: {name}\r\n"
                ),
                calls_each,
                ..self.load(mode, call, callers)
            };
            if mode.is_known {
                // Each proxy knows what came through it.
                let known = asked(Duration::ZERO, addresses.len(), KNOWN_CALLS, "known");
                self.runtime.block_on(self.run(known))?;
            }
            let all = asked(CALL, callers, u64::MAX, "through");
            self.runtime.block_on(self.run(all))
        })
    }

    /// The figures of each mode, in words.
    fn through_theirs(
        &self,
        servers: &Servers,
        settings: Settings,
        workers: usize,
    ) -> Result<Vec<String>> {
        let theirs = LiteLlm::start(servers, &self.stub, settings, workers)?;
        let name = litellm::told(settings, workers);
        let figures = MODES.iter().map(|mode| {
            let all = self.all(|callers, _| {
                let load = Load {
                    addresses: theirs.addresses.clone(),
                    headers: self.runtime.block_on(theirs.key(1.0))?,
                    ..self.load(mode, CALL, callers)
                };
                self.runtime.block_on(self.run(load))
            })?;
            anyhow::Ok(format!("{}, {name}: {}", litellm::NAME, told(&all, false)))
        });
        figures.collect()
    }

    fn all(&self, one: impl Fn(usize, usize) -> Result<Outcome>) -> Result<Vec<Runs>> {
        let of_callers = |callers: &usize| {
            let outcomes: Result<Vec<_>> = (0..self.runs)
                .map(|run| {
                    let outcome = one(*callers, run)?;
                    let counted = outcome.acknowledged;
                    anyhow::Ok((outcome, counted))
                })
                .collect();
            anyhow::Ok(Runs::of(*callers, &outcomes?))
        };
        self.callers.iter().map(of_callers).collect()
    }

    async fn run(&self, load: Load) -> Result<Outcome> {
        let progress = Arc::new(Progress::new(load.offered));
        self.stub.tell(Arc::clone(&progress));
        let load = Arc::new(load);
        let mut running = JoinSet::new();
        for number in 0..load.callers {
            running.spawn(caller(Arc::clone(&load), Arc::clone(&progress), number));
        }
        while let Some(ended) = running.join_next().await {
            ended?;
        }
        Ok(progress.outcome())
    }
}

async fn caller(load: Arc<Load>, progress: Arc<Progress>, number: usize) {
    let address = &load.addresses[number % load.addresses.len()];
    let mut connection = Connection::patient(address, &load.headers);
    let mut made = 0;
    while made < load.calls_each && !progress.is_over() {
        match connection.exchange(load.path, &load.body).await {
            Ok((200, _)) => {
                made += 1;
                continue;
            }
            Ok((400..500, _)) => progress.refused(),
            Ok(_) | Err(_) => progress.failed(),
        }
        sleep(BETWEEN_ATTEMPTS).await;
    }
}
