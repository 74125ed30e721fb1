//! A message on its way: attempts, pauses, the next place, the end.

use std::time::Duration;

use spendfuse_domain::UnixMillis;

use super::message::{Entry, State};
use super::retry::{GIVE_UP_MILLIS, pause_millis};
use super::{Due, Notifier, Stored, lasting};
use crate::letter::{Letter, Passed, What};

/// A message to be sent now.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Number of the message in its partition.
    pub number: u64,
    /// Which place of its route.
    pub place: usize,
    /// What is sent, and where.
    pub letter: Letter,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The place has taken it.
    Delivered,
    /// It may work later: no answer, an error of the server, too many at once.
    Later {
        /// What the place said.
        reason: String,
        /// How long it asked to be left alone.
        after: Option<Duration>,
    },
    /// It will never work there.
    Refused {
        /// What the place said.
        reason: String,
    },
}

impl Notifier {
    /// A pending message is to be sent from now on.
    pub(super) fn release(&mut self, number: u64, now: UnixMillis) {
        let queued = self.next_queued;
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        self.next_queued += 1;
        message.state = State::Sending;
        message.queued = queued;
        message.due_at = now;
        message.since = now;
        self.changed.insert(Stored::Message(number));
        let gathered = (message.route.clone(), message.what);
        if self.gathering.get(&gathered) == Some(&number) {
            self.gathering.remove(&gathered);
        }
        self.queues.push(message);
        self.plan_fall_back(number);
    }

    /// The messages to be sent now. Only those that are committed may be asked for.
    pub fn take_attempts(&mut self, now: UnixMillis) -> Vec<Attempt> {
        let due = self.queues.take_due(now);
        due.into_iter()
            .filter_map(|number| self.attempt(number))
            .collect()
    }

    fn attempt(&self, number: u64) -> Option<Attempt> {
        let message = self.messages.get(&number)?;
        let entries: Vec<&Entry> = { message.alerts.iter() }
            .filter_map(|key| self.alerts.get(key))
            .collect();
        let is_gathered = matches!(message.what, What::Digest | What::Summary);
        let over = entries
            .iter()
            .filter(|entry| is_gathered && lasting::lasts(&entry.alert) && !entry.is_open);
        Some(Attempt {
            number,
            place: message.place,
            letter: Letter {
                id: message.id.clone(),
                what: message.what,
                route: message.route.clone(),
                to: message.to().to_owned(),
                over: over.map(|entry| entry.alert.key.clone()).collect(),
                alerts: entries.iter().map(|entry| entry.alert.clone()).collect(),
                passed: message.passed.clone(),
                created_at: message.created_at,
            },
        })
    }

    /// An attempt has ended; returns how far its message is now, where it is known.
    pub fn outcome(
        &mut self,
        number: u64,
        place: usize,
        outcome: Outcome,
        now: UnixMillis,
    ) -> Option<State> {
        let message = self.messages.get(&number)?;
        if message.state.is_sending() && message.place == place {
            self.take_outcome(number, outcome, now);
        }
        self.messages.get(&number).map(|message| message.state)
    }

    fn take_outcome(&mut self, number: u64, outcome: Outcome, now: UnixMillis) {
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        self.changed.insert(Stored::Message(number));
        match outcome {
            Outcome::Delivered => {
                message.error = None;
                self.finish(number, State::Delivered, now);
            }
            Outcome::Refused { reason } if message.has_next_place() => {
                message.error = Some(reason);
                self.next_place(number, now);
            }
            // Where nobody else is left, somebody may mend the settings in time.
            Outcome::Refused { reason } => self.try_later(number, reason, None, now),
            Outcome::Later { reason, after } => self.try_later(number, reason, after, now),
        }
    }

    fn try_later(&mut self, number: u64, reason: String, after: Option<Duration>, now: UnixMillis) {
        let patience = self.patience(number);
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        message.attempts += 1;
        message.error = Some(reason);
        if now.since(message.since) >= patience {
            return self.next_place(number, now);
        }
        let pause = pause_millis(&message.id, message.attempts, after);
        if after.is_some() {
            let to = message.to().to_owned();
            self.queues.hold(&to, now.plus(pause));
        }
        message.due_at = now.plus(pause);
        self.queues.retry(message);
    }

    /// How long the place may take, milliseconds.
    fn patience(&self, number: u64) -> i64 {
        let Some(message) = self.messages.get(&number) else {
            return 0;
        };
        match message.has_next_place() {
            true => {
                let options = self.routes.options(&message.route);
                options.fall_back_after_millis
            }
            false => GIVE_UP_MILLIS,
        }
    }

    pub(super) fn plan_fall_back(&mut self, number: u64) {
        let patience = self.patience(number);
        if let Some(message) = self.messages.get(&number) {
            let time = message.since.plus(patience);
            self.timers.insert((time, Due::Message(number)));
        }
    }

    /// Something is due for this message.
    pub(super) fn message_due(&mut self, number: u64, now: UnixMillis) {
        let patience = self.patience(number);
        let Some(message) = self.messages.get(&number) else {
            return;
        };
        let is_over = now.since(message.since) >= patience;
        match message.state {
            State::Pending if message.due_at <= now => self.release(number, now),
            State::Pending => {
                let time = message.due_at;
                self.timers.insert((time, Due::Message(number)));
            }
            // What an attempt under way brings decides.
            State::Sending | State::FallenBack if self.queues.is_under_way(message) => {}
            State::Sending | State::FallenBack if is_over => self.next_place(number, now),
            State::Sending | State::FallenBack => {}
            State::Delivered | State::Failed => {
                let ended = message.ended_at.unwrap_or(now);
                match now.since(ended) >= lasting::KEPT {
                    true => self.forget_message(number),
                    false => {
                        let time = ended.plus(lasting::KEPT);
                        self.timers.insert((time, Due::Message(number)));
                    }
                }
            }
        }
    }

    /// The place did not take it: the next one is tried, where there is one.
    fn next_place(&mut self, number: u64, now: UnixMillis) {
        self.leave_queues(number);
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        self.changed.insert(Stored::Message(number));
        let reason = message.error.take().unwrap_or_else(|| NO_TURN.to_owned());
        if !message.has_next_place() {
            message.error = Some(reason);
            return self.finish(number, State::Failed, now);
        }
        message.passed.push(Passed {
            to: message.to().to_owned(),
            reason,
        });
        message.place += 1;
        message.state = State::FallenBack;
        message.attempts = 0;
        message.since = now;
        message.due_at = now;
        self.queues.push(message);
        self.plan_fall_back(number);
    }

    fn finish(&mut self, number: u64, state: State, now: UnixMillis) {
        self.leave_queues(number);
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        message.state = state;
        message.ended_at = Some(now);
        let (route, alerts) = (message.route.clone(), message.alerts.clone());
        self.changed.insert(Stored::Message(number));
        let time = now.plus(lasting::KEPT);
        self.timers.insert((time, Due::Message(number)));
        if let Some(backlog) = self.backlog.get_mut(&route) {
            *backlog = backlog.saturating_sub(1);
        }
        for key in alerts {
            self.count_open(&key, -1);
            self.plan(&key);
        }
    }

    fn leave_queues(&mut self, number: u64) {
        let Some(message) = self.messages.get(&number) else {
            return;
        };
        let to = message.to().to_owned();
        for follower in self.queues.remove(message, &to) {
            if let Some(message) = self.messages.get(&follower) {
                self.queues.offer(message);
            }
        }
    }
}

/// Why a place was given up at which a message never had its turn.
const NO_TURN: &str = "messages before this one were not taken in time";
