//! A holder that is alone with its log, and counts what its desk asks for.

use std::cell::Cell;

use super::super::{Facts, Key, Said, Seen};
use super::{Decided, Desk};

const LIMIT: i64 = 1_000_000;
/// Too near the limit for room for later calls.
pub(super) const SPENT: i64 = 600_000;

/// Counts what is looked at.
#[derive(Default)]
pub(super) struct Counting {
    pub(super) held: Cell<i64>,
    /// What is held once it was asked which entries are read: what has left it is in a later one.
    pub(super) held_later: Cell<Option<i64>>,
    pub(super) spent: i64,
    pub(super) exceeding: Cell<i64>,
    pub(super) looks: Cell<usize>,
}

impl Facts for Counting {
    fn held(&self, _: &str) -> i64 {
        self.looks.set(self.looks.get() + 1);
        self.held.get()
    }

    fn spent(&self, _: &str) -> i64 {
        self.spent
    }

    fn exceeding(&self, _: &str) -> i64 {
        self.exceeding.get()
    }

    fn limit(&self, _: &str) -> i64 {
        LIMIT
    }

    fn shown(&self) -> Seen {
        Seen::new()
    }

    fn read(&self) -> Seen {
        if let Some(later) = self.held_later.take() {
            self.held.set(later);
        }
        Seen::new()
    }
}

pub(super) struct Alone {
    pub(super) desk: Desk,
    place: i64,
}

impl Alone {
    /// A holder with its share.
    pub(super) fn new(facts: &Counting) -> Self {
        let mut desk = Desk::new("a.1".into(), 100);
        desk.caught_up();
        let mut alone = Self { desk, place: 0 };
        alone.beat(facts, 0);
        alone.beat(facts, 0);
        alone
    }

    pub(super) fn hear(&mut self, said: &[Said], now: i64) {
        for said in said {
            self.desk.take(self.place, now, said);
            self.place += 1;
        }
    }

    /// How many records are told, and how many keys are looked at for them.
    pub(super) fn beat(&mut self, facts: &Counting, now: i64) -> (usize, usize) {
        facts.looks.set(0);
        let said = self.desk.beat(facts, now);
        self.hear(&said, now);
        (said.len(), facts.looks.get())
    }
}

/// Asks for 10 of a key, which it gets and holds.
pub(super) fn granted(alone: &mut Alone, facts: &Counting) -> Key {
    let key = Key::from("b|acme");
    alone.desk.ask(&key, 10, 1);
    let said = alone.desk.tell(facts, 0);
    alone.hear(&said, 0);
    assert_eq!(alone.desk.decide(facts, 0), [(1, Decided::Granted)]);
    facts.held.set(10);
    alone.desk.done(&key, 10);
    key
}
