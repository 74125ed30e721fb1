//! Clients that hold before they call, through two sidecars that are killed: what is spent in the end
//! passes no limit by more than what no hold could show.
//!
//! A call costs up to three times its estimate and lasts 0.1 to 5 s; its event goes through either
//! sidecar, or straight to Kafka. Some calls die, some last longer than their hold. The clients know
//! the truth: [`bound`] computes from it by how much a limit may have been passed, and compares.

mod bound;
mod client;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use spendfuse_domain::Nanos;

use crate::http::{Answer, ask};
use crate::load::Sender;
use crate::random::Random;
use crate::wait::{eventually, pause};
use crate::{Lab, Role};
use bound::Printed;
pub use bound::Verdict;
use client::Call;

/// Customers with a limit of their own each.
const CUSTOMERS: u64 = 3;
const SIDECARS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(30);
/// Everything that is held is settled or over by then.
const SETTLE: Duration = Duration::from_secs(45);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides who asks for what, and who is killed.
    pub seed: u64,
    /// How long clients call.
    pub length: Duration,
    /// How many there are.
    pub clients: u64,
    /// What is held is what calls cost, for as long as they last, and no sidecar is killed: nothing
    /// excuses a cent beyond a limit.
    pub is_exact: bool,
}

/// What a run has come to.
#[derive(Debug)]
pub struct Outcome {
    /// One for each customer.
    pub verdicts: Vec<Verdict>,
    /// What else is wrong.
    pub differences: Vec<String>,
    /// Calls that were admitted, and refused.
    pub calls: (usize, u64),
    /// Sidecars killed.
    pub kills: u32,
    /// Calls that sidecars judged without knowing what others hold, since their last start.
    pub unsure: u64,
}

impl Outcome {
    /// Whether no limit was passed by more than it may be, and nothing leaked.
    pub fn is_right(&self) -> bool {
        self.differences.is_empty() && self.verdicts.iter().all(Verdict::is_right)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((admitted, refused), kills, unsure) = (self.calls, self.kills, self.unsure);
        writeln!(
            formatter,
            "holds: {admitted} calls admitted ({unsure} by what one sidecar knew), {refused} refused, {kills} sidecars killed"
        )?;
        for verdict in &self.verdicts {
            writeln!(formatter, "  {verdict}")?;
        }
        for difference in &self.differences {
            writeln!(formatter, "  {difference}")?;
        }
        Ok(())
    }
}

/// What clients share.
pub(crate) struct Shared<'a> {
    lab: &'a Lab,
    sender: Sender,
    sockets: Vec<PathBuf>,
    calls: Mutex<Vec<Call>>,
    refused: Mutex<u64>,
    is_over: AtomicBool,
}

impl Shared<'_> {
    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a sidecar; an error where it is away.
    fn connect(&self, sidecar: usize) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.sockets[sidecar])?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }
}

pub(crate) fn customer(number: u64) -> String {
    format!("c-{number}")
}

/// Runs clients and faults, and compares.
///
/// # Panics
/// Where the parts do not start, or do not end what is under way.
pub fn run(lab: &Lab, options: Options) -> Outcome {
    lab.create_topics();
    let limit = limit(options);
    // Near its limit a figure is seconds old, not a minute.
    let of_limit = |percent: u64| Nanos::new(limit.get() * i128::from(percent) / 100);
    lab.apply_budgets(&format!(
        "budgets:\n  - {{id: cap, scope: {{workspace: acme, customer: \"*\"}}, limit: \"{limit}\", window: lifetime, reserve_rule: given, action: block}}\n\
         \x20 - {{id: all, scope: {{workspace: acme}}, limit: \"{}\", window: lifetime, reserve_rule: given, action: block}}\n\
         \x20 - {{id: each, scope: {{workspace: acme, customer: \"*\"}}, limit: \"{}\", window: month, reserve_rule: given, action: block}}\n",
        of_limit(150 * CUSTOMERS),
        of_limit(105),
    ));
    let processor = lab.processor("1");
    let sockets: Vec<PathBuf> = (0..SIDECARS)
        .map(|number| lab.file(&format!("sidecar-{number}.socket")))
        .collect();
    let mut sidecars: Vec<Role> = (0..SIDECARS)
        .map(|number| start(lab, number, &sockets[number]))
        .collect();
    let shared = Shared {
        lab,
        sender: Sender::new(lab),
        sockets,
        calls: Mutex::default(),
        refused: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    for sidecar in 0..SIDECARS {
        await_ready(&shared, sidecar);
    }
    let mut kills = 0;
    let printed = thread::scope(|scope| {
        for number in 0..options.clients {
            let random = Random::new(options.seed, 100 + number);
            let shared = &shared;
            scope.spawn(move || client::run(shared, random, options.is_exact));
        }
        let sampler = scope.spawn(|| sample(&shared));
        kills = attack(&mut sidecars, &processor, options);
        shared.is_over.store(true, Ordering::Relaxed);
        match sampler.join() {
            Ok(printed) => printed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let mut differences = Vec::new();
    differences.extend((0..SIDECARS).filter_map(|sidecar| held_in_the_end(&shared, sidecar)));
    let calls = shared.calls().clone();
    let spent = await_counted(&shared, &calls);
    for number in 0..CUSTOMERS {
        let customer = customer(number);
        let truth = bound::cost_of(&calls, &customer);
        if spent[&customer] != truth {
            differences.push(format!(
                "{customer}: {} is counted, its calls cost {truth}",
                spent[&customer]
            ));
        }
    }
    let alive: Vec<String> = (0..SIDECARS)
        .map(|sidecar| client::incarnation(&shared, sidecar))
        .collect();
    let verdicts = (0..CUSTOMERS).map(|number| {
        let customer = customer(number);
        let printed = printed.get(&customer).copied();
        Verdict::of(&calls, customer, limit, &alive, printed)
    });
    let verdicts = verdicts.collect();
    let refused = *shared
        .refused
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    Outcome {
        verdicts,
        differences,
        calls: (calls.len(), refused),
        kills,
        unsure: (0..SIDECARS).map(|sidecar| unsure(&shared, sidecar)).sum(),
    }
}

fn unsure(shared: &Shared<'_>, sidecar: usize) -> u64 {
    let metrics = get(shared, sidecar, "/metrics").map_or_else(|error| error, |answer| answer.body);
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix("spendfuse_inflight_unsure_total "));
    count.map_or(0, |count| count.parse().unwrap_or(0))
}

/// Reached after about half of the time: a client makes a call of $0.02 in 2.5 s.
fn limit(options: Options) -> Nanos {
    let calls = u128::from(options.clients) * options.length.as_millis() / 2_500 / 2;
    let dollars =
        calls * u128::from(client::USUAL_COST_NANOS.unsigned_abs()) / u128::from(CUSTOMERS);
    Nanos::new(i128::try_from(dollars).unwrap_or(i128::MAX))
}

fn start(lab: &Lab, number: usize, socket: &Path) -> Role {
    let socket = socket.display().to_string();
    let spool = lab.file(&format!("spool-{number}")).display().to_string();
    let settings = [
        ("sidecar.listen", "127.0.0.1:0"),
        ("sidecar.socket", &*socket),
        ("sidecar.spool_dir", &*spool),
    ];
    lab.role("sidecar", &format!("edge-{number}"), &settings)
}

/// Kills a sidecar every few seconds, and has the processor stand still now and then.
fn attack(sidecars: &mut [Role], processor: &Role, options: Options) -> u32 {
    let mut random = Random::new(options.seed, 1);
    let begin = Instant::now();
    let mut kills = 0;
    while begin.elapsed() < options.length {
        let left = options.length.saturating_sub(begin.elapsed());
        pause(random.millis(1_500, 4_000).min(left));
        if begin.elapsed() >= options.length {
            break;
        }
        match if options.is_exact { 0 } else { random.below(4) } {
            0 => {
                processor.pause();
                pause(random.millis(100, 1_500));
                processor.resume();
            }
            victim => {
                let sidecar = &mut sidecars[usize::from(victim > 2)];
                sidecar.kill();
                kills += 1;
                pause(random.millis(0, 1_500));
                sidecar.restart();
            }
        }
    }
    kills
}

fn await_ready(shared: &Shared<'_>, sidecar: usize) {
    eventually("the sidecar hears the others", PATIENCE, || {
        let ready = get(shared, sidecar, "/readyz")?;
        match ready.status == 200 && !ready.body.contains("what other sidecars hold") {
            true => Ok(()),
            false => Err(ready.body),
        }
    });
}

fn get(shared: &Shared<'_>, sidecar: usize, path: &str) -> Result<Answer, String> {
    let stream = shared.connect(sidecar).map_err(|error| error.to_string())?;
    ask(stream, "GET", path, &[]).map_err(|error| error.to_string())
}

/// No hold leaks: all of them are settled, released or over, and every cost is in a figure. What is
/// held all the same in the end.
fn held_in_the_end(shared: &Shared<'_>, sidecar: usize) -> Option<String> {
    let begin = Instant::now();
    loop {
        let held = match held(shared, sidecar) {
            Ok(held) if held.is_empty() => return None,
            Ok(held) => held.join("; "),
            Err(error) => error,
        };
        if begin.elapsed() > SETTLE {
            return Some(format!("sidecar {sidecar} still holds: {held}"));
        }
        pause(Duration::from_millis(200));
    }
}

/// What a sidecar knows as held, and what its budgets say they hold.
fn held(shared: &Shared<'_>, sidecar: usize) -> Result<Vec<String>, String> {
    let names = [
        "spendfuse_reservations_open ",
        "spendfuse_reservations_pending ",
    ];
    let metrics = get(shared, sidecar, "/metrics")?.body;
    let of_interest = |line: &&str| names.iter().any(|name| line.starts_with(name));
    let mut held: Vec<String> = { metrics.lines().filter(of_interest) }
        .filter(|line| !line.ends_with(" 0"))
        .map(str::to_owned)
        .collect();
    for number in 0..CUSTOMERS {
        for line in budget_lines(shared, sidecar, number)? {
            let amounts = ["pending_usd", "reserved_usd"].map(|name| dollars(&line[name]));
            if amounts.iter().any(|amount| *amount != Nanos::ZERO) {
                held.push(line.to_string());
            }
        }
    }
    Ok(held)
}

/// What a sidecar knows of a customer's budgets.
fn budget_lines(shared: &Shared<'_>, sidecar: usize, number: u64) -> Result<Vec<Value>, String> {
    let customer = customer(number);
    let path = format!("/v1/state?workspace=acme&customer={customer}");
    let state = get(shared, sidecar, &path)?.body;
    let state: Value = serde_json::from_str(&state).map_err(|error| error.to_string())?;
    let lines = state["budgets"].as_array().cloned();
    lines.ok_or_else(|| format!("no budgets: {state}"))
}

/// What each customer has spent, once that is what the calls have cost; or the last that was seen.
fn await_counted(shared: &Shared<'_>, calls: &[Call]) -> BTreeMap<String, Nanos> {
    let begin = Instant::now();
    loop {
        let mut all = BTreeMap::new();
        for number in 0..CUSTOMERS {
            let lines = budget_lines(shared, 0, number).unwrap_or_default();
            let cap = lines.iter().find(|line| line["budget"] == "cap");
            let spent = cap.map_or(Nanos::ZERO, |line| dollars(&line["spent_usd"]));
            all.insert(customer(number), spent);
        }
        let is_counted =
            |(customer, spent): (&String, &Nanos)| *spent == bound::cost_of(calls, customer);
        if all.iter().all(is_counted) || begin.elapsed() > SETTLE {
            return all;
        }
        pause(Duration::from_millis(200));
    }
}

fn dollars(value: &Value) -> Nanos {
    let parsed = value.as_str().and_then(|text| Nanos::parse_usd(text).ok());
    parsed.map_or(Nanos::ZERO, |parsed| parsed.amount)
}

/// The highest that `budgets status` says each customer may come to, as often as it can be asked.
fn sample(shared: &Shared<'_>) -> BTreeMap<String, Printed> {
    let mut all: BTreeMap<String, Printed> = BTreeMap::new();
    while !shared.is_over.load(Ordering::Relaxed) {
        let said = shared.lab.run(&["budgets", "status", "--json"]);
        let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        for line in status["scopes"].as_array().into_iter().flatten() {
            if line["budget"] != "cap" {
                continue;
            }
            let Some(customer) = line["scope"]
                .as_str()
                .and_then(|scope| scope.split_once("customer="))
            else {
                continue;
            };
            let of = |name: &str| dollars(&line[name]);
            let printed = Printed {
                comes_to: of("spent_usd") + of("pending_usd") + of("reserved_usd"),
                bound: of("bound_usd"),
            };
            let known = all.entry(customer.1.to_owned()).or_default();
            *known = known.worse(printed, of("limit_usd"));
        }
        pause(Duration::from_millis(300));
    }
    all
}
