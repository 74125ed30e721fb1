//! The rules of telling people, as a state machine without clock and I/O.
//!
//! * An alert is told once: its key is remembered. A higher step of the same budget, scope and window
//!   has a key of its own, and ends the lower one.
//! * Each route that takes it gets a message. At night only what is critical is told at once; the
//!   rest is gathered for a summary. Above `storm` messages a minute they are gathered for a digest.
//! * A message is tried at the first place of its route, again after pauses that double, and at the
//!   next place once the one before refused it or has not taken it in time ([`sending`]).
//! * At each place, messages about one scope keep their order ([`queues`]).
//! * While something critical goes on, people are reminded; when it ends, they are told ([`lasting`]).
//!
//! Everything that a partition knows is in [`Notifier`]; what changes is written to the changelog by
//! [`Notifier::take_changes`], in the transaction of what changed it. Only what is committed is sent.

mod beginning;
mod lasting;
pub mod message;
pub mod queues;
mod requests;
pub mod retry;
mod sending;
mod stored;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertKind};
use xxhash_rust::xxh3::xxh3_64;

use crate::letter::What;
use crate::route::Routes;
use lasting::ClosedEarly;
use message::{Entry, Message, State, Untold};
use queues::Queues;

pub use requests::{MOST_MUTES, Request};
pub use sending::{Attempt, Outcome};
pub use stored::{ALERT_PREFIX, MESSAGE_PREFIX, Stored, StoredError, muted};

/// Alerts of which a partition knows at most; beyond, the oldest that need nothing are forgotten.
pub const MOST_ALERTS: usize = 50_000;
/// Messages likewise.
pub const MOST_MESSAGES: usize = 50_000;
/// Alerts in one message.
pub const MOST_IN_ONE: usize = 100;
/// A route with this many messages that nobody takes gathers digests, however slowly they come.
const BACKLOG: usize = 500;
/// A digest gathers for this long.
const GATHER: i64 = MINUTE;
const MINUTE: i64 = 60_000;

/// What one partition knows.
#[derive(Debug)]
pub struct Notifier {
    partition: u32,
    routes: Arc<Routes>,
    alerts: BTreeMap<String, Entry>,
    /// Keys of alerts by when they came.
    by_age: BTreeSet<(UnixMillis, String)>,
    messages: BTreeMap<u64, Message>,
    next_number: u64,
    next_queued: u64,
    queues: Queues,
    /// Messages that gather alerts, by route and why.
    gathering: HashMap<(String, What), u64>,
    /// When each route was told in the last minute.
    recent: HashMap<String, VecDeque<UnixMillis>>,
    /// Messages of each route that are still to be told.
    backlog: HashMap<String, usize>,
    /// Scopes that begin so are not told of until then.
    mutes: BTreeMap<String, UnixMillis>,
    closed_early: ClosedEarly,
    /// Alerts of before this are not told.
    tells_from: Option<UnixMillis>,
    /// Nobody can say yet which alerts are old news.
    awaits_beginning: bool,
    /// When something is due by time alone.
    timers: BTreeSet<(UnixMillis, Due)>,
    changed: BTreeSet<Stored>,
}

/// What becomes due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Alert(String),
    Message(u64),
}

impl Notifier {
    /// A partition that knows nothing yet.
    pub fn new(partition: u32, routes: Arc<Routes>) -> Self {
        Self {
            partition,
            routes,
            alerts: BTreeMap::new(),
            by_age: BTreeSet::new(),
            messages: BTreeMap::new(),
            next_number: 1,
            next_queued: 1,
            queues: Queues::default(),
            gathering: HashMap::new(),
            recent: HashMap::new(),
            backlog: HashMap::new(),
            mutes: BTreeMap::new(),
            closed_early: ClosedEarly::default(),
            tells_from: None,
            awaits_beginning: false,
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// An alert has come.
    pub fn alert(&mut self, alert: Alert, now: UnixMillis) {
        if alert.details.lifted_at.is_some() {
            return self.lift(&alert, now);
        }
        let lifted = self.take_lifted(&alert.key);
        if let Some(entry) = self.alerts.get_mut(&alert.key) {
            // Of those with a count the last one holds; people know that there are more.
            if entry.alert.count != alert.count {
                self.changed.insert(Stored::Alert(alert.key.clone()));
                entry.alert = alert;
            }
            return;
        }
        self.end_lower_steps(&alert, now);
        let untold = self.reason_not_to_tell(&alert, now);
        let key = alert.key.clone();
        let entry = Entry {
            v: 1,
            is_open: lasting::lasts(&alert),
            seen_at: now,
            changed_at: now,
            reminders: 0,
            remind_at: None,
            untold,
            // Those about the one that was lifted are told first.
            open_messages: lifted.map_or(0, |before| before.open_messages),
            alert,
        };
        self.by_age.insert((now, key.clone()));
        self.alerts.insert(key.clone(), entry);
        self.changed.insert(Stored::Alert(key.clone()));
        if untold.is_none() {
            self.tell(&key, What::New, now);
            self.plan_reminder(&key, now);
        }
        if self.closed_early.contains(&key) {
            self.end(&key, now);
        }
        self.plan(&key);
        self.forget_oldest();
    }

    fn reason_not_to_tell(&self, alert: &Alert, now: UnixMillis) -> Option<Untold> {
        if self.is_old_news(alert) {
            return Some(Untold::Old);
        }
        if self.is_muted(&alert.scope, now) {
            return Some(Untold::Muted);
        }
        self.routes.of(alert).is_empty().then_some(Untold::NoRoute)
    }

    fn is_muted(&self, scope: &str, now: UnixMillis) -> bool {
        let mut mutes = self.mutes.iter();
        mutes.any(|(prefix, until)| *until > now && scope.starts_with(prefix.as_str()))
    }

    /// A higher step says all that the lower one said.
    fn end_lower_steps(&mut self, alert: &Alert, now: UnixMillis) {
        if alert.kind != AlertKind::BudgetStep {
            return;
        }
        for key in self.steps_of(&alert.key) {
            self.end(&key, now);
        }
    }

    /// Keys of the steps of the budget, scope and window that the step with this key belongs to.
    fn steps_of(&self, key: &str) -> Vec<String> {
        let Some((window, _)) = key.rsplit_once('|') else {
            return Vec::new();
        };
        let window = format!("{window}|");
        let same = self.alerts.range(window.clone()..);
        same.map(|(key, _)| key)
            .take_while(|key| key.starts_with(&window))
            .cloned()
            .collect()
    }

    /// Makes a message for each route.
    fn tell(&mut self, key: &str, what: What, now: UnixMillis) {
        let Some(alert) = self.alerts.get(key).map(|entry| entry.alert.clone()) else {
            return;
        };
        for (route, to) in self.routes.of(&alert) {
            match self.gathers(&route, alert.severity, now) {
                Some((why, due)) => self.gather(&alert, &route, to, why, due, now),
                None => {
                    let number = self.add(&alert, &route, to, what, now, now);
                    self.release(number, now);
                }
            }
        }
    }

    /// Whether the route gathers now: for what, and until when.
    fn gathers(
        &mut self,
        route: &str,
        severity: Severity,
        now: UnixMillis,
    ) -> Option<(What, UnixMillis)> {
        let options = self.routes.options(route);
        if let Some(end) = options.quiet_until(severity, now) {
            return Some((What::Summary, end));
        }
        let storm = options.storm;
        let recent = self.recent.entry(route.to_owned()).or_default();
        while recent
            .front()
            .is_some_and(|time| now.since(*time) >= MINUTE)
        {
            recent.pop_front();
        }
        let is_gathering = self
            .gathering
            .contains_key(&(route.to_owned(), What::Digest));
        let backlog = self.backlog.get(route).copied().unwrap_or_default();
        if is_gathering || recent.len() >= storm || backlog >= BACKLOG {
            return Some((What::Digest, now.plus(GATHER)));
        }
        recent.push_back(now);
        None
    }

    fn gather(
        &mut self,
        alert: &Alert,
        route: &str,
        to: Vec<String>,
        why: What,
        due: UnixMillis,
        now: UnixMillis,
    ) {
        let place = (route.to_owned(), why);
        let open = self.gathering.get(&place).copied();
        let open = open.and_then(|number| self.messages.get_mut(&number));
        let Some(message) = open.filter(|message| message.alerts.len() < MOST_IN_ONE) else {
            let number = self.add(alert, route, to, why, due, now);
            self.gathering.insert(place, number);
            return;
        };
        if message.alerts.contains(&alert.key) {
            return;
        }
        message.add(alert);
        let number = message.number;
        self.changed.insert(Stored::Message(number));
        self.count_open(&alert.key, 1);
    }

    /// A message that waits until `due`.
    fn add(
        &mut self,
        alert: &Alert,
        route: &str,
        to: Vec<String>,
        what: What,
        due_at: UnixMillis,
        now: UnixMillis,
    ) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let name = format!(
            "{}|{number}|{route}|{}|{}",
            self.partition, alert.key, now.0
        );
        let mut message = Message {
            v: 1,
            id: format!("{:016x}", xxh3_64(name.as_bytes())),
            number,
            what,
            route: route.to_owned(),
            to,
            place: 0,
            alerts: Vec::new(),
            scopes: Vec::new(),
            state: State::Pending,
            queued: 0,
            attempts: 0,
            created_at: now,
            due_at,
            since: now,
            passed: Vec::new(),
            error: None,
            ended_at: None,
        };
        message.add(alert);
        self.messages.insert(number, message);
        *self.backlog.entry(route.to_owned()).or_default() += 1;
        self.count_open(&alert.key, 1);
        self.changed.insert(Stored::Message(number));
        self.timers.insert((due_at, Due::Message(number)));
        number
    }

    fn count_open(&mut self, key: &str, more: i32) {
        if let Some(entry) = self.alerts.get_mut(key) {
            entry.open_messages = entry.open_messages.saturating_add_signed(more);
        }
    }

    /// Time has passed.
    pub fn advance(&mut self, now: UnixMillis) {
        while let Some((time, _)) = self.timers.first()
            && *time <= now
        {
            match self.timers.pop_first() {
                Some((_, Due::Alert(key))) => self.alert_due(&key, now),
                Some((_, Due::Message(number))) => self.message_due(number, now),
                None => return,
            }
        }
        let over = |until: &UnixMillis| *until <= now;
        let ended: Vec<String> = self
            .mutes
            .iter()
            .filter(|(_, until)| over(until))
            .map(|(scope, _)| scope.clone())
            .collect();
        for scope in ended {
            self.mutes.remove(&scope);
            self.changed.insert(Stored::Mute(scope));
        }
    }

    /// When something is due next though nothing comes.
    pub fn next_due(&self) -> Option<UnixMillis> {
        let timer = self.timers.first().map(|(time, _)| *time);
        timer.into_iter().chain(self.queues.next_due()).min()
    }

    /// Messages that are still to be told.
    pub fn open_messages(&self) -> usize {
        self.backlog.values().sum()
    }

    /// Every message, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.values()
    }

    /// Every alert, by key.
    pub fn alerts(&self) -> impl Iterator<Item = &Entry> {
        self.alerts.values()
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
