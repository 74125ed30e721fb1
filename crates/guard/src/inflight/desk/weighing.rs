//! How a call may come to be admitted.

use super::super::facts::Facts;
use super::super::own::Silent;
use super::super::{Key, part};
use super::Desk;

/// How a call may come to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By itself.
    Silent,
    /// By [`Desk::ask`].
    Log,
    /// Nobody knows what others hold: the log is not heard.
    Unsure,
}

/// How an amount may be admitted, before it is counted as admitted. For now, not to be kept: it is
/// true until anything else is asked of the desk.
#[derive(Clone, Copy, Debug)]
pub struct Weighed {
    way: Way,
    /// By the holder's share: what it has used of it then. Else by room that was granted.
    silent: Option<Silent>,
}

impl Weighed {
    /// Nobody knows what others hold.
    pub const UNSURE: Self = Self {
        way: Way::Unsure,
        silent: None,
    };

    fn by(way: Way) -> Self {
        Self { way, silent: None }
    }

    /// How.
    pub fn way(&self) -> Way {
        self.way
    }
}

impl Desk {
    /// How `amount` of `key` may be admitted. Counts nothing.
    pub fn weigh(&self, key: &Key, amount: i64, facts: &impl Facts, now: i64) -> Weighed {
        if !self.is_sure(now) {
            return Weighed::UNSURE;
        }
        let own = self.own.get(key);
        if own.is_some_and(|own| own.room >= amount && own.limit == facts.limit(key)) {
            return Weighed::by(Way::Silent);
        }
        let is_told = own.is_some() || self.log.knows(key);
        if is_told || !facts.shows(self.log.seen()) {
            return Weighed::by(Way::Log);
        }
        // Before what is spent: what leaves it is there.
        let known = self.silent.get(key).copied();
        let mut silent = known.unwrap_or_else(|| {
            let held = facts.held(key);
            Silent {
                used: held,
                used_since_next: held,
            }
        });
        let (limit, share) = (facts.limit(key), self.share());
        let all = self.log.shares_but(&self.me) + share;
        let room = limit - facts.spent(key) - part(limit, all);
        silent.used = silent.used.saturating_add(amount);
        silent.used_since_next = silent.used_since_next.saturating_add(amount);
        if room < 0 || silent.used > part(limit, share) {
            return Weighed::by(Way::Log);
        }
        Weighed {
            way: Way::Silent,
            silent: Some(silent),
        }
    }

    /// Counts what was weighed just now as admitted, by itself or though nobody knows what others hold.
    /// It is to be among what is held before anything else is asked of the desk.
    pub fn admit(&mut self, key: &Key, amount: i64, weighed: Weighed) {
        match (weighed.way, weighed.silent) {
            (Way::Silent, Some(silent)) => {
                self.silent.insert(key.clone(), silent);
            }
            (Way::Silent, None) => {
                if let Some(own) = self.own.get_mut(key) {
                    own.room -= amount;
                }
            }
            // Heartbeats tell it where it is more than a share: others believe that it is none.
            (Way::Unsure, _) => {
                let silent = self.silent.entry(key.clone()).or_default();
                silent.used = silent.used.saturating_add(amount);
                silent.used_since_next = silent.used_since_next.saturating_add(amount);
                // Of what was told they believe that it is no more than that.
                if self.own.contains_key(key) {
                    self.own(key).is_to_be_told = true;
                }
            }
            (Way::Log, _) => {}
        }
    }

    /// How `amount` of `key` may be admitted; counts it as admitted where it may be by itself.
    pub fn way(&mut self, key: &Key, amount: i64, facts: &impl Facts, now: i64) -> Way {
        let weighed = self.weigh(key, amount, facts, now);
        if weighed.way == Way::Silent {
            self.admit(key, amount, weighed);
        }
        weighed.way
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Said, Seen, What};
    use super::super::alone::Counting;
    use super::*;

    /// Nothing is spent nor held of a limit of 1,000.
    struct Limit;

    impl Facts for Limit {
        fn held(&self, _: &str) -> i64 {
            0
        }

        fn spent(&self, _: &str) -> i64 {
            0
        }

        fn limit(&self, _: &str) -> i64 {
            1_000
        }

        fn shown(&self) -> Seen {
            Seen::new()
        }

        fn read(&self) -> Seen {
            Seen::new()
        }
    }

    #[test]
    fn what_is_only_weighed_is_not_used() {
        let mut desk = Desk::new("a.1".into(), 100);
        desk.caught_up();
        let mut place = 0;
        for _ in 0..2 {
            let said: Vec<Said> = desk.beat(&Limit, 0);
            for said in &said {
                desk.take(place, 0, said);
                place += 1;
            }
        }
        let key = Key::from("b|acme");
        for _ in 0..3 {
            assert_eq!(desk.weigh(&key, 400, &Limit, 0).way(), Way::Silent);
        }
        assert_eq!(desk.way(&key, 400, &Limit, 0), Way::Silent);
        assert_eq!(desk.weigh(&key, 400, &Limit, 0).way(), Way::Log);
        assert_eq!(desk.weigh(&key, 100, &Limit, 0).way(), Way::Silent);
    }

    #[test]
    fn scopes_that_come_and_go_while_the_log_is_not_heard_do_not_pile_up() {
        let mut desk = Desk::new("a.1".into(), 100);
        for second in 0..1_000 {
            let now = second * 1_000;
            let key = Key::from(format!("b|c-{second}"));
            let weighed = desk.weigh(&key, 10, &Limit, now);
            assert_eq!(weighed.way(), Way::Unsure);
            desk.admit(&key, 10, weighed);
            // The call is over at once.
            desk.beat(&Limit, now);
            assert!(desk.silent.len() <= 10, "{second}");
        }
    }

    #[test]
    fn what_a_desk_granted_that_is_gone_is_told() {
        let facts = Counting::default();
        let mut desk = Desk::new("a.1".into(), 100);
        desk.caught_up();
        desk.done("b|acme", 400_000);
        facts.held.set(400_000);
        let said = desk.beat(&facts, 0);
        let what = What::Held {
            key: "b|acme".into(),
            held: 400_000,
            asked: 0,
        };
        assert_eq!(said[0].what, what);
    }
}
