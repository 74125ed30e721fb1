//! What a holder knows of its own sums.

/// What was admitted of a key without asking.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silent {
    /// Held when the last heartbeat that was heard was sent, and admitted since.
    pub(super) used: i64,
    /// The same of the heartbeat that is to be heard next.
    pub(super) used_since_next: i64,
}

/// What is told of a key.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Number of the record that was sent last, and when.
    pub(super) number: u64,
    pub(super) sent_at: i64,
    /// Where it stands, once that is known.
    pub(super) place: Option<i64>,
    /// What it asks for: tickets and amounts.
    pub(super) asking: Vec<(u64, i64)>,
    /// What the next one asks for.
    pub(super) next: Vec<(u64, i64)>,
    /// Until then others may answer.
    pub(super) deadline: i64,
    /// Granted, and not among what is held yet.
    pub(super) promised: i64,
    /// What the record that was sent last asks for beyond that: room for later calls.
    pub(super) asking_room: i64,
    /// What is left of it, once it is granted.
    pub(super) room: i64,
    /// The limit by which that was found out.
    pub(super) limit: i64,
    /// By how much calls might pass it, as the record that was sent last says.
    pub(super) exceeding: i64,
    /// Somebody waits to hear what is held, or something was asked for that nobody wants.
    pub(super) is_to_be_told: bool,
    /// Others have asked, and may want less to be held here.
    pub(super) is_asked_by_others: bool,
}

impl Own {
    /// Whether something is to be told, or may be.
    pub(super) fn has_news(&self) -> bool {
        self.is_to_be_told || self.is_asked_by_others
    }

    /// Whether it has a part in what is decided or said next.
    pub(super) fn is_busy(&self) -> bool {
        self.has_news() || !self.asking.is_empty() || !self.next.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decided, Desk, Facts, Key, Said, Seen, Way, What};

    /// Nothing is spent nor held.
    struct Limit(i64);

    impl Facts for Limit {
        fn held(&self, _: &str) -> i64 {
            0
        }

        fn spent(&self, _: &str) -> i64 {
            0
        }

        fn limit(&self, _: &str) -> i64 {
            self.0
        }

        fn shown(&self) -> Seen {
            Seen::new()
        }

        fn read(&self) -> Seen {
            Seen::new()
        }
    }

    #[test]
    fn room_that_was_granted_of_another_limit_is_none() {
        let key = Key::from("b|acme");
        let limit = Limit(1_000);
        let mut desk = Desk::new("a.1".into(), 100);
        desk.caught_up();
        let mut place = 0;
        let mut hear = |desk: &mut Desk, said: Vec<Said>| {
            for said in said {
                desk.take(place, 0, &said);
                place += 1;
            }
        };
        for _ in 0..2 {
            let said = desk.beat(&limit, 0);
            hear(&mut desk, said);
        }
        desk.ask(&key, 10, 1);
        let said = desk.tell(&limit, 0);
        hear(&mut desk, said);
        assert_eq!(desk.decide(&limit, 0), [(1, Decided::Granted)]);
        desk.done(&key, 10);
        assert_eq!(desk.way(&key, 100, &limit, 0), Way::Silent);
        assert_eq!(desk.way(&key, 100, &Limit(300), 0), Way::Log);
        let said = desk.beat(&Limit(300), 0);
        assert_eq!(said.len(), 2, "it is given back, too");
    }

    #[test]
    fn a_desk_that_is_made_anew_counts_on_from_what_its_holder_has_said() {
        let mut desk = Desk::new("a.1".into(), 100);
        let said = Said {
            holder: "a.1".into(),
            number: 41,
            seen: Seen::new(),
            what: What::Beat { share: 0 },
        };
        desk.take(0, 0, &said);
        desk.caught_up();
        assert_eq!(desk.beat(&Limit(1), 1_000)[0].number, 42);
    }

    #[test]
    fn what_is_decided_and_told_leaves_nothing_to_look_through() {
        let limit = Limit(1_000_000);
        let mut desk = Desk::new("a.1".into(), 100);
        desk.caught_up();
        let mut place = 0;
        for round in 0..4 {
            if round == 2 {
                for number in 0..1_000 {
                    desk.ask(&format!("b|c-{number}").into(), 10, number);
                }
            }
            let decided = desk.decide(&limit, 0);
            assert_eq!(decided.len(), if round == 3 { 1_000 } else { 0 });
            for said in desk.beat(&limit, 0) {
                desk.take(place, 0, &said);
                place += 1;
            }
        }
        desk.tell(&limit, 0);
        assert!(desk.busy.is_empty());
    }
}
