//! What time it is by the stamps of one partition of the log, the same for every reader.
//!
//! A broker's clock may jump, and may be set right again. One stamp a day ahead would drop all who hold
//! something, and keep those who are gone for a day. So the time stands still meanwhile.

use std::mem;

/// A stamp that lies further from the time before, milliseconds, is not believed at once.
pub(super) const LEAP: i64 = 300_000;
/// It is when stamps have been like that for so long, milliseconds.
const LASTS: i64 = 15_000;

/// The time, milliseconds.
#[derive(Debug, Default)]
pub(super) struct LogTime {
    now: Option<i64>,
    /// The first of the stamps that are not believed yet.
    doubted: Option<i64>,
    /// The last leap of a log that is read from its beginning: the time before, and the first stamp
    /// behind it.
    leapt: Option<(i64, i64)>,
    /// All is read that was there; what comes now is logged now.
    is_live: bool,
    /// Something came since.
    has_lived: bool,
}

impl LogTime {
    /// The log is read from its beginning, for the first time or again: its stamps are old, and much
    /// between them may be missing.
    pub(super) fn begins(&mut self) {
        self.is_live = false;
    }

    /// All is read that was there. Returns the time before the last stamps, where they have leapt.
    pub(super) fn is_live_from_now_on(&mut self) -> Option<i64> {
        self.is_live = true;
        self.doubted = None;
        let leapt = self.leapt.take();
        let leapt = leapt.filter(|(_, since)| self.now() - since < LASTS);
        leapt.map(|(before, _)| before)
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// The stamp of the next record. Returns whether it is the one by which a leap is believed.
    pub(super) fn pass(&mut self, at: i64) -> bool {
        let now = *self.now.get_or_insert(at);
        let is_first = self.is_live && !mem::replace(&mut self.has_lived, true);
        let is_near = |time: i64| (at - time).abs() <= LEAP;
        if is_near(now) {
            self.now = Some(now.max(at));
            self.doubted = None;
            return false;
        }
        if !self.is_live {
            // Back where it was, a few stamps were wrong.
            let back = self.leapt.filter(|(before, _)| is_near(*before));
            self.now = Some(back.map_or(at, |(before, _)| before.max(at)));
            self.leapt = back.is_none().then_some((now, at));
            return false;
        }
        if is_first && at > now {
            // Nobody was there for long.
            self.now = Some(at);
            return false;
        }
        let since = self.doubted.filter(|since| is_near(*since)).unwrap_or(at);
        let is_believed = at - since >= LASTS;
        match is_believed {
            true => (self.now, self.doubted) = (Some(at), None),
            false => self.doubted = Some(since),
        }
        is_believed
    }

    pub(super) fn now(&self) -> i64 {
        self.now.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::log::Log;
    use super::super::{Holder, Key, Said, Seen, What};

    const DAY: i64 = 86_400_000;

    /// A log, and what its holders have said.
    #[derive(Default)]
    struct Told {
        log: Log,
        said: Vec<(i64, Said)>,
    }

    impl Told {
        /// All of it is read.
        fn new() -> Self {
            let mut told = Self::default();
            told.log.caught_up();
            told
        }

        /// Who is dropped by it.
        fn say(&mut self, at: i64, holder: &str, what: What) -> Vec<Holder> {
            let said = Said {
                holder: Arc::from(holder),
                number: self.said.len() as u64 + 1,
                seen: Seen::new(),
                what,
            };
            self.said.push((at, said));
            let place = self.said.len() - 1;
            self.read(place)
        }

        fn read(&mut self, place: usize) -> Vec<Holder> {
            let (at, said) = &self.said[place];
            self.log.take(place as i64, *at, said)
        }

        fn beat(&mut self, at: i64, holder: &str) -> Vec<Holder> {
            self.say(at, holder, What::Beat { share: 0 })
        }

        /// The holder has 7.
        fn hold(&mut self, at: i64, holder: &str) -> Vec<Holder> {
            let (key, held, asked) = (Key::from("b|acme"), 7, 0);
            self.say(at, holder, What::Held { key, held, asked })
        }

        fn held(&self) -> i64 {
            self.log.elsewhere("b|acme", &Holder::from("me.1"))
        }
    }

    #[test]
    fn one_stamp_a_day_ahead_drops_nobody_and_keeps_nobody_who_is_gone() {
        let mut told = Told::new();
        let mut dropped = told.beat(0, "a.1");
        dropped.extend(told.beat(500, "b.1"));
        dropped.extend(told.beat(DAY, "a.1"));
        dropped.extend(told.beat(1_500, "b.1"));
        assert!(dropped.is_empty());
        for second in 2..20 {
            dropped.extend(told.beat(second * 1_000, "a.1"));
        }
        assert_eq!(dropped, [Holder::from("b.1")]);
    }

    #[test]
    fn a_clock_that_was_set_is_believed_and_those_who_spoke_since_stay() {
        for set_to in [DAY, -DAY] {
            let mut told = Told::new();
            let mut dropped = told.hold(0, "a.1");
            dropped.extend(told.beat(0, "gone.1"));
            for second in 1..40 {
                dropped.extend(told.beat(set_to + second * 1_000, "a.1"));
            }
            assert_eq!(dropped, [Holder::from("gone.1")], "{set_to}");
            assert_eq!(told.held(), 7);
        }
    }

    #[test]
    fn one_stamp_a_day_ahead_in_what_is_read_at_the_start_drops_nobody() {
        for (place, is_last) in [(0, false), (1, false), (2, false), (2, true)] {
            let mut told = Told::default();
            for step in 0..3 {
                let wrong = if step == place { DAY } else { 0 };
                match step {
                    1 => told.hold(wrong + 1_000, "a.1"),
                    _ => told.beat(wrong + step * 1_000, "b.1"),
                };
            }
            if !is_last {
                told.beat(3_000, "b.1");
            }
            let mut dropped = told.log.caught_up();
            for second in 4..8 {
                dropped.extend(told.beat(second * 1_000, "b.1"));
            }
            assert_eq!((dropped, told.held()), (Vec::new(), 7), "{place}");
            for second in 8..40 {
                dropped_by(&mut told, second, &["b.1"]);
            }
            assert_eq!(told.held(), 0, "{place}: it is gone by then");
        }
    }

    /// Who is dropped by what these say in that second.
    fn dropped_by(told: &mut Told, second: i64, holders: &[&str]) -> Vec<Holder> {
        let each = holders.iter();
        each.flat_map(|holder| told.beat(second * 1_000, holder))
            .collect()
    }

    #[test]
    fn a_log_that_is_read_again_drops_only_who_is_gone() {
        let mut told = Told::new();
        let mut dropped = Vec::new();
        for second in (0..1_800).step_by(4) {
            dropped.extend(dropped_by(&mut told, second, &["a.1", "b.1"]));
            if second < 600 {
                dropped.extend(told.beat(second * 1_000, "gone.1"));
            }
        }
        told.hold(1_800_000, "a.1");
        assert_eq!(dropped, [Holder::from("gone.1")]);
        told.log.begin_again();
        let places = 0..told.said.len();
        let mut dropped: Vec<Holder> = places.flat_map(|place| told.read(place)).collect();
        assert_eq!((dropped.len(), told.held()), (0, 7));
        dropped.extend(told.log.caught_up());
        dropped.extend(told.beat(1_801_000, "b.1"));
        assert_eq!(dropped, [Holder::from("gone.1")]);
        assert_eq!(told.held(), 7);
    }

    #[test]
    fn a_log_that_is_read_again_keeps_what_is_told_though_somebody_gone_spoke_of_it_long_ago() {
        let mut told = Told::new();
        told.hold(0, "gone.1");
        for second in (4..1_800).step_by(4) {
            dropped_by(&mut told, second, &["a.1"]);
        }
        told.hold(1_800_000, "a.1");
        told.log.begin_again();
        for place in 0..told.said.len() {
            told.read(place);
        }
        told.log.caught_up();
        assert_eq!(told.held(), 7);
    }

    #[test]
    fn after_a_pause_in_which_nobody_spoke_those_who_are_there_may_speak_first() {
        let mut told = Told::new();
        told.hold(0, "a.1");
        dropped_by(&mut told, 1, &["b.1", "gone.1"]);
        let mut dropped = dropped_by(&mut told, 61, &["b.1"]);
        // Who reads all of it just now knows the same.
        let mut late = Told {
            said: told.said.clone(),
            ..Told::default()
        };
        (0..late.said.len()).for_each(|place| dropped.extend(late.read(place)));
        dropped.extend(late.log.caught_up());
        assert_eq!(late.held(), 7);
        dropped.extend(dropped_by(&mut told, 65, &["a.1", "b.1"]));
        assert_eq!((dropped.len(), told.held()), (0, 7));
        dropped.extend(dropped_by(&mut told, 69, &["a.1", "b.1"]));
        assert_eq!((dropped, told.held()), (vec![Holder::from("gone.1")], 7));

        // So they may where a newcomer is the first.
        assert!(dropped_by(&mut told, 129, &["new.1"]).is_empty());
        dropped_by(&mut told, 133, &["a.1", "new.1"]);
        assert_eq!(told.held(), 7);
        let dropped = dropped_by(&mut told, 135, &["new.1"]);
        assert_eq!((dropped, told.held()), (vec![Holder::from("b.1")], 7));
    }

    #[test]
    fn who_starts_again_and_again_keeps_nobody_who_is_gone() {
        let mut told = Told::new();
        for start in 0..20 {
            let holder = format!("a.{start}");
            for second in 0..3 {
                dropped_by(&mut told, start * 20 + second, &[&holder]);
            }
            assert!(told.log.live() <= 2, "{start}");
        }
    }

    #[test]
    fn who_starts_after_nobody_was_there_for_long_counts_them_for_a_moment_only() {
        for is_read_at_start in [false, true] {
            let mut told = Told::default();
            told.hold(0, "a.1");
            told.beat(500, "b.1");
            if !is_read_at_start {
                told.log.caught_up();
            }
            let later = 40 * 60;
            let mut dropped = dropped_by(&mut told, later, &["new.1"]);
            if is_read_at_start {
                dropped.extend(told.log.caught_up());
            } else {
                assert_eq!(told.held(), 7);
            }
            assert!(dropped.is_empty());
            for second in 1..7 {
                dropped.extend(dropped_by(&mut told, later + second, &["new.1"]));
            }
            dropped.sort();
            assert_eq!(dropped, ["a.1", "b.1"].map(Holder::from));
            assert_eq!(told.held(), 0);
        }
    }

    #[test]
    fn who_hears_later_that_somebody_is_gone_counts_all_that_others_believe_they_have() {
        let mut told = Told::new();
        let share = |share| What::Beat { share };
        told.say(0, "gone.1", share(250_000));
        told.say(0, "a.1", share(250_000));
        // It has dropped the other one by then.
        told.say(14_000, "a.1", share(500_000));
        let (a, gone) = (Holder::from("a.1"), Holder::from("gone.1"));
        assert_eq!(told.log.shares_but(&gone), 500_000);
        assert_eq!(told.log.most("b|acme", 1_000), 750);
        assert_eq!(told.log.others("b|acme", &gone, 9, 1_000).most, 500);
        assert_eq!(told.log.share_of(&a), 250_000, "nobody may have it yet");
    }

    #[test]
    fn of_what_nobody_speaks_for_long_nothing_was_told() {
        let mut told = Told::new();
        let key = "b|acme";
        told.hold(0, "a.1");
        for second in (4..=600).step_by(4) {
            dropped_by(&mut told, second, &["a.1", "b.1"]);
        }
        assert!(told.log.knows(key));
        // Between two looks for such.
        told.beat(600_001, "a.1");
        let a = Holder::from("a.1");
        assert!(!told.log.knows(key) && told.log.told(key, &a).is_none());
        assert_eq!((told.log.keys().count(), told.held()), (0, 0));
        told.hold(601_000, "b.1");
        assert_eq!(told.held(), 7);
    }

    #[test]
    fn what_was_told_before_it_was_forgotten_says_nothing_once_somebody_speaks_of_it_again() {
        for mut told in [Told::default(), Told::new()] {
            let (key, held, asked) = (Key::from("b|acme"), 0, 0);
            told.say(0, "a.1", What::Held { key, held, asked });
            for second in (4..700).step_by(4) {
                dropped_by(&mut told, second, &["a.1", "b.1"]);
            }
            told.hold(700_000, "b.1");
            told.log.caught_up();
            let a = Holder::from("a.1");
            assert!(told.log.told("b|acme", &a).is_none());
            assert_eq!(told.held(), 7);
        }
    }

    #[test]
    fn who_starts_after_the_clock_was_set_knows_what_those_hold_who_are_there() {
        let mut told = Told::default();
        told.hold(0, "a.1");
        (2..40).for_each(|second| drop(told.beat(DAY + second * 1_000, "a.1")));
        told.log.caught_up();
        assert_eq!(told.held(), 7);
    }

    #[test]
    fn a_log_that_is_read_again_forgets_as_everybody_does() {
        let mut told = Told::new();
        told.hold(0, "a.1");
        for second in (4..=596).step_by(4) {
            dropped_by(&mut told, second, &["a.1"]);
        }
        told.log.begin_again();
        for place in 0..told.said.len() {
            told.read(place);
        }
        assert!(told.log.knows("b|acme"));
        // Another partition is not read yet.
        told.beat(601_000, "a.1");
        assert!(!told.log.knows("b|acme"));
    }

    #[test]
    fn of_what_is_shown_only_keys_change_that_somebody_has_ceased_to_hold() {
        let mut told = Told::new();
        let (key, held, asked) = (Key::from("b|other"), 3, 0);
        told.hold(0, "a.1");
        told.say(0, "gone.1", What::Held { key, held, asked });
        let mut ceased = Vec::new();
        for second in 1..=601 {
            told.beat(second * 1_000, "a.1");
            let keys = told.log.take_ceased().into_iter();
            ceased.extend(keys.map(|key| (second, key)));
        }
        let other = (16, Key::from("b|other"));
        assert_eq!(ceased, [other, (601, Key::from("b|acme"))]);
    }
}
