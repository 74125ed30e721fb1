//! Two places that fail half the time, in every way, and what they have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde_json::Value;
use spendfuse_testkit::receiver::{NO_ANSWER, Received, Receiver, SILENCE};

use crate::random::Random;

/// Attempts of one partition that are under way at both places together, at most.
pub const MOST_UNDER_WAY: usize = 32;
/// No message fails so often that its pauses are longer than a run may take.
const MOST_FAILURES: u32 = 2;
/// Percent of the other requests that fail: with what is refused for good, half of all.
const FAILING: u64 = 60;
/// One message in so many is never taken by the first place.
const REFUSED: u64 = 8;
const NAMES: [&str; 2] = ["first", "second"];

/// The places, and what was seen of them so far.
pub struct Places {
    receivers: [Receiver; 2],
    requests: [usize; 2],
    taken: Vec<Taken>,
    numbers: BTreeSet<usize>,
    failures: BTreeMap<u16, usize>,
}

/// A message that a place has taken, whether it could say so or not.
struct Taken {
    place: usize,
    id: String,
    has_said_yes: bool,
    /// Scope and number of each alert.
    alerts: Vec<(String, usize)>,
}

/// What the places saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests at both.
    pub requests: usize,
    /// Those that failed, by status; see [`Received::status`].
    pub failures: BTreeMap<u16, usize>,
    /// Messages that the second place had to take.
    pub fallen_back: usize,
    /// Messages that came again, by their ids, to a place that had said yes.
    pub repeats: usize,
}

impl Places {
    pub(super) fn start(seed: u64) -> Self {
        Self {
            receivers: [place(seed, true), place(seed + 1, false)],
            requests: [0; 2],
            taken: Vec::new(),
            numbers: BTreeSet::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Settings of a notifier that tells them.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let each = NAMES.iter().zip(&self.receivers);
        let mut settings: Vec<(String, String)> = each
            .flat_map(|(name, receiver)| {
                let key = |field: &str| format!("notifier.channels.{name}.{field}");
                let url = receiver.url().to_owned();
                [(key("kind"), "webhook".to_owned()), (key("url"), url)]
            })
            .collect();
        let others = [
            (
                "notifier.routes.all.to",
                NAMES.join(",").as_str().to_owned(),
            ),
            // Each message by itself: order and keys are what is looked at.
            ("notifier.storm", "100000".to_owned()),
            ("notifier.timeout", "1s".to_owned()),
        ];
        settings.extend(others.map(|(key, value)| (key.to_owned(), value)));
        settings
    }

    /// Takes in what has come since the last look; returns whether there was anything.
    pub(super) fn look(&mut self) -> bool {
        let before = self.requests;
        for (place, receiver) in self.receivers.iter().enumerate() {
            for request in receiver.received_from(self.requests[place]) {
                self.requests[place] += 1;
                if request.status != 200 {
                    *self.failures.entry(request.status).or_default() += 1;
                }
                if matches!(request.status, 200 | NO_ANSWER) {
                    let taken = Taken::new(place, &request);
                    let numbers = taken.alerts.iter().map(|(_, number)| *number);
                    self.numbers.extend(numbers);
                    self.taken.push(taken);
                }
            }
        }
        before != self.requests
    }

    /// Different alerts that have arrived.
    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn seen(&self) -> Seen {
        let mut known: BTreeMap<(usize, &str), bool> = BTreeMap::new();
        let mut repeats = 0;
        for taken in &self.taken {
            let said_yes = known.entry((taken.place, &taken.id)).or_default();
            repeats += usize::from(*said_yes);
            *said_yes |= taken.has_said_yes;
        }
        Seen {
            requests: self.requests.iter().sum(),
            failures: self.failures.clone(),
            fallen_back: known.keys().filter(|(place, _)| *place == 1).count(),
            repeats,
        }
    }

    /// What should be otherwise, of alerts 0 to `count`: at most one line for each kind.
    pub(super) fn differences(&self, count: usize) -> Vec<String> {
        let mut differences = Vec::new();
        let mut missing = (0..count).filter(|number| !self.numbers.contains(number));
        if let Some(first) = missing.next() {
            let more = missing.count();
            differences.push(format!("alert {first} has not arrived (and {more} more)"));
        }
        differences.extend(self.told_twice());
        differences.extend(self.out_of_order());
        differences
    }

    /// A receiver knows a repeat by its id: two ids or two places are two messages.
    fn told_twice(&self) -> Option<String> {
        let mut messages: BTreeMap<usize, BTreeSet<(usize, &str)>> = BTreeMap::new();
        for taken in &self.taken {
            for (_, number) in &taken.alerts {
                let of_alert = messages.entry(*number).or_default();
                of_alert.insert((taken.place, &taken.id));
            }
        }
        let mut twice = messages.iter().filter(|(_, ids)| ids.len() > 1);
        let (number, ids) = twice.next()?;
        let more = twice.count();
        Some(format!("alert {number} came as {ids:?} (and {more} more)"))
    }

    fn out_of_order(&self) -> Option<String> {
        let mut known = BTreeSet::new();
        let mut last: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        for taken in &self.taken {
            if !known.insert((taken.place, &taken.id)) {
                continue;
            }
            for (scope, number) in &taken.alerts {
                let before = last.insert((taken.place, scope), *number);
                if let Some(before) = before.filter(|before| before > number) {
                    let place = NAMES[taken.place];
                    return Some(format!(
                        "{place}: alert {number} of {scope} came after {before}"
                    ));
                }
            }
        }
        None
    }
}

impl Taken {
    fn new(place: usize, request: &Received) -> Self {
        let alerts = request.body["alerts"].as_array().into_iter().flatten();
        let read = |alert: &Value| {
            let number = alert["subject"].as_str()?.parse().ok()?;
            Some((alert["scope"].as_str()?.to_owned(), number))
        };
        Self {
            place,
            id: request.id.clone(),
            has_said_yes: request.status == 200,
            alerts: alerts.filter_map(read).collect(),
        }
    }
}

/// A place half of whose answers are no yes, in an order that no message follows.
fn place(seed: u64, refuses: bool) -> Receiver {
    let failed: Mutex<BTreeMap<String, u32>> = Mutex::default();
    Receiver::start(move |number, id| {
        let of_id = u64::from_str_radix(id, 16).unwrap_or_default();
        if refuses && of_id % REFUSED == 0 {
            return 410;
        }
        let mut failed = failed.lock().expect("no test panics here");
        let times = failed.entry(id.to_owned()).or_default();
        let mut random = Random::new(seed, number as u64);
        if *times == MOST_FAILURES || random.below(100) >= FAILING {
            return 200;
        }
        *times += 1;
        random.one_of(&[500, 503, 429, NO_ANSWER, NO_ANSWER, SILENCE])
    })
}
