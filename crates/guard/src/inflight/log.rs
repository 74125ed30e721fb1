//! What one partition of the log says up to some place in it: the same for every reader.

use hashbrown::HashMap;

use super::{DROPPED_AFTER, FORGOTTEN_AFTER, Holder, Key, SHARED_OUT, Said, Seen, What, part};

/// A holder that is heard.
#[derive(Debug)]
struct Heard {
    at: i64,
    number: u64,
    share: u32,
}

/// What a holder told of a key last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    place: i64,
    pub(super) held: i64,
    pub(super) asked: i64,
}

#[derive(Debug, Default)]
struct Account {
    at: i64,
    told: HashMap<Holder, Told>,
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
    now: i64,
    heard: HashMap<Holder, Heard>,
    accounts: HashMap<Key, Account>,
    seen: Seen,
    /// Of the log's beginning only the last record of each key is there: nobody is dropped before
    /// all is read.
    is_caught_up: bool,
}

impl Log {
    /// Takes the record at `place`, logged at `at`. Returns who is dropped by it.
    pub(super) fn take(&mut self, place: i64, at: i64, said: &Said) -> Vec<Holder> {
        self.now = self.now.max(at);
        let dropped = match self.is_caught_up {
            true => self.drop_silent(),
            false => Vec::new(),
        };
        let now = self.now;
        let heard = self.heard.entry(said.holder.clone());
        let heard = heard.or_insert(Heard {
            at: now,
            number: 0,
            share: 0,
        });
        if said.number <= heard.number {
            // It came twice, and later things may have been said since.
            return dropped;
        }
        (heard.at, heard.number) = (now, said.number);
        for (partition, offset) in &said.seen {
            let known = self.seen.entry(*partition).or_insert(*offset);
            *known = (*known).max(*offset);
        }
        match &said.what {
            What::Beat { share } => {
                let others = self.shares_but(&said.holder);
                if let Some(heard) = self.heard.get_mut(&said.holder) {
                    let has_room = others + share <= SHARED_OUT || !self.is_caught_up;
                    // Without room, as everybody sees, it stays at what it had.
                    heard.share = match has_room {
                        true => *share,
                        false => heard.share.min(*share),
                    };
                }
            }
            What::Held { key, held, asked } => {
                let account = self.accounts.entry(key.clone()).or_default();
                account.at = now;
                let (held, asked) = (*held, *asked);
                let told = Told { place, held, asked };
                account.told.insert(said.holder.clone(), told);
            }
        }
        dropped
    }

    /// All is read that was there at the beginning.
    pub(super) fn caught_up(&mut self) {
        self.is_caught_up = true;
        self.drop_silent();
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    fn drop_silent(&mut self) -> Vec<Holder> {
        let now = self.now;
        let is_silent = |heard: &Heard| now - heard.at > DROPPED_AFTER;
        let silent = self.heard.iter().filter(|(_, heard)| is_silent(heard));
        let dropped: Vec<Holder> = silent.map(|(holder, _)| holder.clone()).collect();
        for holder in &dropped {
            self.heard.remove(holder);
        }
        if !dropped.is_empty() {
            let heard = &self.heard;
            for account in self.accounts.values_mut() {
                account.told.retain(|holder, _| heard.contains_key(holder));
            }
        }
        self.accounts
            .retain(|_, account| now - account.at <= FORGOTTEN_AFTER && !account.told.is_empty());
        dropped
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
        self.accounts.contains_key(key)
    }

    /// What a holder told of a key last.
    pub(super) fn told(&self, key: &str, holder: &Holder) -> Option<Told> {
        self.accounts.get(key)?.told.get(holder).copied()
    }

    /// What all others said they hold of a key, for people.
    pub(super) fn elsewhere(&self, key: &str, me: &Holder) -> i64 {
        let account = self.accounts.get(key);
        let told = account.iter().flat_map(|account| &account.told);
        let others = told.filter(|(holder, _)| *holder != me);
        others.fold(0, |sum, (_, told)| sum.saturating_add(told.held))
    }

    /// The keys of which anything was told.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.accounts.keys()
    }

    pub(super) fn share_of(&self, holder: &Holder) -> u32 {
        self.heard.get(holder).map_or(0, |heard| heard.share)
    }

    pub(super) fn shares_but(&self, me: &Holder) -> u32 {
        let others = self.heard.iter().filter(|(holder, _)| *holder != me);
        others.map(|(_, heard)| heard.share).sum()
    }

    /// What all holders may have of a key.
    pub(super) fn most(&self, key: &str, limit: i64) -> i64 {
        let most = { self.heard.iter() }.map(|(holder, heard)| match self.told(key, holder) {
            Some(told) => told.held.saturating_add(told.asked),
            None => part(limit, heard.share),
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
                None => (part(limit, heard.share), heard.share > 0),
            };
            others.most = others.most.saturating_add(most);
            if may_say_less {
                others.may_say_less.push(holder.clone());
            }
        }
        others
    }
}
