//! The order of messages: at each place those about one scope are told in the order in which they
//! were made, each after the one before was taken or given up. Scopes do not wait for each other,
//! and places do not either.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use spendfuse_domain::UnixMillis;

use super::message::Message;

/// Attempts of one partition that are under way at one place.
pub const AT_ONCE: usize = 16;

/// Messages that are to be sent, by place.
#[derive(Debug, Default)]
pub struct Queues {
    places: BTreeMap<String, Place>,
}

#[derive(Debug, Default)]
struct Place {
    by_scope: HashMap<String, VecDeque<u64>>,
    /// Messages that no other one is before, with the time of their next attempt.
    waiting: BTreeSet<(UnixMillis, u64)>,
    under_way: BTreeSet<u64>,
    /// The place asked for a pause until then.
    held_until: UnixMillis,
}

impl Queues {
    /// Puts a message at the end of its place's queues.
    pub fn push(&mut self, message: &Message) {
        let place = self.places.entry(message.to().to_owned()).or_default();
        for scope in &message.scopes {
            let queue = place.by_scope.entry(scope.clone()).or_default();
            queue.push_back(message.number);
        }
        if place.is_first(message) {
            place.waiting.insert((message.due_at, message.number));
        }
    }

    /// Takes a message out of the queues of the place `to`; returns those that may be first now.
    pub fn remove(&mut self, message: &Message, to: &str) -> Vec<u64> {
        let Some(place) = self.places.get_mut(to) else {
            return Vec::new();
        };
        place.under_way.remove(&message.number);
        place.waiting.remove(&(message.due_at, message.number));
        let mut followers = Vec::new();
        for scope in &message.scopes {
            let Some(queue) = place.by_scope.get_mut(scope) else {
                continue;
            };
            // It is the first one, unless it is given up before its turn.
            match queue.front() == Some(&message.number) {
                true => drop(queue.pop_front()),
                false => queue.retain(|number| *number != message.number),
            }
            match queue.front() {
                Some(next) => followers.push(*next),
                None => {
                    place.by_scope.remove(scope);
                }
            }
        }
        followers
    }

    /// A message whose turn may have come.
    pub fn offer(&mut self, message: &Message) {
        let Some(place) = self.places.get_mut(message.to()) else {
            return;
        };
        let is_under_way = place.under_way.contains(&message.number);
        if !is_under_way && place.is_first(message) {
            place.waiting.insert((message.due_at, message.number));
        }
    }

    /// The attempt at a message has ended without success; it is tried again when it is due.
    pub fn retry(&mut self, message: &Message) {
        if let Some(place) = self.places.get_mut(message.to()) {
            place.under_way.remove(&message.number);
            place.waiting.insert((message.due_at, message.number));
        }
    }

    /// The place asked for a pause.
    pub fn hold(&mut self, to: &str, until: UnixMillis) {
        if let Some(place) = self.places.get_mut(to) {
            place.held_until = place.held_until.max(until);
        }
    }

    /// Whether an attempt at this message is under way.
    pub fn is_under_way(&self, message: &Message) -> bool {
        let place = self.places.get(message.to());
        place.is_some_and(|place| place.under_way.contains(&message.number))
    }

    /// The messages to be tried now; they are under way from here on.
    pub fn take_due(&mut self, now: UnixMillis) -> Vec<u64> {
        let mut due = Vec::new();
        for place in self.places.values_mut() {
            while place.next_due().is_some_and(|time| time <= now) {
                let Some((_, number)) = place.waiting.pop_first() else {
                    break;
                };
                place.under_way.insert(number);
                due.push(number);
            }
        }
        self.places.retain(|_, place| !place.is_idle(now));
        due
    }

    /// When the next attempt is due.
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.places.values().filter_map(Place::next_due).min()
    }
}

impl Place {
    fn is_first(&self, message: &Message) -> bool {
        message.scopes.iter().all(|scope| {
            let first = self.by_scope.get(scope).and_then(VecDeque::front);
            first == Some(&message.number)
        })
    }

    fn next_due(&self) -> Option<UnixMillis> {
        if self.under_way.len() >= AT_ONCE {
            return None;
        }
        let (due, _) = self.waiting.first()?;
        Some((*due).max(self.held_until))
    }

    fn is_idle(&self, now: UnixMillis) -> bool {
        self.by_scope.is_empty() && self.under_way.is_empty() && self.held_until <= now
    }
}
