//! Dedupe memory: which identities were counted within the horizon.

mod remembered_id;

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use spendfuse_domain::{Identity, UnixMillis};

use remembered_id::minute_of;
pub use remembered_id::{IdsRecord, RememberedId, RememberedIds};

/// Clocks of senders may be ahead by this much without being clamped, so an identity is remembered
/// this much longer than the horizon (five minutes, and one for rounding).
pub const SLACK_MINUTES: u32 = 6;

/// Content hash of an event that was counted, where nobody knows any more what it said. Another event
/// has it by chance once in four billion times, and then conflicts of that one are not seen.
pub(super) const UNKNOWN_CONTENT: u32 = u32::MAX;

/// What the memory says of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Not counted before; now remembered.
    Fresh,
    /// Counted before, with the same content.
    Duplicate,
    /// Counted before, with other content; the first one stands.
    Conflict {
        /// The minute in which that one arrived.
        first: UnixMillis,
    },
}

/// Why a memory reaches back less far than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortened {
    /// It was full.
    Full,
    /// It began later than that, or knew a shorter horizon before; it grows by itself.
    Filling,
}

/// 128-bit identities with arrival minute and content hash, bounded in time and in number.
#[derive(Debug)]
pub struct Dedupe {
    horizon_millis: i64,
    /// The same, rounded up.
    horizon_minutes: u32,
    capacity: usize,
    /// Identities are hashes already: their low half is the place in the table.
    known: HashTable<RememberedId>,
    /// How many ids arrived in each minute, oldest first; what is before it was forgotten.
    per_minute: VecDeque<(u32, usize)>,
    /// Everything that arrived before this minute may have been forgotten for want of memory.
    forgotten_before: u32,
    /// Of what arrived before this minute some may never have come into the memory: it was lost
    /// with the log, or forgotten under a shorter horizon.
    complete_since: u32,
}

impl Dedupe {
    /// A memory of `horizon_millis` with at most `capacity` identities (29 to 57 bytes each).
    pub fn new(horizon_millis: i64, capacity: usize) -> Self {
        Self {
            horizon_millis,
            horizon_minutes: u32::try_from((horizon_millis + 59_999) / 60_000)
                .unwrap_or(u32::MAX / 2),
            capacity: capacity.max(16),
            known: HashTable::new(),
            per_minute: VecDeque::new(),
            forgotten_before: 0,
            complete_since: 0,
        }
    }

    /// How many identities are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Of what arrived before `time` the memory may lack something.
    pub fn complete_since(&mut self, time: UnixMillis) {
        let minute = minute_of(time.plus(59_999));
        self.complete_since = self.complete_since.max(minute);
    }

    /// Since when everything that arrived is in the ids changelog, as a successor with another
    /// horizon must know it: what the horizon has removed from this memory it may not have either.
    pub fn logged_since(&self, now: UnixMillis) -> UnixMillis {
        let needed = now.minute() - i64::from(self.horizon_minutes + SLACK_MINUTES);
        UnixMillis::from_minute(needed.max(i64::from(self.complete_since)))
    }

    /// Since when everything that was counted is remembered: an event that was not counted before
    /// this time is fresh exactly where its identity is unknown.
    pub fn knows_since(&self, now: UnixMillis) -> UnixMillis {
        let forgotten_before = i64::from(self.forgotten_before);
        UnixMillis::from_minute(self.logged_since(now).minute().max(forgotten_before))
    }

    /// The horizon in force at `now`, milliseconds: shorter than configured once the memory was
    /// full, and as long as it does not reach back that far.
    pub fn effective_horizon(&self, now: UnixMillis) -> i64 {
        let since = self.forgotten_before.max(self.complete_since);
        let remembered = now.minute() - i64::from(since) - i64::from(SLACK_MINUTES);
        self.horizon_millis.min(remembered.max(0) * 60_000)
    }

    /// Whether the horizon is shorter than configured, and why.
    pub fn shortened(&self, now: UnixMillis) -> Option<Shortened> {
        // Before the first event `now` is no time at all.
        let since = self.forgotten_before.max(self.complete_since);
        if since == 0
            || now == UnixMillis::default()
            || self.effective_horizon(now) >= self.horizon_millis
        {
            return None;
        }
        Some(match self.forgotten_before >= self.complete_since {
            true => Shortened::Full,
            false => Shortened::Filling,
        })
    }

    /// Judges without remembering.
    pub fn judged(&self, identity: Identity, content: u32, now: UnixMillis) -> Judgement {
        let id = RememberedId::new(identity, content, now);
        let known = self.known.find(id.low, |known| known.is_of(id));
        known.map_or(Judgement::Fresh, |first| {
            first.judge(id, self.forgets_after())
        })
    }

    /// Judges an event at engine time `now` and remembers it where it is fresh.
    pub fn judge(&mut self, identity: Identity, content: u32, now: UnixMillis) -> Judgement {
        let id = RememberedId::new(identity, content, now);
        let forgets_after = self.forgets_after();
        match self.entry(id) {
            Entry::Occupied(mut known) => {
                let judgement = known.get().judge(id, forgets_after);
                if judgement == Judgement::Fresh {
                    *known.get_mut() = id;
                    self.tally(id.minute);
                }
                judgement
            }
            Entry::Vacant(place) => {
                place.insert(id);
                self.tally(id.minute);
                self.sweep(id.minute);
                Judgement::Fresh
            }
        }
    }

    /// Remembers an identity from the changelog, or with its content of now.
    pub fn restore(&mut self, id: RememberedId) {
        match self.entry(id) {
            Entry::Occupied(mut known) => *known.get_mut() = id,
            Entry::Vacant(place) => {
                place.insert(id);
            }
        }
        self.tally(id.minute);
        self.sweep(id.minute);
    }

    #[inline]
    fn entry(&mut self, id: RememberedId) -> Entry<'_, RememberedId> {
        self.known
            .entry(id.low, |known| known.is_of(id), |known| known.low)
    }

    /// Minutes.
    fn forgets_after(&self) -> u32 {
        self.horizon_minutes + SLACK_MINUTES
    }

    fn tally(&mut self, minute: u32) {
        match self.per_minute.back_mut() {
            Some((last, count)) if *last == minute => *count += 1,
            Some((last, _)) if *last > minute => self.tally_earlier(minute),
            _ => self.per_minute.push_back((minute, 1)),
        }
    }

    fn tally_earlier(&mut self, minute: u32) {
        let tallies = &mut self.per_minute;
        match tallies.binary_search_by_key(&minute, |(minute, _)| *minute) {
            Ok(place) => tallies[place].1 += 1,
            Err(place) => tallies.insert(place, (minute, 1)),
        }
    }

    /// Forgets what is older than the horizon once that is an eighth of the memory, and the oldest
    /// eighth when the memory is full. Sweeping rarely keeps the cost per event constant.
    fn sweep(&mut self, now_minute: u32) {
        let expired_before = now_minute.saturating_sub(self.horizon_minutes + SLACK_MINUTES);
        let full = self.known.len() > self.capacity;
        let first = self
            .per_minute
            .front()
            .map_or(now_minute, |(minute, _)| *minute);
        if !full && first >= expired_before {
            return;
        }
        let expired: usize = self
            .per_minute
            .iter()
            .take_while(|(minute, _)| *minute < expired_before)
            .map(|(_, count)| count)
            .sum();
        let mut keep_from = expired_before;
        if full && expired * 8 < self.known.len() {
            keep_from = self.minute_after_oldest(self.known.len() / 8);
            self.forgotten_before = self.forgotten_before.max(keep_from);
        } else if expired * 8 < self.known.len() {
            return;
        }
        self.known.retain(|known| known.minute >= keep_from);
        self.per_minute.retain(|(minute, _)| *minute >= keep_from);
    }

    fn minute_after_oldest(&self, count: usize) -> u32 {
        let mut seen = 0;
        for (minute, tally) in &self.per_minute {
            seen += tally;
            if seen >= count {
                return minute.saturating_add(1);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> UnixMillis {
        UnixMillis::from_minute(minute)
    }

    #[test]
    fn a_duplicate_within_the_horizon_is_seen_and_beyond_it_is_not() {
        let mut dedupe = Dedupe::new(60 * 60_000, 1000);
        let identity = Identity(7);
        assert_eq!(dedupe.judge(identity, 1, at(1000)), Judgement::Fresh);
        assert_eq!(dedupe.judge(identity, 1, at(1060)), Judgement::Duplicate);
        let conflict = Judgement::Conflict { first: at(1000) };
        assert_eq!(dedupe.judge(identity, 2, at(1060)), conflict);
        assert_eq!(dedupe.judge(identity, 1, at(1067)), Judgement::Fresh);
    }

    #[test]
    fn a_full_memory_shortens_the_horizon_and_says_so() {
        let mut dedupe = Dedupe::new(60 * 60_000, 100);
        for number in 0..500_u128 {
            dedupe.judge(Identity(number), 0, at(1000 + number as i64 / 10));
            assert!(dedupe.len() <= 101);
        }
        let now = at(1049);
        assert_eq!(dedupe.shortened(now), Some(Shortened::Full));
        assert!(dedupe.effective_horizon(now) < 10 * 60_000);
        assert_eq!(dedupe.judge(Identity(499), 0, now), Judgement::Duplicate);
    }

    #[test]
    fn what_comes_later_than_newer_identities_is_forgotten_in_its_time() {
        let mut dedupe = Dedupe::new(60 * 60_000, 1000);
        dedupe.judge(Identity(0), 1, at(1050));
        for number in 1..=20 {
            let id = RememberedId::new(Identity(number), UNKNOWN_CONTENT, at(1000));
            dedupe.restore(id);
        }
        assert_eq!(dedupe.judge(Identity(7), 9, at(1050)), Judgement::Duplicate);
        dedupe.judge(Identity(99), 1, at(1070));
        assert_eq!(
            dedupe.len(),
            2,
            "those of minute 1000 are gone, that of 1050 is not"
        );
    }

    #[test]
    fn a_memory_that_nothing_has_come_to_is_not_short() {
        let dedupe = Dedupe::new(60 * 60_000, 100);
        assert_eq!(dedupe.shortened(at(0)), None);
        assert_eq!(dedupe.shortened(at(1_000)), None);
    }

    #[test]
    fn a_longer_horizon_takes_effect_as_the_memory_fills() {
        const HOUR: i64 = 60 * 60_000;
        let before = Dedupe::new(HOUR, 1000);
        let raised_at = at(10_000);
        let mut dedupe = Dedupe::new(24 * HOUR, 1000);
        dedupe.complete_since(before.logged_since(raised_at));
        assert_eq!(dedupe.effective_horizon(raised_at), HOUR);
        assert_eq!(dedupe.shortened(raised_at), Some(Shortened::Filling));
        // A restart on the way claims no more.
        let later = raised_at.plus(5 * HOUR);
        let mut again = Dedupe::new(24 * HOUR, 1000);
        again.complete_since(dedupe.logged_since(later));
        assert_eq!(again.effective_horizon(later), 6 * HOUR);
        let full = raised_at.plus(23 * HOUR);
        assert_eq!(dedupe.effective_horizon(full), 24 * HOUR);
        assert_eq!(dedupe.shortened(full), None);
    }

    #[test]
    fn a_horizon_below_a_minute_is_one() {
        let mut dedupe = Dedupe::new(20_000, 1000);
        assert_eq!(dedupe.effective_horizon(at(1_000)), 20_000);
        assert_eq!(dedupe.judge(Identity(7), 1, at(1_000)), Judgement::Fresh);
        assert_eq!(
            dedupe.judge(Identity(7), 1, at(1_000)),
            Judgement::Duplicate
        );
    }
}
