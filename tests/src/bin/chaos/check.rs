//! What must hold once everything has settled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use spendfuse_domain::UnixMillis;
use spendfuse_tests::pause;
use spendfuse_tests::traffic::now;

use crate::budgets::{Budgets, Standing};
use crate::events::{Book, Kind, is_looping, number_in};
use crate::logs::Logs;
use crate::rows::{Rates, Row, cost, rollup, rows};
use crate::system::{ID_PREFIX, LOADER, System};

/// How long the ledger may take to publish every state anew.
const LEDGER_PATIENCE: Duration = Duration::from_secs(45);
const BETWEEN: Duration = Duration::from_millis(500);
/// Differences that are kept of one check.
const SHOWN: usize = 8;

const STAGE_TOPICS: [&str; 13] = [
    "usage",
    "usage.rerouted",
    "usage.dlq",
    "deltas",
    "rows",
    "rows.ledger",
    "findings",
    "blocklist",
    "alerts",
    "budgets",
    "prices",
    "meter.changelog",
    "ledger.changelog",
];

/// One thing that must hold, and every way in which it does not.
#[derive(Clone, Debug)]
pub struct Check {
    /// What must hold.
    pub name: &'static str,
    /// What was compared.
    pub compared: String,
    /// How it is not.
    pub differences: Vec<String>,
}

/// What the checks look at.
pub struct Everything<'a> {
    /// The parts.
    pub system: &'a mut System,
    /// What was promised.
    pub book: &'a Book,
    /// The budgets in force.
    pub budgets: &'a mut Budgets,
    /// Rates by price version.
    pub prices: &'a BTreeMap<String, Rates>,
    /// How long everything may take to settle.
    pub patience: Duration,
}

/// What lies in the usage topic, as the reference judges it.
#[derive(Debug, Default)]
struct Input {
    records: u64,
    /// How often each call is there.
    calls: HashMap<usize, u64>,
    /// When the broker took the last step of each looping session, milliseconds since 1970.
    last_steps: BTreeMap<String, (u64, i64)>,
    /// Records that belong to the DLQ: how often each is there.
    rejects: BTreeMap<usize, u64>,
    /// Events that somebody else counted before.
    counted_before: BTreeSet<usize>,
    unknown: u64,
}

/// Waits until nothing is under way, then compares everything.
pub fn everything(all: Everything<'_>) -> Result<Vec<Check>> {
    let logs = all.system.logs();
    let input = Input::read(&logs, all.book)?;
    let settled = settle(all.system, &logs, &input, all.patience)?;
    let warehouse = all.system.warehouse();
    let rows = rows(&warehouse)?;
    let mut checks = vec![
        settled,
        promises(all.book, &input),
        counted(&input, &rows),
        rejected(&logs, &input)?,
        contents(all.book, &rows, all.prices),
        addresses(&rows),
    ];
    checks.extend(rollups(all.system, &rows)?);
    all.budgets.change();
    all.system
        .operator()
        .apply_budgets(&all.budgets.yaml(), LEDGER_PATIENCE)?;
    checks.push(verdicts(all.system, &logs, all.budgets, &rows)?);
    checks.push(blocked_loops(&logs, &input)?);
    checks.push(transactions(&logs)?);
    checks.push(links(all.system, &logs)?);
    checks.push(processes(all.system));
    checks.push(Check {
        name: "workers fence their predecessors before they take over",
        compared: "requests on the wire".to_owned(),
        differences: all.system.order.wrong(),
    });
    checks.extend(audit(all.system));
    for check in &mut checks {
        let more = check.differences.len().saturating_sub(SHOWN);
        check.differences.truncate(SHOWN);
        if more > 0 {
            check.differences.push(format!("and {more} more"));
        }
    }
    Ok(checks)
}

impl Input {
    fn read(logs: &Logs, book: &Book) -> Result<Self> {
        let mut input = Self::default();
        for record in logs.read("usage")? {
            input.records += 1;
            let value = record.value.unwrap_or_default();
            let number = number_in(&value);
            match number.and_then(|number| Some((number, &book.events.get(number)?.0))) {
                None => input.unknown += 1,
                Some((number, Kind::Call(call))) => {
                    let times = input.calls.entry(number).or_default();
                    *times += 1;
                    if *times == 1 && is_looping(&call.session) {
                        let steps = input.last_steps.entry(call.session.clone()).or_default();
                        steps.0 += 1;
                        steps.1 = steps.1.max(record.logged_at);
                    }
                }
                Some((number, Kind::CountedBefore)) => {
                    input.counted_before.insert(number);
                }
                Some((number, Kind::Late | Kind::Malformed)) => {
                    *input.rejects.entry(number).or_default() += 1;
                }
            }
        }
        Ok(input)
    }

    fn duplicates(&self) -> u64 {
        let again: u64 = self.calls.values().map(|times| times - 1).sum();
        again + self.counted_before.len() as u64
    }
}

/// Waits until every reader is at the end of what it reads, and the rows are there.
fn settle(system: &mut System, logs: &Logs, input: &Input, patience: Duration) -> Result<Check> {
    let groups: [(String, &[&str]); 3] = [
        (format!("{ID_PREFIX}-meter"), &["usage", "usage.rerouted"]),
        (format!("{ID_PREFIX}-ledger"), &["deltas"]),
        (format!("{ID_PREFIX}-loader"), &["rows", "rows.ledger"]),
    ];
    let begin = Instant::now();
    let mut settled_for = 0;
    loop {
        let mut waiting = Vec::new();
        for (group, topics) in &groups {
            let lags = logs.lags(group, topics)?;
            waiting.extend(
                lags.into_iter()
                    .map(|lag| format!("{group} has not read {lag}")),
            );
        }
        let count = system.warehouse().numbers("SELECT count() FROM spend");
        let count = count.map_err(|error| anyhow!(error))?[0];
        if count < input.calls.len() as i128 {
            waiting.push(format!("{count} rows of {}", input.calls.len()));
        }
        // Heartbeats go on, and with them rows of the ledger.
        waiting.retain(|line| !line.ends_with(": 1 records") && !line.ends_with(": 2 records"));
        settled_for = if waiting.is_empty() {
            settled_for + 1
        } else {
            0
        };
        if settled_for == 3 || begin.elapsed() >= patience {
            return Ok(Check {
                name: "everything settles, no reader is stuck",
                compared: format!("after {:.1} s", begin.elapsed().as_secs_f64()),
                differences: waiting,
            });
        }
        system.wait_until(Instant::now() + BETWEEN)?;
    }
}

/// What was acknowledged is in the log.
fn promises(book: &Book, input: &Input) -> Check {
    let is_there = |number: &usize| {
        input.calls.contains_key(number)
            || input.rejects.contains_key(number)
            || input.counted_before.contains(number)
    };
    let mut differences: Vec<String> = book
        .events
        .iter()
        .enumerate()
        .filter(|(number, (_, acknowledged))| *acknowledged && !is_there(number))
        .map(|(number, (kind, _))| format!("call-{number} was acknowledged and is lost: {kind:?}"))
        .collect();
    if input.unknown > 0 {
        differences.push(format!("{} records that nobody sent", input.unknown));
    }
    Check {
        name: "every acknowledged event is in the log",
        compared: format!(
            "{} acknowledged of {} sent, {} in the log",
            book.acknowledged, book.sent, input.records
        ),
        differences,
    }
}

/// Every call of the log is a row, once.
fn counted(input: &Input, rows: &[Row]) -> Check {
    let mut times: HashMap<usize, u64> = HashMap::new();
    for row in rows {
        *times.entry(row.number).or_default() += 1;
    }
    let mut differences = Vec::new();
    let mut missing: Vec<_> = input
        .calls
        .keys()
        .filter(|call| !times.contains_key(call))
        .collect();
    missing.sort();
    differences.extend(
        missing
            .iter()
            .map(|call| format!("call-{call} is not counted")),
    );
    let mut wrong: Vec<_> = times
        .iter()
        .filter(|(call, times)| **times > 1 || !input.calls.contains_key(call))
        .collect();
    wrong.sort();
    differences.extend(wrong.iter().map(|(call, times)| {
        let sent = input.calls.get(call).copied().unwrap_or_default();
        format!("call-{call} is counted {times} times, the log has it {sent} times")
    }));
    Check {
        name: "acknowledged = counted + duplicates + rejected",
        compared: format!(
            "{} = {} + {} + {}",
            input.records,
            rows.len(),
            input.duplicates(),
            input.rejects.values().sum::<u64>()
        ),
        differences,
    }
}

/// What cannot be counted is in the DLQ, once.
fn rejected(logs: &Logs, input: &Input) -> Result<Check> {
    let mut found: BTreeMap<usize, u64> = BTreeMap::new();
    let mut differences = Vec::new();
    for record in logs.read("usage.dlq")? {
        let value = record.value.unwrap_or_default();
        match number_in(&value) {
            Some(number) => *found.entry(number).or_default() += 1,
            None => differences.push(String::from_utf8_lossy(&value).into_owned()),
        }
    }
    let all: BTreeSet<&usize> = found.keys().chain(input.rejects.keys()).collect();
    for number in all {
        let (is, must) = (found.get(number), input.rejects.get(number));
        if is != must {
            differences.push(format!(
                "event {number}: {is:?} in the DLQ, {must:?} in the log"
            ));
        }
    }
    Ok(Check {
        name: "rejected events are in the DLQ, once",
        compared: format!("{} records", found.values().sum::<u64>()),
        differences,
    })
}

/// Every row says what was sent, and costs what its price list says.
fn contents(book: &Book, rows: &[Row], prices: &BTreeMap<String, Rates>) -> Check {
    let mut differences = Vec::new();
    let mut nanos = 0;
    let mut versions = BTreeSet::new();
    for row in rows {
        nanos += row.nanos;
        versions.insert(&row.price_version);
        let number = row.number;
        match book.events.get(number).map(|(kind, _)| kind) {
            Some(Kind::Call(call)) if *call == row.call => {}
            sent => differences.push(format!("call-{number}: {:?} of {sent:?}", row.call)),
        }
        match prices.get(&row.price_version) {
            None => differences.push(format!("call-{number}: price book {}", row.price_version)),
            Some(rates) if cost(&row.call, rates) != row.nanos => differences.push(format!(
                "call-{number} costs {} by {}, charged are {}",
                cost(&row.call, rates),
                row.price_version,
                row.nanos
            )),
            Some(_) => {}
        }
    }
    Check {
        name: "every row is what was sent, at its price",
        compared: format!("{nanos} nano-dollars by {} price books", versions.len()),
        differences,
    }
}

/// No two entries have one address.
fn addresses(rows: &[Row]) -> Check {
    let mut known = BTreeMap::new();
    let mut differences = Vec::new();
    for row in rows {
        if let Some(other) = known.insert(row.address, row.number) {
            let (partition, seq, index) = row.address;
            differences.push(format!(
                "call-{other} and call-{} are both at {partition}/{seq}/{index}",
                row.number
            ));
        }
    }
    Check {
        name: "every address is given once",
        compared: format!("{} addresses", known.len()),
        differences,
    }
}

fn rollups(system: &System, rows: &[Row]) -> Result<Vec<Check>> {
    let warehouse = system.warehouse();
    let mut wanted: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for row in rows {
        let sum = wanted.entry(row.call.customer.clone()).or_default();
        sum.0 += 1;
        sum.1 += row.nanos;
    }
    let mut differences = Vec::new();
    for table in ["spend_hourly", "spend_daily"] {
        let found = rollup(&warehouse, table)?;
        let customers: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
        for customer in customers {
            let (is, must) = (found.get(customer), wanted.get(customer));
            if is != must {
                differences.push(format!("{table}, {customer}: {is:?}, rows say {must:?}"));
            }
        }
    }
    let audit =
        warehouse.numbers("SELECT toInt128(sum(count)), toInt128(sum(nanos)) FROM spend_audit");
    let audit = audit.map_err(|error| anyhow!(error))?;
    let sum = |pick: fn(&(i128, i128)) -> i128| wanted.values().map(pick).sum::<i128>();
    let must = vec![sum(|one| one.0), sum(|one| one.1)];
    if audit != must {
        differences.push(format!("spend_audit: {audit:?}, rows say {must:?}"));
    }
    Ok(vec![Check {
        name: "rollups = rows",
        compared: format!("{} customers in 2 tables, spend_audit", wanted.len()),
        differences,
    }])
}

/// Every scope's spend and verdict on the blocklist is the reference's, and there is no other.
fn verdicts(system: &mut System, logs: &Logs, budgets: &Budgets, rows: &[Row]) -> Result<Check> {
    let wanted = budgets.standings(rows);
    let begin = Instant::now();
    loop {
        let found = published(logs, budgets)?;
        let keys: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
        let differences: Vec<String> = keys
            .into_iter()
            .filter(|key| found.get(*key) != wanted.get(*key))
            .map(|key| format!("{key}: {:?}, must be {:?}", found.get(key), wanted.get(key)))
            .collect();
        if differences.is_empty() || begin.elapsed() >= LEDGER_PATIENCE {
            let of = |verdict: &str| wanted.values().filter(|one| one.verdict == verdict).count();
            return Ok(Check {
                name: "ledger and blocklist = reference",
                compared: format!(
                    "{} scopes: {} ok, {} warn, {} downgrade, {} block",
                    wanted.len(),
                    of("ok"),
                    of("warn"),
                    of("downgrade"),
                    of("block")
                ),
                differences,
            });
        }
        system.wait_until(Instant::now() + BETWEEN)?;
    }
}

/// The entries of budgets that know the limits in force.
fn published(logs: &Logs, budgets: &Budgets) -> Result<BTreeMap<String, Standing>> {
    let mut found = BTreeMap::new();
    for (key, entry) in logs.table("blocklist")? {
        let Some(limit) = entry["budget"].as_str().and_then(|id| budgets.limit_of(id)) else {
            continue;
        };
        let amount = |name: &str| {
            let dollars = entry[format!("{name}_usd")].as_str().map(str::to_owned);
            dollars.or_else(|| Some(entry[format!("{name}_calls")].as_u64()?.to_string()))
        };
        if amount("limit").as_ref() != Some(&limit) {
            continue;
        }
        let standing = Standing {
            verdict: entry["verdict"].as_str().unwrap_or_default().to_owned(),
            spent: amount("spent").unwrap_or_default(),
        };
        found.insert(key, standing);
    }
    Ok(found)
}

/// A session that runs in circles was blocked when its last step came, however often the block
/// before had expired.
fn blocked_loops(logs: &Logs, input: &Input) -> Result<Check> {
    let table = logs.table("blocklist")?;
    let mut differences = Vec::new();
    for (session, (steps, last_step)) in &input.last_steps {
        if *steps < 3 {
            continue;
        }
        let key = format!("finding|retry_loop|acme/session={session}");
        let expires = table
            .get(&key)
            .and_then(|entry| entry["expires_at"].as_str());
        let expires = expires.and_then(|text| UnixMillis::parse_rfc3339(text).ok());
        if expires.is_none_or(|expires| expires.0 <= *last_step) {
            differences.push(format!(
                "{key}: blocked until {expires:?}, but a step came at {}",
                UnixMillis(*last_step)
            ));
        }
    }
    Ok(Check {
        name: "looping sessions are blocked again after each cool-down",
        compared: format!("{} sessions", input.last_steps.len()),
        differences,
    })
}

/// No transaction is open. Heartbeats open some all the time, so each partition must be seen
/// without one, once.
fn transactions(logs: &Logs) -> Result<Check> {
    let begin = Instant::now();
    let mut suspects: Option<BTreeSet<String>> = None;
    let mut last;
    loop {
        last = logs.open_transactions(&STAGE_TOPICS)?;
        let now: BTreeSet<String> = last
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(partition, _)| partition.to_owned())
            .collect();
        let left = match &suspects {
            None => now,
            Some(before) => before.intersection(&now).cloned().collect(),
        };
        if left.is_empty() || begin.elapsed() > Duration::from_secs(10) {
            last.retain(|line| {
                line.split_once(':')
                    .is_some_and(|(partition, _)| left.contains(partition))
            });
            break;
        }
        suspects = Some(left);
        pause(BETWEEN);
    }
    Ok(Check {
        name: "no transaction is left open",
        compared: format!("{} topics", STAGE_TOPICS.len()),
        differences: last,
    })
}

/// No chain between stages was broken.
fn links(system: &System, logs: &Logs) -> Result<Check> {
    let mut differences = Vec::new();
    for record in logs.read("alerts")? {
        let value = record.value.unwrap_or_default();
        let alert: serde_json::Value = serde_json::from_slice(&value)?;
        if alert["kind"] == "delta_chain" {
            differences.push(alert["message"].to_string());
        }
    }
    let loader = &system.actors[LOADER];
    differences.extend(loader.lines_with("does not continue its writer's chain"));
    differences.extend(loader.lines_with("partition stopped"));
    Ok(Check {
        name: "no chain between stages is broken",
        compared: "deltas and row blocks".to_owned(),
        differences,
    })
}

/// No role ended by itself, no worker panicked.
fn processes(system: &System) -> Check {
    let mut differences = Vec::new();
    for actor in &system.actors {
        let ends = actor.own_ends.iter();
        differences.extend(ends.map(|end| format!("{} ended by itself: {end}", actor.name)));
        if actor.panics() > 0 {
            differences.push(format!("{} panicked {} times", actor.name, actor.panics()));
        }
    }
    Check {
        name: "no role ended by itself or panicked",
        compared: format!("{} roles at {}", system.actors.len(), now()),
        differences,
    }
}

/// The product's own audit, where it has one.
fn audit(system: &System) -> Option<Check> {
    let help = system.run(&["--help"]);
    if !help
        .stdout
        .lines()
        .any(|line| line.trim_start().starts_with("audit"))
    {
        return None;
    }
    let said = system.run(&["audit"]);
    let differences = match said.code {
        Some(0) => Vec::new(),
        // What differs follows the sums, in a table of its own; the last line is the total.
        _ => {
            let lines = said.stdout.lines().chain(said.stderr.lines());
            let lines = lines.skip_while(|line| !line.starts_with("DIFFERENCE"));
            let lines = lines.skip(1).filter(|line| !line.is_empty());
            let found: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
            match found.is_empty() {
                true => vec![format!("{said:?}")],
                false => found,
            }
        }
    };
    Some(Check {
        name: "spendfuse audit finds no drift",
        compared: said
            .stdout
            .lines()
            .next_back()
            .unwrap_or_default()
            .to_owned(),
        differences,
    })
}
