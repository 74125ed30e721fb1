//! Which offsets went in so long ago that ClickHouse has them on its disk.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// An operating system writes within half a minute what was not synced, and ClickHouse keeps what it
/// has merged for eight minutes (`old_parts_lifetime`), because it does not sync what comes of it.
const AFTER: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_secs(30);

/// What is known of one partition.
pub(crate) struct Settled {
    from: i64,
    /// When everything before an offset was in, oldest first.
    recent: VecDeque<(Instant, i64)>,
}

impl Settled {
    /// Everything before `from` is on disk.
    pub(crate) fn new(from: i64) -> Self {
        Self {
            from,
            recent: VecDeque::new(),
        }
    }

    /// Everything before this offset is on disk.
    pub(crate) fn from(&self) -> i64 {
        self.from
    }

    /// Everything before `position` is in now.
    pub(crate) fn note(&mut self, now: Instant, position: i64) {
        let is_due = |(at, _): &(Instant, i64)| now.duration_since(*at) >= STEP;
        if self.recent.back().is_none_or(is_due) {
            self.recent.push_back((now, position));
        }
        while let Some((at, position)) = self.recent.front()
            && now.duration_since(*at) >= AFTER
        {
            self.from = *position;
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_ten_minutes_ago_is_settled() {
        let begin = Instant::now();
        let mut settled = Settled::new(5);
        for second in 0..=1200 {
            let now = begin + Duration::from_secs(second);
            settled.note(now, 100 + second as i64);
            if second < 600 {
                assert_eq!(settled.from(), 5);
            }
            assert!(settled.recent.len() <= 21);
        }
        assert_eq!(settled.from(), 700);
    }
}
