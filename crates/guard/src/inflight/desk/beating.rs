//! Heartbeats, and what they look at: what is in use, and what is due.

use super::super::facts::Facts;
use super::super::{
    BEAT_EVERY, FORGOTTEN_AFTER, IDLE_BEAT_EVERY, MUTE_AFTER, SHARED_OUT, Said, TOLD_AGAIN_AFTER,
    What, is_far, part,
};
use super::{Desk, next_record};

impl Desk {
    /// Whether it is time for a heartbeat: every second while there is anything to hold, else every
    /// four.
    pub fn is_beat_due(&self, now: i64) -> bool {
        let is_busy = !self.silent.is_empty() || !self.own.is_empty() || self.share() == 0;
        let every = if is_busy { BEAT_EVERY } else { IDLE_BEAT_EVERY };
        self.beat_at.is_none_or(|at| now - at >= every)
    }

    /// A heartbeat, to be sent about once a second, behind what must be told before it.
    pub fn beat(&mut self, facts: &impl Facts, now: i64) -> Vec<Said> {
        let room = SHARED_OUT - self.log.shares_but(&self.me).min(SHARED_OUT);
        let even = SHARED_OUT / self.log.live().max(1);
        let share = match self.is_sure(now) {
            true => even.min(room),
            // A newcomer, or one that was away.
            false => 0,
        };
        let lost = |(_, sent_at): &mut (u64, i64)| now - *sent_at > MUTE_AFTER / 2;
        self.next_beat.take_if(lost);
        let is_next = self.next_beat.is_none();
        self.look_at_silent(share, is_next, facts);
        if is_next && !self.is_sure(now) {
            // Until this heartbeat is heard nothing is admitted by a share, and what was used before it
            // ends then: where the log is not heard for long, scopes come and go.
            self.silent.retain(|_, silent| silent.used_since_next > 0);
        }
        self.look_at_told(facts, now);
        let mut said = self.tell(facts, now);
        self.told_share = share;
        self.beat_at = Some(now);
        let beat = next_record(&mut self.number, &self.me, What::Beat { share }, facts);
        if is_next {
            self.next_beat = Some((beat.number, now));
        }
        said.push(beat);
        said
    }

    /// What is held of a share, and what may come on top of the limit all the same, which people hear;
    /// `is_next` where hearing the heartbeat ends what was used before. Looks before the heartbeat says
    /// which entries were read: what leaves what is held meanwhile may be in a later one, and nobody
    /// else counts it then.
    fn look_at_silent(&mut self, share: u32, is_next: bool, facts: &impl Facts) {
        let mut is_too_much = Vec::new();
        let all = self.log.shares_but(&self.me).saturating_add(share);
        let live = i64::from(self.log.live().max(1));
        for (key, silent) in &mut self.silent {
            let (held, limit) = (facts.held(key), facts.limit(key));
            let certain = (limit - facts.spent(key) - part(limit, all)).max(0);
            let may_pass = !self.own.contains_key(key) && facts.exceeding(key) > certain / live;
            if held > part(limit, share) || may_pass {
                is_too_much.push(key.clone());
            }
            if is_next {
                silent.used_since_next = held;
            }
        }
        for key in &is_too_much {
            self.own(key).is_to_be_told = true;
        }
    }

    /// Looks at the keys that something was told of, where anything of them is held, granted or asked
    /// for, by what was told or in fact; at others now and then.
    fn look_at_told(&mut self, facts: &impl Facts, now: i64) {
        for key in self.looks.take(now) {
            let told = self.log.told(&key, &self.me);
            let told = told.map_or(0, |told| told.held + told.asked);
            let Some(own) = self.own.get_mut(&key) else {
                continue;
            };
            let held = facts.held(&key);
            let is_old = now - own.sent_at > TOLD_AGAIN_AFTER;
            let has_room = own.room + own.asking_room > 0;
            let (limit, exceeding) = (facts.limit(&key), facts.exceeding(&key));
            own.is_to_be_told |= held > 0 && is_old;
            // What has been spent or given up since is others' to hold; what calls have cost beyond what
            // they held, or hold though nobody knew of others, is not. Room for later calls they get
            // by asking, and it is given back long before the log forgets it, or where calls may come
            // near the limit by what they cost beyond what they hold, or have cost beyond all that was
            // granted: people are told by how much.
            own.is_to_be_told |= match has_room {
                true if is_old || own.limit != limit => true,
                true => {
                    let may_hold = held + own.promised + own.room;
                    let beyond = match own.asking_room {
                        0 => (may_hold - told).max(0),
                        // It is not known yet what was granted.
                        _ => 0,
                    };
                    (beyond > 0 || exceeding > own.exceeding) && {
                        let most = self.log.most(&key, limit).saturating_add(beyond);
                        !is_far(facts.spent(&key), most.saturating_add(exceeding), limit)
                    }
                }
                false => told != held + own.promised || exceeding != own.exceeding,
            };
            let has_news = own.has_news();
            if has_news {
                self.busy.insert(key.clone());
            }
            let is_asking = !own.asking.is_empty() || !own.next.is_empty() || own.promised > 0;
            // Calls that go on after their time hold nothing, and are over at some time.
            let is_held = held > 0 || told > 0 || own.exceeding > 0;
            let is_in_use = is_held || has_room || has_news || is_asking;
            let forgotten_at = own.sent_at + FORGOTTEN_AFTER + 1;
            if is_in_use {
                self.looks.at(&key, now);
            } else if now < forgotten_at {
                let next = now + TOLD_AGAIN_AFTER;
                self.looks.at(&key, next.min(forgotten_at));
            } else {
                self.own.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Decided, Key, Way};
    use super::super::alone::{Alone, Counting, SPENT, granted};
    use super::*;

    #[test]
    fn a_heartbeat_looks_at_what_is_in_use_or_due_and_at_nothing_else() {
        const KEYS: usize = 1_000;
        let facts = Counting {
            spent: SPENT,
            ..Counting::default()
        };
        let mut alone = Alone::new(&facts);
        let keys: Vec<Key> = (0..KEYS).map(|n| format!("b|c-{n}").into()).collect();
        for (ticket, key) in (0..).zip(&keys) {
            alone.desk.ask(key, 10, ticket);
        }
        let said = alone.desk.tell(&facts, 0);
        alone.hear(&said, 0);
        let decided = alone.desk.decide(&facts, 0);
        assert_eq!(decided.len(), KEYS);
        assert!(decided.iter().all(|(_, one)| *one == Decided::Granted));
        for key in &keys {
            alone.desk.done(key, 10);
        }
        // The calls are over: that is told, once.
        assert_eq!(alone.beat(&facts, 1_000).0, KEYS + 1);
        assert_eq!(alone.beat(&facts, 2_000).0, 1);
        let mut looked_at = 0;
        for second in 3..=600 {
            let (said, looks) = alone.beat(&facts, second * 1_000);
            assert_eq!(said, 1, "{second}");
            looked_at += looks;
        }
        // By and by, in case that something is held of them that nobody told.
        assert_eq!(looked_at, 4 * KEYS);
        assert_eq!(alone.desk.own.len(), KEYS);
        for second in 601..=603 {
            alone.beat(&facts, second * 1_000);
        }
        assert!(alone.desk.own.is_empty());
        assert!(alone.desk.looks.take(i64::MAX).is_empty());
    }

    #[test]
    fn what_calls_may_cost_beyond_what_they_hold_is_told_and_so_is_what_they_did() {
        let facts = Counting {
            spent: SPENT,
            ..Counting::default()
        };
        let mut alone = Alone::new(&facts);
        let key = granted(&mut alone, &facts);
        assert_eq!(alone.beat(&facts, 1_000).0, 1, "as told");
        // Its record was sent before it was granted.
        facts.exceeding.set(60);
        assert_eq!(alone.beat(&facts, 2_000).0, 2);
        assert_eq!(alone.beat(&facts, 3_000).0, 1);
        // It is settled, and no figure shows it.
        facts.exceeding.set(0);
        facts.held.set(70);
        assert_eq!(alone.beat(&facts, 4_000).0, 2);
        assert_eq!(alone.desk.log.told(&key, &alone.desk.me).unwrap().held, 70);
        assert_eq!(alone.beat(&facts, 5_000).0, 1);
    }

    #[test]
    fn that_calls_whose_time_was_over_are_over_is_told() {
        let facts = Counting {
            spent: SPENT,
            ..Counting::default()
        };
        let mut alone = Alone::new(&facts);
        granted(&mut alone, &facts);
        // Its reservation ends by time, and it may go on.
        facts.held.set(0);
        facts.exceeding.set(10);
        assert_eq!(alone.beat(&facts, 1_000).0, 2);
        assert_eq!(alone.beat(&facts, 2_000).0, 1);
        assert_eq!(alone.beat(&facts, 3_000).0, 1);
        // Its event comes.
        facts.exceeding.set(0);
        assert_eq!(alone.beat(&facts, 4_000).0, 2);
        assert_eq!(alone.beat(&facts, 5_000).0, 1);
    }

    #[test]
    fn what_calls_may_cost_beyond_granted_room_is_told_where_it_comes_near_the_limit() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let key = granted(&mut alone, &facts);
        assert_eq!(alone.desk.way(&key, 10, &facts, 0), Way::Silent);
        facts.held.set(20);
        // Far from it nobody needs to know, and the room stays.
        facts.exceeding.set(100_000);
        assert_eq!(alone.beat(&facts, 1_000).0, 1);
        facts.exceeding.set(900_000);
        assert_eq!(alone.beat(&facts, 2_000).0, 2);
        assert_eq!(alone.beat(&facts, 3_000).0, 1);
    }

    #[test]
    fn what_calls_have_cost_beyond_granted_room_is_told_where_it_comes_near_the_limit() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let key = granted(&mut alone, &facts);
        assert_eq!(alone.desk.way(&key, 10, &facts, 0), Way::Silent);
        facts.held.set(100_020);
        assert_eq!(alone.beat(&facts, 1_000).0, 1);
        // More than it asked for, with half of the limit granted and not used.
        facts.held.set(800_000);
        assert_eq!(alone.beat(&facts, 2_000).0, 2);
        assert_eq!(
            alone.desk.log.told(&key, &alone.desk.me).unwrap().held,
            800_000
        );
        assert_eq!(alone.beat(&facts, 3_000).0, 1);
    }

    #[test]
    fn what_may_come_on_top_of_the_limit_is_told_though_nothing_was_told_before() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let key = Key::from("b|acme");
        assert_eq!(alone.desk.way(&key, 10, &facts, 0), Way::Silent);
        facts.held.set(10);
        facts.exceeding.set(500_000);
        assert_eq!(alone.beat(&facts, 1_000).0, 1, "it fits, with the share");
        facts.exceeding.set(500_001);
        assert_eq!(alone.beat(&facts, 2_000).0, 2);
        assert_eq!(alone.beat(&facts, 3_000).0, 1);
    }

    #[test]
    fn what_is_admitted_beside_what_was_told_while_the_log_is_not_heard_is_told_at_once() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let key = granted(&mut alone, &facts);
        facts.held.set(0);
        alone.beat(&facts, 1_000);
        // The last heartbeat that it hears for a while, and one that it hears late.
        alone.beat(&facts, 2_000);
        let late = alone.desk.beat(&facts, 11_000);
        let now = 12_001;
        let weighed = alone.desk.weigh(&key, 70, &facts, now);
        assert_eq!(weighed.way(), Way::Unsure);
        alone.desk.admit(&key, 70, weighed);
        facts.held.set(70);
        alone.hear(&late, now);
        assert!(alone.desk.is_sure(now));
        let said = alone.desk.tell(&facts, now);
        let what = What::Held {
            key: key.clone(),
            held: 70,
            asked: 0,
        };
        assert_eq!(said[0].what, what);
        // Nothing is left of the room that was granted before.
        alone.hear(&said, now);
        assert_eq!(alone.desk.way(&key, 10, &facts, now), Way::Log);
    }

    #[test]
    fn who_is_heard_again_tells_at_once_what_was_admitted_meanwhile() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let late = alone.desk.beat(&facts, 12_000);
        let key = Key::from("b|acme");
        let weighed = alone.desk.weigh(&key, 600_000, &facts, 12_050);
        alone.desk.admit(&key, 600_000, weighed);
        facts.held.set(600_000);
        assert!(!alone.desk.is_beat_due(12_200));
        alone.hear(&late, 12_100);
        assert!(alone.desk.is_beat_due(12_200));
        assert_eq!(alone.beat(&facts, 12_200).0, 2);
    }

    #[test]
    fn what_is_admitted_while_the_log_is_not_heard_is_told() {
        let facts = Counting::default();
        let mut desk = Desk::new("a.1".into(), 100);
        let key = Key::from("b|acme");
        let weighed = desk.weigh(&key, 400_000, &facts, 0);
        assert_eq!(weighed.way(), Way::Unsure);
        desk.admit(&key, 400_000, weighed);
        facts.held.set(400_000);
        desk.caught_up();
        let said = desk.beat(&facts, 0);
        let what = What::Held {
            key,
            held: 400_000,
            asked: 0,
        };
        assert_eq!(said[0].what, what);
    }

    #[test]
    fn what_is_held_and_was_not_told_is_told_within_minutes() {
        let facts = Counting {
            spent: SPENT,
            ..Counting::default()
        };
        let mut alone = Alone::new(&facts);
        let key = granted(&mut alone, &facts);
        facts.held.set(0);
        for second in 1..=3 {
            alone.beat(&facts, second * 1_000);
        }
        // The log was not heard, and calls were admitted all the same.
        facts.held.set(70);
        let told = (4..=300_i64).find(|second| alone.beat(&facts, second * 1_000).0 == 2);
        assert!(told.is_some_and(|second| second < 130), "{told:?}");
        assert_eq!(alone.desk.log.told(&key, &alone.desk.me).unwrap().held, 70);
    }

    #[test]
    fn what_is_spent_while_a_heartbeat_is_made_is_used_until_the_next() {
        let facts = Counting::default();
        let mut alone = Alone::new(&facts);
        let key = Key::from("b|acme");
        assert_eq!(alone.desk.way(&key, 400_000, &facts, 0), Way::Silent);
        facts.held.set(400_000);
        // An entry shows it that the heartbeat does not name: others do not wait for that one.
        facts.held_later.set(Some(0));
        alone.beat(&facts, 1_000);
        assert_eq!(alone.desk.way(&key, 200_000, &facts, 1_000), Way::Log);
        alone.beat(&facts, 2_000);
        assert_eq!(alone.desk.way(&key, 200_000, &facts, 2_000), Way::Silent);
    }
}
