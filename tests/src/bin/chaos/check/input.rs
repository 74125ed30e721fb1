//! What lies in the usage topic, as the reference judges it, and the wait until the system has
//! judged it as well.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::{BETWEEN, Check};
use crate::events::{Book, Kind, is_looping, number_in};
use crate::logs::Logs;
use crate::system::{ID_PREFIX, System};

/// What lies in the usage topic, as the reference judges it.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) records: u64,
    /// How often each event that is a row is there.
    pub(super) counted: HashMap<usize, u64>,
    /// Ends of sessions: which session each ends.
    pub(super) ends: BTreeMap<usize, String>,
    /// When the broker took the last step of each looping session, milliseconds since 1970.
    pub(super) last_steps: BTreeMap<String, (u64, i64)>,
    /// Records that belong to the DLQ: how often each is there.
    pub(super) rejects: BTreeMap<usize, u64>,
    /// Events that somebody else counted before.
    pub(super) counted_before: BTreeSet<usize>,
    pub(super) unknown: u64,
}

impl Input {
    pub(super) fn read(logs: &Logs, book: &Book) -> Result<Self> {
        let mut input = Self::default();
        for record in logs.read("usage")? {
            input.records += 1;
            let value = record.value.unwrap_or_default();
            let number = number_in(&value);
            match number.and_then(|number| Some((number, &book.events.get(number)?.0))) {
                None => input.unknown += 1,
                Some((number, Kind::Call(call))) => {
                    let times = input.counted.entry(number).or_default();
                    *times += 1;
                    if *times == 1 && is_looping(&call.session) {
                        let steps = input.last_steps.entry(call.session.clone()).or_default();
                        steps.0 += 1;
                        steps.1 = steps.1.max(record.logged_at);
                    }
                }
                Some((number, Kind::Revenue(_))) => {
                    *input.counted.entry(number).or_default() += 1;
                }
                Some((number, Kind::SessionEnd(session))) => {
                    input.ends.insert(number, session.clone());
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

    pub(super) fn duplicates(&self) -> u64 {
        let again: u64 = self.counted.values().map(|times| times - 1).sum();
        again + self.counted_before.len() as u64
    }
}

/// Waits until every reader is at the end of what it reads, and the rows are there.
pub(super) fn settle(
    system: &mut System,
    logs: &Logs,
    input: &Input,
    patience: Duration,
) -> Result<Check> {
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
        if count < input.counted.len() as i128 {
            waiting.push(format!("{count} rows of {}", input.counted.len()));
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
