//! What goes on after it was told: reminders, ends, and when all of it is forgotten.

use std::collections::{HashSet, VecDeque};

use spendfuse_domain::finding::Finding;
use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};
use xxhash_rust::xxh3::xxh3_64;

use super::message::{Entry, Message};
use super::{Due, MOST_ALERTS, MOST_MESSAGES, Notifier, Stored};
use crate::letter::What;

const DAY: i64 = 24 * 3_600_000;
/// What has ended and was told is kept for this long, for people to look at.
pub const KEPT: i64 = 7 * DAY;
/// What never says that it ended is no longer followed after this time: people are not reminded any
/// more, and not told either that it is over, which nobody knows.
const LONGEST: i64 = 32 * DAY;
/// Findings that are remembered because they closed before their alert came.
const MOST_CLOSED_EARLY: usize = 50_000;

/// Whether it tells of something that goes on and ends: a budget that is used up, a session that
/// runs away. All else happened.
pub fn lasts(alert: &Alert) -> bool {
    alert.count.is_none() && matches!(alert.kind, AlertKind::BudgetStep | AlertKind::Finding)
}

/// Findings that closed before their alert came, by the alert's key. Alerts and findings are two
/// topics: after a while away all of one may be read before the first record of the other. Most of
/// these have no alert at all, so the oldest are forgotten; a restart forgets all.
#[derive(Debug, Default)]
pub(super) struct ClosedEarly {
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl ClosedEarly {
    fn note(&mut self, key: &str) {
        let hash = xxh3_64(key.as_bytes());
        if !self.known.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > MOST_CLOSED_EARLY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.known.contains(&xxh3_64(key.as_bytes()))
    }
}

impl Notifier {
    /// A finding has closed: its alert, where there is one, is over.
    pub fn finding_closed(&mut self, finding: &Finding, now: UnixMillis) {
        let Finding {
            scope, rule, agent, ..
        } = finding;
        let detector = finding.detector.name();
        let opened = finding.opened_at.0;
        let key = format!("{scope}|{detector}|{rule}|{agent}|{opened}");
        match self.alerts.contains_key(&key) {
            true => self.end(&key, now),
            false => self.closed_early.note(&key),
        }
    }

    /// Steps of a budget are not reached any more: a limit was raised, or what counted is gone. They
    /// are over, and news when they are reached again.
    pub(super) fn lift(&mut self, lifted: &Alert, now: UnixMillis) {
        for key in self.steps_of(&lifted.key) {
            let Some(entry) = self.alerts.get_mut(&key) else {
                continue;
            };
            if entry.alert.details.step <= lifted.details.step {
                continue;
            }
            entry.alert = Alert {
                key: key.clone(),
                severity: entry.alert.severity,
                details: AlertDetails {
                    step: entry.alert.details.step,
                    to: std::mem::take(&mut entry.alert.details.to),
                    ..lifted.details.clone()
                },
                ..lifted.clone()
            };
            self.changed.insert(Stored::Alert(key.clone()));
            self.end(&key, now);
        }
    }

    /// What is known of the alert with this key, where it was lifted: from now on nothing.
    pub(super) fn take_lifted(&mut self, key: &str) -> Option<Entry> {
        let entry = self.alerts.get(key)?;
        entry.alert.details.lifted_at?;
        let seen_at = entry.seen_at;
        self.by_age.remove(&(seen_at, key.to_owned()));
        self.alerts.remove(key)
    }

    /// It is over. People are told where they had been told, and it was critical.
    pub(super) fn end(&mut self, key: &str, now: UnixMillis) {
        let Some(entry) = self.close(key, now) else {
            return;
        };
        let is_told = entry.untold.is_none() && entry.alert.severity == Severity::Critical;
        if is_told && !self.is_replaced(key) {
            self.tell(key, What::Resolved, now);
        }
        self.plan(key);
    }

    fn close(&mut self, key: &str, now: UnixMillis) -> Option<&Entry> {
        let entry = self.alerts.get_mut(key).filter(|entry| entry.is_open)?;
        entry.is_open = false;
        entry.changed_at = now;
        entry.remind_at = None;
        self.changed.insert(Stored::Alert(key.to_owned()));
        Some(entry)
    }

    /// Whether a higher step is about to be told instead.
    fn is_replaced(&self, key: &str) -> bool {
        let entry = self.alerts.get(key);
        let ends_at = entry.and_then(Entry::ends_at);
        let is_step = entry.is_some_and(|entry| {
            let is_lifted = entry.alert.details.lifted_at.is_some();
            entry.alert.kind == AlertKind::BudgetStep && !is_lifted
        });
        let ended = entry.map(|entry| entry.changed_at);
        is_step && ends_at.is_none_or(|end| ended.is_none_or(|ended| ended < end))
    }

    /// Something is due for this alert.
    pub(super) fn alert_due(&mut self, key: &str, now: UnixMillis) {
        let Some(entry) = self.alerts.get(key) else {
            return;
        };
        let is_over = entry.ends_at().is_some_and(|end| end <= now);
        if entry.is_open && is_over {
            if entry.says_when_it_ends() {
                return self.end(key, now);
            }
            self.close(key, now);
            return self.plan(key);
        }
        if entry.is_open && entry.remind_at.is_some_and(|time| time <= now) {
            self.remind(key, now);
        }
        let Some(entry) = self.alerts.get(key) else {
            return;
        };
        let is_old = now.since(entry.changed_at) >= KEPT;
        if !entry.is_open && entry.open_messages == 0 && is_old {
            return self.forget_alert(key);
        }
        self.plan(key);
    }

    fn remind(&mut self, key: &str, now: UnixMillis) {
        let Some(entry) = self.alerts.get_mut(key) else {
            return;
        };
        entry.reminders += 1;
        entry.remind_at = None;
        self.changed.insert(Stored::Alert(key.to_owned()));
        let scope = entry.alert.scope.clone();
        if !self.is_muted(&scope, now) {
            self.tell(key, What::Reminder, now);
        }
        self.plan_reminder(key, now);
    }

    /// When people are reminded: as the most eager of the routes says, of what is critical alone.
    pub(super) fn plan_reminder(&mut self, key: &str, now: UnixMillis) {
        let Some(entry) = self.alerts.get_mut(key) else {
            return;
        };
        if !entry.is_open || entry.alert.severity != Severity::Critical {
            return;
        }
        let routes = self.routes.of(&entry.alert).into_iter();
        let spans = routes.filter_map(|(route, _)| self.routes.options(&route).remind_every_millis);
        entry.remind_at = spans.min().map(|span| now.plus(span.max(60_000)));
    }

    /// Looks at this alert again when something is due for it.
    pub(super) fn plan(&mut self, key: &str) {
        let Some(entry) = self.alerts.get(key) else {
            return;
        };
        let next = match entry.is_open {
            true => entry.remind_at.into_iter().chain(entry.ends_at()).min(),
            // It is kept until the last message about it has ended; that looks again.
            false if entry.open_messages > 0 => None,
            false => Some(entry.changed_at.plus(KEPT)),
        };
        if let Some(time) = next {
            self.timers.insert((time, Due::Alert(key.to_owned())));
        }
    }

    pub(super) fn forget_oldest(&mut self) {
        while self.alerts.len() > MOST_ALERTS {
            let idle = |key: &String| {
                let entry = self.alerts.get(key);
                entry.is_none_or(|entry| entry.open_messages == 0)
            };
            let oldest = self.by_age.iter().find(|(_, key)| idle(key));
            let Some((_, key)) = oldest.cloned() else {
                return;
            };
            self.forget_alert(&key);
        }
        while self.messages.len() > MOST_MESSAGES {
            let ended = |message: &&Message| !message.state.is_open();
            let Some(number) = self.messages.values().find(ended).map(|one| one.number) else {
                return;
            };
            self.forget_message(number);
        }
    }

    fn forget_alert(&mut self, key: &str) {
        if let Some(entry) = self.alerts.remove(key) {
            self.by_age.remove(&(entry.seen_at, key.to_owned()));
            self.changed.insert(Stored::Alert(key.to_owned()));
        }
    }

    pub(super) fn forget_message(&mut self, number: u64) {
        if self.messages.remove(&number).is_some() {
            self.changed.insert(Stored::Message(number));
        }
    }
}

impl Entry {
    /// Whether the end of its window is its end.
    fn says_when_it_ends(&self) -> bool {
        self.alert.kind == AlertKind::BudgetStep && self.alert.details.ends_at.is_some()
    }

    /// When it ends by itself.
    pub(super) fn ends_at(&self) -> Option<UnixMillis> {
        let limit = self.seen_at.plus(LONGEST);
        match self.alert.kind {
            AlertKind::BudgetStep => Some(self.alert.details.ends_at.unwrap_or(limit)),
            _ => Some(limit),
        }
    }
}
