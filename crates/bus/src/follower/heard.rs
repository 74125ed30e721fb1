//! When each followed partition was known to its end last.
//!
//! A compacted topic keeps a tombstone for a while only. Who was away for longer never learns that a
//! key was deleted: the log goes on at a valid offset, and says nothing of it any more.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

/// Index of the topic and partition.
pub(super) type Place = (usize, u32);

/// A moment on both clocks: the monotonic one stands still while a machine sleeps, the other one may
/// be set.
#[derive(Clone, Copy, Debug)]
struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The longer of what the clocks say has passed.
    fn until(self, now: Self) -> Duration {
        let wall = now.wall.duration_since(self.wall).unwrap_or_default();
        wall.max(now.monotonic.duration_since(self.monotonic))
    }
}

/// What was heard, and how long ago that may be.
#[derive(Debug)]
pub(super) struct Heard {
    at: HashMap<Place, Moment>,
    at_most: Duration,
}

impl Heard {
    /// All of `places` are known to their ends now. Half of the time that tombstones are kept is
    /// left to read the log in.
    pub(super) fn now(places: impl Iterator<Item = Place>, tombstones: Duration) -> Self {
        let now = Moment::now();
        Self {
            at: places.map(|place| (place, now)).collect(),
            at_most: tombstones / 2,
        }
    }

    /// Something came from `place`. Whether so much time has passed since anything did that
    /// tombstones may have been missed: then all is to be read anew.
    pub(super) fn hear(&mut self, place: Place) -> bool {
        self.hear_at(place, Moment::now())
    }

    fn hear_at(&mut self, place: Place, now: Moment) -> bool {
        let before = self.at.insert(place, now);
        before.is_some_and(|before| before.until(now) > self.at_most)
    }

    /// The partitions that have been silent for so long that one should ask whether there is
    /// nothing to say or nobody is heard.
    pub(super) fn silent(&self) -> Vec<Place> {
        let now = Moment::now();
        let silent = |at: &Moment| at.until(now) > self.at_most / 4;
        let all = self.at.iter().filter(|(_, at)| silent(at));
        all.map(|(place, _)| *place).collect()
    }

    /// How often one should ask.
    pub(super) fn ask_every(&self) -> Duration {
        (self.at_most / 8).max(Duration::from_millis(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn after(start: Moment, monotonic: Duration, wall: Duration) -> Moment {
        Moment {
            monotonic: start.monotonic + monotonic,
            wall: start.wall + wall,
        }
    }

    #[test]
    fn who_was_away_for_half_of_what_tombstones_last_reads_all_anew() {
        let mut heard = Heard::now([(0, 0), (0, 1)].into_iter(), 14 * DAY);
        let start = heard.at[&(0, 0)];
        assert!(!heard.hear_at((0, 0), after(start, 6 * DAY, 6 * DAY)));
        // The other one was heard of; this one was not.
        assert!(heard.hear_at((0, 1), after(start, 8 * DAY, 8 * DAY)));
        // Asleep: only the wall clock went on.
        assert!(heard.hear_at((0, 0), after(start, 6 * DAY, 14 * DAY)));
        assert!(!heard.hear_at((0, 0), after(start, 6 * DAY, 15 * DAY)));
    }
}
