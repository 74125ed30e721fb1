//! A holder's side of one partition: when it may admit, what it says, and what it gets.

use std::mem;

use hashbrown::HashMap;

use super::log::Log;
use super::{
    BEAT_EVERY, FORGOTTEN_AFTER, Holder, IDLE_BEAT_EVERY, Key, LOST_AFTER, MUTE_AFTER, SHARED_OUT,
    Said, Seen, TOLD_AGAIN_AFTER, What, part,
};

/// What a desk asks its guard for.
pub trait Facts {
    /// What is held of a key: calls under way, and costs that no entry shows to readers. To be read
    /// before all else.
    fn held(&self, key: &str) -> i64;
    /// What readers see as spent.
    fn spent(&self, key: &str) -> i64;
    /// The budget's limit; 0 where there is none any more.
    fn limit(&self, key: &str) -> i64;
    /// The entries that readers see.
    fn shown(&self) -> Seen;
    /// The entries that were read, be it that readers do not see them yet. What has left what is
    /// held is in one of them.
    fn read(&self) -> Seen;
}

/// How a call may come to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By itself, and it is counted as admitted.
    Silent,
    /// By [`Desk::ask`].
    Log,
    /// Nobody knows what others hold: the log is not heard.
    Unsure,
}

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

/// What was admitted of a key without asking.
#[derive(Clone, Copy, Debug, Default)]
struct Silent {
    /// Held when the last heartbeat that was heard was sent, and admitted since.
    used: i64,
    /// The same of the heartbeat that is to be heard next.
    used_since_next: i64,
}

/// What is told of a key.
#[derive(Debug, Default)]
struct Own {
    /// Number of the record that was sent last, and when.
    number: u64,
    sent_at: i64,
    /// Where it stands, once that is known.
    place: Option<i64>,
    /// What it asks for: tickets and amounts.
    asking: Vec<(u64, i64)>,
    /// What the next one asks for.
    next: Vec<(u64, i64)>,
    /// Until then others may answer.
    deadline: i64,
    /// Granted, and not among what is held yet.
    promised: i64,
    /// Somebody waits to hear what is held, or something was asked for that nobody wants.
    is_to_be_told: bool,
}

/// A holder's side of one partition.
#[derive(Debug)]
pub struct Desk {
    me: Holder,
    log: Log,
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
}

impl Desk {
    /// A holder that has read and said nothing.
    pub fn new(me: Holder, patience: i64) -> Self {
        Self {
            me,
            log: Log::default(),
            patience,
            number: 0,
            told_share: 0,
            heard_at: None,
            beat_at: None,
            next_beat: None,
            silent: HashMap::new(),
            own: HashMap::new(),
        }
    }

    /// Takes the record at `place` of the log, logged at `at`.
    pub fn take(&mut self, place: i64, at: i64, said: &Said) {
        let dropped = self.log.take(place, at, said);
        if dropped.contains(&self.me) {
            self.is_dropped();
        }
        match &said.what {
            What::Beat { .. } if said.holder == self.me => self.hear(said.number),
            What::Beat { .. } => {}
            What::Held { key, asked, .. } if said.holder == self.me => {
                let own = self.own.entry(key.clone()).or_default();
                match own.number == said.number && !own.asking.is_empty() {
                    true => own.place = Some(place),
                    // Nobody waits for it any more.
                    false => own.is_to_be_told |= *asked > 0,
                }
            }
            What::Held { key, asked, .. } => {
                let may_have_less = match self.log.told(key, &self.me) {
                    Some(told) => told.asked > 0,
                    None => self.log.share_of(&self.me) > 0,
                };
                if *asked > 0 && may_have_less {
                    self.own.entry(key.clone()).or_default().is_to_be_told = true;
                }
            }
        }
    }

    fn hear(&mut self, number: u64) {
        let Some((_, sent_at)) = self.next_beat.take_if(|(next, _)| *next == number) else {
            return;
        };
        self.heard_at = self.heard_at.max(Some(sent_at));
        for silent in self.silent.values_mut() {
            silent.used = silent.used_since_next;
        }
        self.silent.retain(|_, silent| silent.used > 0);
    }

    /// Others believe that this holder is gone: what it holds is told anew.
    fn is_dropped(&mut self) {
        self.told_share = 0;
        self.heard_at = None;
        for key in self.silent.keys() {
            self.own.entry(key.clone()).or_default();
        }
        for own in self.own.values_mut() {
            own.is_to_be_told = true;
        }
    }

    /// The log is read to the end that it had.
    pub fn caught_up(&mut self) {
        self.log.caught_up();
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

    /// The same of every key of which others told anything.
    pub fn all_elsewhere(&self) -> impl Iterator<Item = (Key, i64)> {
        let keys = self.log.keys();
        keys.map(|key| (key.clone(), self.log.elsewhere(key, &self.me)))
    }

    /// Whether it is time for a heartbeat: every second while there is anything to hold, else every
    /// four.
    pub fn is_beat_due(&self, now: i64) -> bool {
        let is_busy = !self.silent.is_empty() || !self.own.is_empty() || self.share() == 0;
        let every = if is_busy { BEAT_EVERY } else { IDLE_BEAT_EVERY };
        self.beat_at.is_none_or(|at| now - at >= every)
    }

    fn share(&self) -> u32 {
        self.log.share_of(&self.me).min(self.told_share)
    }

    /// How `amount` of `key` may be admitted. Where it is [`Way::Silent`], it counts as admitted, and
    /// is to be among what is held before anything else is asked of the desk.
    pub fn way(&mut self, key: &Key, amount: i64, facts: &impl Facts, now: i64) -> Way {
        if !self.is_sure(now) {
            return Way::Unsure;
        }
        let is_told = self.own.contains_key(key) || self.log.knows(key);
        if is_told || !is_behind(self.log.seen(), &facts.shown()) {
            return Way::Log;
        }
        let (held, limit) = (facts.held(key), facts.limit(key));
        let all = self.log.shares_but(&self.me) + self.share();
        let room = limit - facts.spent(key) - part(limit, all);
        let known = self.silent.get(key).copied();
        let mut silent = known.unwrap_or(Silent {
            used: held,
            used_since_next: held,
        });
        silent.used = silent.used.saturating_add(amount);
        silent.used_since_next = silent.used_since_next.saturating_add(amount);
        if room < 0 || silent.used > part(limit, self.share()) {
            return Way::Log;
        }
        self.silent.insert(key.clone(), silent);
        Way::Silent
    }

    /// Asks for `amount` of `key`; [`Self::decide`] tells what becomes of it, by the ticket.
    pub fn ask(&mut self, key: &Key, amount: i64, ticket: u64) {
        let own = self.own.entry(key.clone()).or_default();
        own.next.push((ticket, amount));
    }

    /// What was granted is among what is held now, or is not wanted any more.
    pub fn done(&mut self, key: &str, amount: i64) {
        if let Some(own) = self.own.get_mut(key) {
            own.promised -= amount;
        }
    }

    /// What is decided by now, by ticket.
    pub fn decide(&mut self, facts: &impl Facts, now: i64) -> Vec<(u64, Decided)> {
        let mut decided = Vec::new();
        let is_sure = self.is_sure(now);
        let is_seen = is_behind(self.log.seen(), &facts.shown());
        for (key, own) in self
            .own
            .iter_mut()
            .filter(|(_, own)| !own.asking.is_empty())
        {
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
                decided.extend(own.asking.drain(..).map(|(ticket, _)| (ticket, outcome)));
                continue;
            };
            let (held, limit) = (facts.held(key) + own.promised, facts.limit(key));
            let others = self.log.others(key, &self.me, place, limit);
            let mut room = limit - facts.spent(key) - held - others.most;
            let wanted: i64 = own.asking.iter().map(|(_, amount)| amount).sum();
            if wanted > room && others.is_unanswered && !is_late {
                continue;
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
        }
        decided
    }

    /// What is to be said now of keys.
    pub fn tell(&mut self, facts: &impl Facts, now: i64) -> Vec<Said> {
        let mut said = Vec::new();
        for (key, own) in &mut self.own {
            let has_news = own.is_to_be_told || !own.next.is_empty();
            if !own.asking.is_empty() || !has_news {
                continue;
            }
            own.asking = mem::take(&mut own.next);
            own.is_to_be_told = false;
            own.deadline = now + self.patience;
            let what = What::Held {
                key: key.clone(),
                held: facts.held(key) + own.promised,
                asked: own.asking.iter().map(|(_, amount)| amount).sum(),
            };
            let record = next_record(&mut self.number, &self.me, what, facts);
            (own.number, own.sent_at, own.place) = (record.number, now, None);
            said.push(record);
        }
        said
    }

    /// A heartbeat, to be sent about once a second, behind what must be told before it.
    pub fn beat(&mut self, facts: &impl Facts, now: i64) -> Vec<Said> {
        let room = SHARED_OUT - self.log.shares_but(&self.me).min(SHARED_OUT);
        let even = SHARED_OUT / self.log.live().max(1);
        let share = match self.is_sure(now) {
            true => even.min(room),
            // A newcomer, or one that was away.
            false => 0,
        };
        let own = &mut self.own;
        for key in self.silent.keys() {
            if facts.held(key) > part(facts.limit(key), share) {
                own.entry(key.clone()).or_default().is_to_be_told = true;
            }
        }
        let (log, me) = (&self.log, &self.me);
        own.retain(|key, own| {
            let is_idle = own.asking.is_empty() && own.next.is_empty() && own.promised == 0;
            let is_held = facts.held(key) > 0;
            own.is_to_be_told |= is_held && now - own.sent_at > TOLD_AGAIN_AFTER;
            // What has been spent or given up since is others' to hold.
            let told = log.told(key, me).map_or(0, |told| told.held + told.asked);
            own.is_to_be_told |= told > facts.held(key) + own.promised;
            is_held || own.is_to_be_told || !is_idle || now - own.sent_at <= FORGOTTEN_AFTER
        });
        let mut said = self.tell(facts, now);
        self.told_share = share;
        self.beat_at = Some(now);
        let what = What::Beat { share };
        let beat = next_record(&mut self.number, &self.me, what, facts);
        let lost = |(_, sent_at): &mut (u64, i64)| now - *sent_at > MUTE_AFTER / 2;
        self.next_beat.take_if(lost);
        if self.next_beat.is_none() {
            self.next_beat = Some((beat.number, now));
            for (key, silent) in &mut self.silent {
                silent.used_since_next = facts.held(key);
            }
        }
        said.push(beat);
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

/// Whether everything in `these` is in `those`.
fn is_behind(these: &Seen, those: &Seen) -> bool {
    these.iter().all(|(partition, offset)| {
        let known = those.get(partition);
        known.is_some_and(|known| known >= offset)
    })
}
