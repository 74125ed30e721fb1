//! When a message is tried again: pauses that double, each with some jitter, so that messages that
//! failed together do not come back together.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

const FIRST_MILLIS: i64 = 1_000;
const LONGEST_MILLIS: i64 = 5 * 60_000;
/// A place that has not taken a message for this long, and has no successor, never will.
pub const GIVE_UP_MILLIS: i64 = 24 * 3_600_000;

/// The pause after `attempts` failed ones, milliseconds: between half of what it doubles to and all
/// of it. It follows from the message and the number alone, so that nothing needs to be remembered.
pub fn pause_millis(message: &str, attempts: u32, asked: Option<Duration>) -> i64 {
    let doubled = FIRST_MILLIS << attempts.saturating_sub(1).min(20);
    let whole = doubled.min(LONGEST_MILLIS);
    let seed = xxh3_64(format!("{message}|{attempts}").as_bytes());
    let share = (seed % 1_000).cast_signed();
    let pause = whole / 2 + whole * share / 2_000;
    let asked = asked.map_or(0, |asked| {
        i64::try_from(asked.as_millis()).unwrap_or(i64::MAX)
    });
    pause.max(asked.min(GIVE_UP_MILLIS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_and_are_never_shorter_than_asked_for() {
        for attempts in 1..40 {
            let whole = (FIRST_MILLIS << (attempts - 1).min(20)).min(LONGEST_MILLIS);
            let pause = pause_millis("m", attempts, None);
            assert!((whole / 2..=whole).contains(&pause), "{attempts}: {pause}");
        }
        assert_ne!(pause_millis("a", 5, None), pause_millis("b", 5, None));
        let asked = Some(Duration::from_secs(90));
        assert_eq!(pause_millis("m", 1, asked), 90_000);
        let forever = Some(Duration::MAX);
        assert_eq!(pause_millis("m", 1, forever), GIVE_UP_MILLIS);
    }
}
