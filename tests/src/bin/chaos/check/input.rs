//! What lies in the usage topic, as the reference judges it, and the wait until the system has
//! judged it as well.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Result;
use spendfuse_domain::UnixMillis;

use super::{BETWEEN, Check};
use crate::events::{is_looping, number_in};
use crate::ledger::{Book, Kind};
use crate::logs::{Logs, Stored};
use crate::system::{ID_PREFIX, System};

/// What lies in the usage topic, as the reference judges it.
#[derive(Default)]
pub(super) struct Input {
    /// The records themselves.
    pub(super) usage: Vec<Stored>,
    /// How often each event is there, whatever it is.
    times: HashMap<usize, u64>,
    /// How often each event that is a row is there.
    pub(super) counted: HashMap<usize, u64>,
    /// Ends of sessions: which session each ends.
    pub(super) ends: BTreeMap<usize, String>,
    /// Steps of looping sessions: which session, and when the broker took it first, milliseconds since
    /// 1970.
    steps: BTreeMap<usize, (String, i64)>,
    /// Records that belong to the DLQ: how often each is there.
    pub(super) rejects: BTreeMap<usize, u64>,
    /// Events that somebody else counted before.
    pub(super) counted_before: BTreeSet<usize>,
    pub(super) unknown: u64,
}

impl Input {
    pub(super) fn read(logs: &Logs, book: &Book) -> Result<Self> {
        let mut input = Self::default();
        let usage = logs.usage()?;
        for record in &usage {
            let value = record.value.as_deref().unwrap_or_default();
            let number = number_in(value).filter(|number| *number < book.events.len());
            if let Some(number) = number {
                *input.times.entry(number).or_default() += 1;
            }
            match number.map(|number| (number, &book.events[number].0)) {
                None => input.unknown += 1,
                Some((number, Kind::Call(call))) => {
                    *input.counted.entry(number).or_default() += 1;
                    if is_looping(&call.session) {
                        let step = (call.session.clone(), record.logged_at);
                        let (_, at) = input.steps.entry(number).or_insert(step);
                        *at = record.logged_at.min(*at);
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
        input.usage = usage;
        Ok(input)
    }

    /// How many steps each looping session took, and when the broker took the last, as far as its stamps
    /// do not lie beyond `now`: then its clock had jumped.
    pub(super) fn last_steps(&self, now: UnixMillis) -> BTreeMap<&str, (u64, i64)> {
        let mut last_steps: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
        for (session, at) in self.steps.values() {
            let last = last_steps.entry(session).or_default();
            let at = if *at > now.0 { 0 } else { *at };
            *last = (last.0 + 1, last.1.max(at));
        }
        last_steps
    }

    pub(super) fn records(&self) -> usize {
        self.usage.len()
    }

    /// How often an event lies in the topic.
    pub(super) fn times(&self, number: usize) -> u64 {
        self.times.get(&number).copied().unwrap_or_default()
    }

    /// Every event that lies in the topic less often than it was promised to be safe.
    pub(super) fn broken_promises(&self, book: &Book) -> Vec<String> {
        let promised = book.events.iter().enumerate();
        let broken = promised.filter_map(|(number, (kind, promised))| {
            let times = self.times(number);
            (times < *promised).then(|| {
                format!(
                    "call-{number} was acknowledged {promised} times and is there {times} times: \
                     {kind:?}"
                )
            })
        });
        broken.collect()
    }

    pub(super) fn duplicates(&self) -> u64 {
        let again: u64 = self.counted.values().map(|times| times - 1).sum();
        again + self.counted_before.len() as u64
    }
}

/// The readers in the order in which one's records come of another's, each with its topics in that
/// order.
const READERS: [(&str, &[&str]); 3] = [
    ("meter", &["usage", "usage.rerouted"]),
    ("ledger", &["deltas"]),
    ("loader", &["rows", "rows.ledger"]),
];

/// Waits until what was acknowledged lies in the usage topic, and then until each reader has got over
/// every record that lay in its topics once those before it had: nothing is left unread but what
/// heartbeats write meanwhile.
pub(super) fn settle(
    system: &mut System,
    logs: &Logs,
    book: &Book,
    patience: Duration,
) -> Result<(Input, Check)> {
    let begin = Instant::now();
    let mut waiting;
    let mut input;
    loop {
        input = Input::read(logs, book)?;
        waiting = input.broken_promises(book);
        if waiting.is_empty() || begin.elapsed() >= patience {
            break;
        }
        system.wait_until(Instant::now() + BETWEEN)?;
    }
    for (stage, topics) in READERS {
        let group = format!("{ID_PREFIX}-{stage}");
        for topic in topics {
            let ends = logs.ends(topic)?;
            loop {
                let unread = logs.unread(&group, topic, &ends)?;
                if unread.is_empty() {
                    break;
                }
                if begin.elapsed() >= patience {
                    let lines = unread.iter();
                    waiting.extend(lines.map(|line| format!("{group} has not read {line}")));
                    break;
                }
                system.wait_until(Instant::now() + BETWEEN)?;
            }
        }
    }
    let check = Check {
        name: "everything settles, no reader is stuck",
        compared: format!("after {:.1} s", begin.elapsed().as_secs_f64()),
        differences: waiting,
    };
    Ok((input, check))
}
