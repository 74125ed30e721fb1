//! Dedupe memory: which identities were counted within the horizon.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use minicbor::{Decode, Encode};
use spendfuse_domain::{Identity, UnixMillis};

/// Clocks of senders may be ahead by this much without being clamped, so an identity is remembered
/// this much longer than the horizon (five minutes, and one for rounding).
const SLACK_MINUTES: u32 = 6;

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

/// One remembered identity, as in the ids changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RememberedId {
    /// High and low half of the identity.
    #[n(0)]
    pub high: u64,
    /// See [`Self::high`].
    #[n(1)]
    pub low: u64,
    /// Content hash.
    #[n(2)]
    pub content: u32,
    /// Arrival, minutes since 1970.
    #[n(3)]
    pub minute: u32,
}

/// The new identities of one commit: the record of the ids changelog.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct RememberedIds {
    /// In the order of counting.
    #[n(0)]
    pub ids: Vec<RememberedId>,
}

/// 128-bit identities with arrival minute and content hash, bounded in time and in number.
#[derive(Debug)]
pub struct Dedupe {
    horizon_minutes: u32,
    capacity: usize,
    /// Identities are hashes already: their low half is the place in the table.
    known: HashTable<RememberedId>,
    /// How many ids arrived in each minute, oldest first; what is before it was forgotten.
    per_minute: VecDeque<(u32, usize)>,
    /// Everything that arrived before this minute may have been forgotten for want of memory.
    forgotten_before: u32,
}

impl Dedupe {
    /// A memory of `horizon_millis` with at most `capacity` identities (29 to 57 bytes each).
    pub fn new(horizon_millis: i64, capacity: usize) -> Self {
        Self {
            horizon_minutes: u32::try_from(horizon_millis / 60_000).unwrap_or(u32::MAX / 2),
            capacity: capacity.max(16),
            known: HashTable::new(),
            per_minute: VecDeque::new(),
            forgotten_before: 0,
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

    /// The horizon in force at `now`, milliseconds: shorter than configured once the memory was full.
    pub fn effective_horizon(&self, now: UnixMillis) -> i64 {
        let remembered = now.minute() - i64::from(self.forgotten_before) - i64::from(SLACK_MINUTES);
        let configured = i64::from(self.horizon_minutes);
        configured.min(remembered.max(0)) * 60_000
    }

    /// Whether the memory was full and the horizon had to shrink.
    pub fn is_shortened(&self, now: UnixMillis) -> bool {
        // Before the first event `now` is no time at all.
        self.forgotten_before > 0
            && self.effective_horizon(now) < i64::from(self.horizon_minutes) * 60_000
    }

    /// Judges an event and remembers it where it is fresh; `arrival` is its first arrival.
    pub fn judge(&mut self, identity: Identity, content: u32, arrival: UnixMillis) -> Judgement {
        let id = RememberedId::new(identity, content, arrival);
        let horizon = self.horizon_minutes + SLACK_MINUTES;
        match self.entry(id) {
            Entry::Occupied(mut known) => {
                let first = *known.get();
                if id.minute > first.minute.saturating_add(horizon) {
                    // Older than the horizon: it only waits for the next sweep.
                    *known.get_mut() = id;
                    self.tally(id.minute);
                    return Judgement::Fresh;
                }
                if first.content == content {
                    Judgement::Duplicate
                } else {
                    let first = UnixMillis::from_minute(first.minute.into());
                    Judgement::Conflict { first }
                }
            }
            Entry::Vacant(place) => {
                place.insert(id);
                self.tally(id.minute);
                self.sweep(id.minute);
                Judgement::Fresh
            }
        }
    }

    /// Remembers an identity from the changelog.
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
        let same = |known: &RememberedId| known.low == id.low && known.high == id.high;
        self.known.entry(id.low, same, |known| known.low)
    }

    fn tally(&mut self, minute: u32) {
        match self.per_minute.back_mut() {
            Some((last, count)) if *last >= minute => *count += 1,
            _ => self.per_minute.push_back((minute, 1)),
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

fn minute_of(time: UnixMillis) -> u32 {
    u32::try_from(time.minute().max(0)).unwrap_or(u32::MAX)
}

impl RememberedId {
    /// The changelog entry of a fresh event.
    pub fn new(identity: Identity, content: u32, arrival: UnixMillis) -> Self {
        Self {
            high: (identity.0 >> 64) as u64,
            low: identity.0 as u64,
            content,
            minute: minute_of(arrival),
        }
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
        assert!(dedupe.is_shortened(now));
        assert!(dedupe.effective_horizon(now) < 10 * 60_000);
        assert_eq!(dedupe.judge(Identity(499), 0, now), Judgement::Duplicate);
    }

    #[test]
    fn a_memory_that_nothing_has_come_to_is_not_short() {
        let dedupe = Dedupe::new(60 * 60_000, 100);
        assert!(!dedupe.is_shortened(at(0)));
        assert!(!dedupe.is_shortened(at(1_000)));
    }
}
