//! A holder's side of one partition: when it may admit, what it says, and what it gets.

#[cfg(test)]
mod alone;
mod beating;
mod leaving;
mod looks;
mod weighing;

use std::mem;

use hashbrown::{HashMap, HashSet};

use super::answering::Answering;
use super::facts::Facts;
use super::log::Log;
use super::own::{Own, Silent};
use super::{Holder, Key, LOST_AFTER, MUTE_AFTER, Said, What, is_far, part};
use looks::Looks;
pub use weighing::{Way, Weighed};

/// What became of something that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It may be held. It counts as held until [`Desk::done`].
    Granted,
    /// It does not fit, or nobody could tell in time.
    Refused,
    /// As [`Way::Unsure`].
    Unsure,
}

/// A holder's side of one partition.
#[derive(Debug)]
pub struct Desk {
    me: Holder,
    log: Log,
    answering: Answering,
    /// How long an answer of others is waited for, milliseconds.
    patience: i64,
    number: u64,
    /// The share that was told last: from then on no more is taken.
    told_share: u32,
    /// When the last heartbeat was sent that was heard.
    heard_at: Option<i64>,
    /// When the last one was sent.
    beat_at: Option<i64>,
    /// The heartbeat whose hearing ends what was used before it: its number, when it was sent.
    next_beat: Option<(u64, i64)>,
    silent: HashMap<Key, Silent>,
    own: HashMap<Key, Own>,
    /// When heartbeats look at these.
    looks: Looks,
    /// The keys of these of which something is asked for or may have to be told, and others.
    pub(super) busy: HashSet<Key>,
}

impl Desk {
    /// A holder that has read and said nothing.
    pub fn new(me: Holder, patience: i64) -> Self {
        Self {
            me,
            log: Log::default(),
            answering: Answering::default(),
            patience,
            number: 0,
            told_share: 0,
            heard_at: None,
            beat_at: None,
            next_beat: None,
            silent: HashMap::new(),
            own: HashMap::new(),
            looks: Looks::default(),
            busy: HashSet::new(),
        }
    }

    /// Takes the record at `place` of the log, logged at `at`.
    pub fn take(&mut self, place: i64, at: i64, said: &Said) {
        if !self.log.hears(&said.holder) {
            let former = self.log.named_as(&said.holder);
            self.answering.are_silent(former.cloned());
        }
        self.answering.heard(&said.holder);
        if said.holder == self.me {
            self.number = self.number.max(said.number);
        }
        let dropped = self.log.take(place, at, said);
        self.are_dropped(&dropped);
        match &said.what {
            What::Beat { .. } if said.holder == self.me => self.hear(said.number),
            What::Beat { .. } => {}
            What::Held { key, asked, .. } if said.holder == self.me => {
                let own = self.own(key);
                match own.number == said.number && !own.asking.is_empty() {
                    true => own.place = Some(place),
                    // Nobody waits for it any more.
                    false => own.is_to_be_told |= *asked > 0,
                }
            }
            What::Held { key, asked, .. } => {
                let may_have_less = match self.log.told(key, &self.me) {
                    Some(told) => told.asked > 0,
                    None => self.told_share.max(self.log.share_of(&self.me)) > 0,
                };
                if *asked > 0 && may_have_less {
                    self.own(key).is_asked_by_others = true;
                }
            }
        }
    }

    /// What is told of a key, to be changed.
    fn own(&mut self, key: &Key) -> &mut Own {
        self.busy.insert(key.clone());
        self.looks.now(key);
        self.own.entry(key.clone()).or_default()
    }

    fn hear(&mut self, number: u64) {
        let Some((_, sent_at)) = self.next_beat.take_if(|(next, _)| *next == number) else {
            return;
        };
        let was_heard = |at: i64| sent_at - at <= MUTE_AFTER / 2;
        if !self.heard_at.is_some_and(was_heard) {
            // What was admitted meanwhile goes with the next one.
            self.beat_at = None;
        }
        self.heard_at = self.heard_at.max(Some(sent_at));
        for silent in self.silent.values_mut() {
            silent.used = silent.used_since_next;
        }
        self.silent.retain(|_, silent| silent.used > 0);
    }

    fn are_dropped(&mut self, holders: &[Holder]) {
        for holder in holders {
            self.answering.heard(holder);
        }
        if holders.contains(&self.me) {
            self.is_dropped();
        }
    }

    /// Others believe that this holder is gone: what it holds is told anew.
    fn is_dropped(&mut self) {
        self.told_share = 0;
        self.heard_at = None;
        for key in self.silent.keys() {
            self.own.entry(key.clone()).or_default();
        }
        for (key, own) in &mut self.own {
            own.is_to_be_told = true;
            own.room = 0;
            self.looks.now(key);
        }
        self.busy.extend(self.own.keys().cloned());
    }

    /// The log is about to be read again from its beginning.
    pub fn begin_again(&mut self) {
        self.log.begin_again();
    }

    /// The log is read to the end that it had.
    pub fn caught_up(&mut self) {
        let dropped = self.log.caught_up();
        self.are_dropped(&dropped);
    }

    /// Whether the log is heard.
    pub fn is_sure(&self, now: i64) -> bool {
        let is_heard = |at: i64| now - at <= MUTE_AFTER;
        self.log.is_caught_up() && self.heard_at.is_some_and(is_heard)
    }

    /// What others said they hold of a key.
    pub fn elsewhere(&self, key: &str) -> i64 {
        self.log.elsewhere(key, &self.me)
    }

    /// The keys of which this holder may hold something.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.silent.keys().chain(self.own.keys())
    }

    /// Something is held of `key` of which this desk knows nothing: the next heartbeat looks at it.
    pub fn holds_already(&mut self, key: &Key) {
        self.silent.entry(key.clone()).or_default();
    }

    /// The keys of which others hold something else than before by no record of that key, since this
    /// was asked last, and what they hold.
    pub fn take_ceased(&mut self) -> Vec<(Key, i64)> {
        let keys = self.log.take_ceased().into_iter();
        keys.map(|key| {
            let held = self.log.elsewhere(&key, &self.me);
            (key, held)
        })
        .collect()
    }

    fn share(&self) -> u32 {
        self.log.share_of(&self.me).min(self.told_share)
    }

    /// Asks for `amount` of `key`; [`Self::decide`] tells what becomes of it, by the ticket.
    pub fn ask(&mut self, key: &Key, amount: i64, ticket: u64) {
        self.own(key).next.push((ticket, amount));
    }

    /// What was granted is among what is held now, or is not wanted any more.
    pub fn done(&mut self, key: &str, amount: i64) {
        match self.own.get_mut(key) {
            Some(own) if own.promised >= amount => own.promised -= amount,
            // A desk that is gone granted it. This one was made anew, and nobody has told of it here.
            _ => self.admit(&Key::from(key), amount, Weighed::UNSURE),
        }
    }

    /// What is decided by now, by ticket.
    pub fn decide(&mut self, facts: &impl Facts, now: i64) -> Vec<(u64, Decided)> {
        let mut decided = Vec::new();
        let is_sure = self.is_sure(now);
        let is_seen = facts.shows(self.log.seen());
        for key in &self.busy {
            let own = self.own.get_mut(key);
            let Some(own) = own.filter(|own| !own.asking.is_empty()) else {
                continue;
            };
            let is_late = now >= own.deadline;
            let Some(place) = own.place.filter(|_| is_sure && is_seen) else {
                let outcome = match is_sure {
                    // A broker that pauses lets nobody in.
                    true if now - own.sent_at > LOST_AFTER => Decided::Refused,
                    false if is_late => Decided::Unsure,
                    _ => continue,
                };
                // It may stand there, or come to stand there.
                own.is_to_be_told = true;
                own.asking_room = 0;
                decided.extend(own.asking.drain(..).map(|(ticket, _)| (ticket, outcome)));
                continue;
            };
            let (held, limit) = (facts.held(key) + own.promised, facts.limit(key));
            let others = self.log.others(key, &self.me, place, limit);
            let mut room = limit - facts.spent(key) - held - others.most;
            let wanted: i64 = own.asking.iter().map(|(_, amount)| amount).sum();
            if wanted > room && is_late {
                self.answering.are_silent(others.may_say_less);
            } else if wanted > room {
                let mut awaited = others.may_say_less.iter();
                if awaited.any(|holder| self.answering.is_waited_for(holder)) {
                    continue;
                }
            }
            for (ticket, amount) in own.asking.drain(..) {
                if amount > room {
                    own.is_to_be_told = true;
                    decided.push((ticket, Decided::Refused));
                    continue;
                }
                room -= amount;
                own.promised += amount;
                decided.push((ticket, Decided::Granted));
            }
            let for_later = mem::take(&mut own.asking_room);
            match for_later <= room {
                true => (own.room, own.limit) = (for_later, limit),
                false => own.is_to_be_told = true,
            }
        }
        decided
    }

    /// What is to be said now of keys.
    pub fn tell(&mut self, facts: &impl Facts, now: i64) -> Vec<Said> {
        let mut said = Vec::new();
        let share = self.share();
        let all = self.log.shares_but(&self.me) + share;
        let mut busy = mem::take(&mut self.busy);
        for key in &busy {
            let Some(own) = self.own.get_mut(key).filter(|own| own.asking.is_empty()) else {
                continue;
            };
            if mem::take(&mut own.is_asked_by_others) {
                let (limit, most) = (facts.limit(key), self.log.most(key, facts.limit(key)));
                own.is_to_be_told |= !is_far(facts.spent(key), most, limit);
            }
            if !own.is_to_be_told && own.next.is_empty() {
                continue;
            }
            own.asking = mem::take(&mut own.next);
            own.is_to_be_told = false;
            own.deadline = now + self.patience;
            let held = facts.held(key) + own.promised;
            let wanted = own.asking.iter().map(|(_, amount)| amount).sum::<i64>();
            let limit = facts.limit(key);
            // Whatever was granted before is within this record, or given back by it.
            (own.room, own.limit) = (0, limit);
            own.asking_room = match is_far(facts.spent(key), part(limit, all), limit) {
                true if wanted > 0 => (part(limit, share) - held - wanted).max(0),
                _ => 0,
            };
            let what = What::Held {
                key: key.clone(),
                held,
                asked: wanted + own.asking_room,
            };
            let record = next_record(&mut self.number, &self.me, what, facts);
            (own.number, own.sent_at, own.place) = (record.number, now, None);
            own.exceeding = facts.exceeding(key);
            said.push(record);
        }
        busy.retain(|key| self.own.get(key).is_some_and(Own::is_busy));
        self.busy = busy;
        said
    }
}

/// `what` was found out before: what has left what is held is in one of the entries that are read
/// now.
fn next_record(number: &mut u64, me: &Holder, what: What, facts: &impl Facts) -> Said {
    *number += 1;
    Said {
        holder: me.clone(),
        number: *number,
        seen: facts.read(),
        what,
    }
}
