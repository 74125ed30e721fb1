//! Whose answers are worth waiting for.
//!
//! Who asks waits for those who may say that they hold less than they might. A holder that died does
//! not, and is among the others until it is dropped: nobody waits for it once and again, nor at all
//! where it has started again under the same name. It counts with all that it may hold, waited for or
//! not.

use hashbrown::HashSet;

use super::Holder;

/// Holders that did not answer when they were waited for last, and were not heard since.
#[derive(Debug, Default)]
pub(super) struct Answering(HashSet<Holder>);

impl Answering {
    pub(super) fn is_waited_for(&self, holder: &Holder) -> bool {
        !self.0.contains(holder)
    }

    /// It said something, or is dropped.
    pub(super) fn heard(&mut self, holder: &Holder) {
        self.0.remove(holder);
    }

    /// They were waited for in vain, or are believed to be gone.
    pub(super) fn are_silent(&mut self, holders: impl IntoIterator<Item = Holder>) {
        self.0.extend(holders);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Decided, Desk, Facts, Key, Said, Seen};

    const PATIENCE: i64 = 100;
    const LIMIT: i64 = 1_000;

    struct NothingSpent;

    impl Facts for NothingSpent {
        fn held(&self, _: &str) -> i64 {
            0
        }

        fn spent(&self, _: &str) -> i64 {
            0
        }

        fn limit(&self, _: &str) -> i64 {
            LIMIT
        }

        fn shown(&self) -> Seen {
            Seen::new()
        }

        fn read(&self) -> Seen {
            Seen::new()
        }
    }

    /// Holders that read everything at once, and what they have said.
    struct World {
        desks: Vec<Desk>,
        place: i64,
        now: i64,
    }

    impl World {
        fn of(names: &[&str]) -> Self {
            let mut world = Self {
                desks: Vec::new(),
                place: 0,
                now: 0,
            };
            for name in names {
                let mut desk = Desk::new(Arc::from(*name), PATIENCE);
                desk.caught_up();
                world.desks.push(desk);
            }
            for desk in 0..names.len() {
                world.beat(desk);
            }
            world
        }

        fn hear(&mut self, said: Vec<Said>) {
            for said in said {
                self.place += 1;
                for desk in &mut self.desks {
                    desk.take(self.place, self.now, &said);
                }
            }
        }

        fn beat(&mut self, desk: usize) {
            let said = self.desks[desk].beat(&NothingSpent, self.now);
            self.hear(said);
        }

        /// Asks for so much, says so, and reads it back.
        fn ask(&mut self, desk: usize, amount: i64) -> Vec<(u64, Decided)> {
            let key: Key = Arc::from("b|acme");
            self.desks[desk].ask(&key, amount, 1);
            let said = self.desks[desk].tell(&NothingSpent, self.now);
            self.hear(said);
            self.desks[desk].decide(&NothingSpent, self.now)
        }

        fn after_its_patience(&mut self, desk: usize) -> Vec<(u64, Decided)> {
            self.now += PATIENCE;
            self.desks[desk].decide(&NothingSpent, self.now)
        }
    }

    #[test]
    fn who_does_not_answer_is_waited_for_once_until_it_is_heard_again() {
        let mut world = World::of(&["a.1", "b.1"]);
        // The second asked for nearly everything, and says nothing more.
        let key: Key = Arc::from("b|acme");
        world.desks[1].ask(&key, 900, 1);
        let said = world.desks[1].tell(&NothingSpent, world.now);
        world.hear(said);
        assert_eq!(world.ask(0, 300), []);
        assert_eq!(world.after_its_patience(0), [(1, Decided::Refused)]);
        assert_eq!(world.ask(0, 300), [(1, Decided::Refused)]);
        // What fits is admitted, as ever.
        assert_eq!(world.ask(0, 100), [(1, Decided::Granted)]);
        world.desks[0].done("b|acme", 100);
        world.beat(1);
        assert_eq!(world.ask(0, 300), []);
    }

    #[test]
    fn nobody_waits_for_a_sidecar_that_has_started_again() {
        let mut world = World::of(&["a.1", "b.1"]);
        let key: Key = Arc::from("b|acme");
        world.desks[1].ask(&key, 900, 1);
        let said = world.desks[1].tell(&NothingSpent, world.now);
        world.hear(said);
        world.desks[1] = Desk::new(Arc::from("b.2"), PATIENCE);
        world.beat(1);
        assert_eq!(world.ask(0, 300), [(1, Decided::Refused)]);
        // It counts with what it may hold.
        assert_eq!(world.ask(0, 101), [(1, Decided::Refused)]);
    }
}
