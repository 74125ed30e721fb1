//! What a holder says last.

use super::super::Said;
use super::super::facts::Facts;
use super::Desk;

impl Desk {
    /// What is held, of everything, and that nothing is without being told. To be sent by a holder that
    /// ends: what others believe that it may hold besides is theirs as soon as they read that.
    pub fn leave(&mut self, facts: &impl Facts, now: i64) -> Vec<Said> {
        // So that it has no share.
        self.heard_at = None;
        for (key, own) in &mut self.own {
            // Nobody waits for that any more.
            own.is_to_be_told |= !own.asking.is_empty() || own.room > 0;
            own.asking.clear();
            own.next.clear();
            (own.room, own.asking_room) = (0, 0);
            self.looks.now(key);
        }
        self.beat(facts, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Key, Way, What};
    use super::super::alone::{Alone, Counting, granted};
    use super::*;

    fn told(said: &[Said]) -> Vec<&What> {
        said.iter().map(|said| &said.what).collect()
    }

    #[test]
    fn who_ends_tells_what_it_holds_and_leaves_its_share_to_others() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let key = Key::from("b|acme");
        assert_eq!(alone.desk.way(&key, 10, &facts, 0), Way::Silent);
        facts.held.set(10);
        let said = alone.desk.leave(&facts, 500);
        let held = What::Held {
            key,
            held: 10,
            asked: 0,
        };
        assert_eq!(told(&said), [&held, &What::Beat { share: 0 }]);
    }

    #[test]
    fn who_ends_gives_back_what_it_asked_for_and_does_not_need() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let key = granted(&mut alone, &facts);
        facts.held.set(0);
        // Somebody is answered no more.
        alone.desk.ask(&key, 20, 2);
        alone.desk.tell(&facts, 400);
        let said = alone.desk.leave(&facts, 500);
        let held = What::Held {
            key,
            held: 0,
            asked: 0,
        };
        assert_eq!(told(&said), [&held, &What::Beat { share: 0 }]);
    }
}
