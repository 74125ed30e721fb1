//! What one partition of the log says up to some place in it: the same for every reader.

use std::collections::BTreeSet;
use std::mem;

use hashbrown::{HashMap, HashSet};

use super::time::{LEAP, LogTime};
use super::{
    DROPPED_AFTER, FORGOTTEN_AFTER, Holder, Key, SHARED_OUT, SILENT_AT_MOST, SPEAKS_WITHIN, Said,
    Seen, What, part,
};

/// A holder that is heard.
#[derive(Debug)]
struct Heard {
    at: i64,
    /// Of its last record, believed or not.
    stamp: i64,
    number: u64,
    share: u32,
    /// What it told of its share, by what it had read: it may have known that others are gone.
    told_share: u32,
}

/// What a holder told of a key last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    place: i64,
    pub(super) held: i64,
    pub(super) asked: i64,
}

#[derive(Debug)]
struct Account {
    at: i64,
    told: HashMap<Holder, Told>,
}

impl Account {
    /// Nobody has spoken of it for long. Who held nothing then may have held its share since; who is
    /// there and held anything would have told it again, so the clock was set since.
    fn keep_held(&mut self) {
        self.told.retain(|_, told| told.held > 0);
    }
}

/// What others may have of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) most: i64,
    /// Who may say yet that it has less.
    pub(super) may_say_less: Vec<Holder>,
}

/// Of a sidecar, whichever of its starts it is.
fn name_of(holder: &str) -> &str {
    holder.rsplit_once('.').map_or(holder, |(name, _)| name)
}

/// One partition of the log, up to the last record that was read.
#[derive(Debug, Default)]
pub(super) struct Log {
    time: LogTime,
    heard: HashMap<Holder, Heard>,
    accounts: HashMap<Key, Account>,
    /// The accounts, those first of which nobody has spoken for longest.
    by_age: BTreeSet<(i64, Key)>,
    /// The keys of which somebody has ceased to hold what it told, by no record of that key.
    ceased: HashSet<Key>,
    seen: Seen,
    /// Of the log's beginning only the last record of each key is there: nobody is dropped before
    /// all is read.
    is_caught_up: bool,
}

impl Log {
    /// Takes the record at `place`, logged at `at`. Returns who is dropped by it.
    pub(super) fn take(&mut self, place: i64, at: i64, said: &Said) -> Vec<Holder> {
        let before = self.time.now();
        let has_leapt = self.time.pass(at);
        let pause = self.time.now() - before;
        if has_leapt {
            self.has_leapt(before);
        } else if pause > LEAP {
            self.begins_after_long(before);
        } else if pause > SILENT_AT_MOST {
            self.has_paused(before);
        }
        let dropped = match self.time.is_live() {
            true => {
                self.forget();
                self.drop_silent()
            }
            false => Vec::new(),
        };
        let now = self.time.now();
        let heard = self.heard.entry(said.holder.clone());
        let heard = heard.or_insert(Heard {
            at: now,
            stamp: at,
            number: 0,
            share: 0,
            told_share: 0,
        });
        if said.number <= heard.number {
            // It came twice, and later things may have been said since.
            return dropped;
        }
        (heard.at, heard.stamp, heard.number) = (now, at, said.number);
        for (partition, offset) in &said.seen {
            let known = self.seen.entry(*partition).or_insert(*offset);
            *known = (*known).max(*offset);
        }
        match &said.what {
            What::Beat { share } => {
                let share = (*share).min(SHARED_OUT);
                let others = self.others_than(&said.holder);
                let others: u32 = others.map(|heard| heard.share).sum();
                if let Some(heard) = self.heard.get_mut(&said.holder) {
                    let has_room = others + share <= SHARED_OUT || !self.is_caught_up;
                    // Without room, as everybody sees, it stays at what it had.
                    heard.share = match has_room {
                        true => share,
                        false => heard.share.min(share),
                    };
                    heard.told_share = share;
                }
            }
            What::Held { key, held, asked } => {
                let new = || Account {
                    at: now,
                    told: HashMap::new(),
                };
                let account = self.accounts.entry(key.clone()).or_insert_with(new);
                self.by_age.remove(&(account.at, key.clone()));
                if now - account.at > FORGOTTEN_AFTER {
                    account.keep_held();
                }
                // Where the log is read again, somebody who is gone may have spoken of it long ago.
                account.at = account.at.max(now);
                self.by_age.insert((account.at, key.clone()));
                let (held, asked) = (*held, *asked);
                let told = Told { place, held, asked };
                account.told.insert(said.holder.clone(), told);
            }
        }
        dropped
    }

    /// All of it comes again, and is known but for those who are gone: nobody is dropped before all is
    /// read.
    pub(super) fn begin_again(&mut self) {
        if self.time.is_live() {
            self.forget();
        }
        self.time.begins();
    }

    /// All is read that was there at the beginning. Returns who is dropped.
    pub(super) fn caught_up(&mut self) -> Vec<Holder> {
        self.is_caught_up = true;
        let leapt_from = self.time.is_live_from_now_on();
        let now = self.time.now();
        for heard in self.heard.values_mut() {
            heard.at = heard.at.min(now);
        }
        for account in self.accounts.values_mut() {
            account.at = account.at.min(now);
        }
        self.sort_by_age();
        if let Some(before) = leapt_from {
            self.keep_accounts(before);
        }
        let dropped = self.drop_silent();
        self.keep_held();
        self.forget();
        dropped
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// The time is another one: whoever spoke since it is was heard then, and of every key something
    /// was told just now.
    fn has_leapt(&mut self, before: i64) {
        let now = self.time.now();
        for heard in self.heard.values_mut() {
            heard.at = heard.stamp.min(now);
        }
        self.keep_accounts(before);
    }

    /// What was not forgotten before the time was another one is not forgotten by that.
    fn keep_accounts(&mut self, before: i64) {
        let now = self.time.now();
        let then = before.min(now);
        let ceased = &mut self.ceased;
        self.accounts.retain(|key, account| {
            let is_kept = then - account.at <= FORGOTTEN_AFTER;
            account.at = now;
            if !is_kept {
                ceased.insert(key.clone());
            }
            is_kept
        });
        self.sort_by_age();
    }

    /// What those hold who are there is not forgotten where the clock was set while nobody read.
    fn keep_held(&mut self) {
        let now = self.time.now();
        let accounts = self.accounts.values_mut();
        for account in accounts.filter(|account| now - account.at > FORGOTTEN_AFTER) {
            account.keep_held();
            if !account.told.is_empty() {
                account.at = now;
            }
        }
        self.sort_by_age();
    }

    fn sort_by_age(&mut self) {
        let accounts = self.accounts.iter();
        self.by_age = accounts
            .map(|(key, account)| (account.at, key.clone()))
            .collect();
    }

    /// The first record after all was read comes long after the last one. Nobody is there any more, or
    /// the clock was set just now: then they speak in a moment.
    fn begins_after_long(&mut self, before: i64) {
        self.has_paused(before);
        if self.time.is_live() {
            self.keep_accounts(before);
        }
    }

    /// Nobody was heard for longer than anybody is silent: the log stood still, or its clock was set, or
    /// nobody was there. Those who are there, heard until `before` as often as everybody is, speak in a
    /// moment, be it that a newcomer speaks first.
    fn has_paused(&mut self, before: i64) {
        let heard_at_least = self.time.now() - DROPPED_AFTER + SPEAKS_WITHIN;
        let were_there = |heard: &&mut Heard| before - heard.at < SILENT_AT_MOST;
        for heard in self.heard.values_mut().filter(were_there) {
            heard.at = heard.at.max(heard_at_least);
        }
    }

    fn drop_silent(&mut self) -> Vec<Holder> {
        let now = self.time.now();
        let is_silent = |heard: &Heard| now - heard.at > DROPPED_AFTER;
        let silent = self.heard.iter().filter(|(_, heard)| is_silent(heard));
        let dropped: Vec<Holder> = silent.map(|(holder, _)| holder.clone()).collect();
        for holder in &dropped {
            self.heard.remove(holder);
        }
        if !dropped.is_empty() {
            let (heard, by_age, ceased) = (&self.heard, &mut self.by_age, &mut self.ceased);
            self.accounts.retain(|key, account| {
                let before = account.told.len();
                account.told.retain(|holder, _| heard.contains_key(holder));
                if account.told.len() < before {
                    ceased.insert(key.clone());
                }
                let is_kept = !account.told.is_empty();
                if !is_kept {
                    by_age.remove(&(account.at, key.clone()));
                }
                is_kept
            });
        }
        dropped
    }

    /// Accounts of which nobody has spoken for so long count as gone.
    fn forget(&mut self) {
        let now = self.time.now();
        let is_over = |(at, _): &(i64, Key)| now - at > FORGOTTEN_AFTER;
        while self.by_age.first().is_some_and(is_over)
            && let Some((_, key)) = self.by_age.pop_first()
        {
            self.accounts.remove(&key);
            self.ceased.insert(key);
        }
    }

    /// The keys of which somebody has ceased to hold what it told since this was asked last, by no
    /// record of that key: it is gone, or nobody spoke of the key for long.
    pub(super) fn take_ceased(&mut self) -> HashSet<Key> {
        mem::take(&mut self.ceased)
    }

    fn account(&self, key: &str) -> Option<&Account> {
        let account = self.accounts.get(key)?;
        // Those that count as gone stay while the log is read from its beginning.
        (self.time.now() - account.at <= FORGOTTEN_AFTER).then_some(account)
    }

    /// Which entries those who spoke had read.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// How many holders there are.
    pub(super) fn live(&self) -> u32 {
        u32::try_from(self.heard.len()).unwrap_or(u32::MAX)
    }

    /// Whether anything was told of a key.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.account(key).is_some()
    }

    /// What a holder told of a key last.
    pub(super) fn told(&self, key: &str, holder: &Holder) -> Option<Told> {
        self.account(key)?.told.get(holder).copied()
    }

    /// What all others said they hold of a key, for people.
    pub(super) fn elsewhere(&self, key: &str, me: &Holder) -> i64 {
        let account = self.account(key);
        let told = account.iter().flat_map(|account| &account.told);
        let others = told.filter(|(holder, _)| *holder != me);
        others.fold(0, |sum, (_, told)| sum.saturating_add(told.held))
    }

    /// The keys of which anything was told.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.accounts.keys()
    }

    pub(super) fn share_of(&self, holder: &Holder) -> u32 {
        self.heard.get(holder).map_or(0, |heard| heard.share)
    }

    fn others_than(&self, me: &Holder) -> impl Iterator<Item = &Heard> {
        let others = self.heard.iter().filter(move |(holder, _)| *holder != me);
        others.map(|(_, heard)| heard)
    }

    /// What all others may believe that they may share.
    pub(super) fn shares_but(&self, me: &Holder) -> u32 {
        let shares = self.others_than(me).map(|heard| heard.told_share);
        shares.fold(0, u32::saturating_add)
    }

    /// What all holders may have of a key.
    pub(super) fn most(&self, key: &str, limit: i64) -> i64 {
        let most = { self.heard.iter() }.map(|(holder, heard)| match self.told(key, holder) {
            Some(told) => told.held.saturating_add(told.asked),
            None => part(limit, heard.told_share),
        });
        most.fold(0, i64::saturating_add)
    }

    pub(super) fn hears(&self, holder: &Holder) -> bool {
        self.heard.contains_key(holder)
    }

    /// Those that are heard and have the name of `holder`.
    pub(super) fn named_as(&self, holder: &Holder) -> impl Iterator<Item = &Holder> {
        let others = self.heard.keys();
        others.filter(|other| name_of(other) == name_of(holder))
    }

    /// What others may have of `key` that comes before what stands at `place`.
    pub(super) fn others(&self, key: &str, me: &Holder, place: i64, limit: i64) -> Others {
        let mut others = Others {
            most: 0,
            may_say_less: Vec::new(),
        };
        for (holder, heard) in self.heard.iter().filter(|(holder, _)| *holder != me) {
            let (most, may_say_less) = match self.told(key, holder) {
                // What it asks for comes after.
                Some(told) if told.place > place => (told.held, false),
                Some(told) => (told.held.saturating_add(told.asked), told.asked > 0),
                None => (part(limit, heard.told_share), heard.told_share > 0),
            };
            others.most = others.most.saturating_add(most);
            if may_say_less {
                others.may_say_less.push(holder.clone());
            }
        }
        others
    }
}
