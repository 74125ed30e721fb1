//! Ten thousand alerts through kills, lost answers and places that fail half the time, in memory: the
//! log, the changelog and the offset are what a broker would hold, and a commit is all or nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use spendfuse_engine::alert::AlertDetails;

use super::*;
use crate::QuietHours;
use crate::route::{Route, RouteFilter, RouteOptions};

const START: UnixMillis = UnixMillis(1_795_348_800_000);
const SCOPES: u64 = 40;

/// When the state is written.
#[derive(Clone, Copy, PartialEq)]
enum Writes {
    /// With the offset, or not at all.
    InTransaction,
    /// After the offset, by itself.
    OutsideTransaction,
}

struct World {
    random: u64,
    now: UnixMillis,
    writes: Writes,
    routes: Arc<Routes>,
    notifier: Notifier,
    log: Vec<Alert>,
    /// Read by this life.
    read: usize,
    /// What survives a kill.
    offset: usize,
    changelog: BTreeMap<String, Vec<u8>>,
    /// Attempts under way in this life.
    under_way: Vec<Attempt>,
    /// What each place got, in order: message, and the numbers of its alerts.
    received: BTreeMap<String, Vec<(String, Vec<usize>)>>,
    /// Messages whose delivery is committed.
    acknowledged: HashSet<String>,
    repeated_after_acknowledgement: usize,
    kills: usize,
}

impl World {
    fn new(seed: u64, alerts: usize, writes: Writes) -> Self {
        let options = RouteOptions {
            storm: 200,
            ..RouteOptions::default()
        };
        Self::with(options, seed, alerts, writes)
    }

    fn with(options: RouteOptions, seed: u64, alerts: usize, writes: Writes) -> Self {
        let route = |name: &str, to: &[&str]| Route {
            name: name.to_owned(),
            to: to.iter().map(|one| (*one).to_owned()).collect(),
            filter: RouteFilter::default(),
            options: options.clone(),
        };
        let routes = Arc::new(Routes {
            routes: vec![route("a", &["hook", "mailto:ops@example.com"])],
            options: options.clone(),
        });
        let log = (0..alerts).map(alert).collect();
        Self {
            random: seed,
            now: START,
            writes,
            notifier: Notifier::new(0, Arc::clone(&routes)),
            routes,
            log,
            read: 0,
            offset: 0,
            changelog: BTreeMap::new(),
            under_way: Vec::new(),
            received: BTreeMap::new(),
            acknowledged: HashSet::new(),
            repeated_after_acknowledgement: 0,
            kills: 0,
        }
    }

    fn chance(&mut self, of: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % of
    }

    /// Everything of this life is gone; the next begins with what was committed.
    fn kill(&mut self) {
        self.kills += 1;
        self.under_way.clear();
        self.notifier = self.restored();
        self.read = self.offset;
    }

    /// What a process would know that begins now.
    fn restored(&self) -> Notifier {
        let mut notifier = Notifier::new(0, Arc::clone(&self.routes));
        for (key, value) in &self.changelog {
            notifier.restore(key, Some(value)).unwrap();
        }
        notifier.restored();
        notifier
    }

    /// A start forgets and invents nothing.
    fn assert_restored_whole(&self) {
        let restored = self.restored();
        let alerts: Vec<&Entry> = self.notifier.alerts().collect();
        assert_eq!(restored.alerts().collect::<Vec<_>>(), alerts);
        let messages: Vec<&Message> = self.notifier.messages().collect();
        assert_eq!(restored.messages().collect::<Vec<_>>(), messages);
        assert_eq!(restored.open_messages(), self.notifier.open_messages());
    }

    fn write(&mut self, changes: Vec<(String, Option<Vec<u8>>)>) {
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.changelog.insert(key, value)),
                None => drop(self.changelog.remove(&key)),
            }
        }
        let delivered = self.notifier.messages();
        let delivered = delivered.filter(|message| message.state == State::Delivered);
        self.acknowledged
            .extend(delivered.map(|message| message.id.clone()));
    }

    /// Returns whether it got through, as a broker may be killed before it says so.
    fn commit(&mut self, may_be_killed: bool) {
        let is_killed = may_be_killed && self.chance(12) == 0;
        let changes = self.notifier.take_changes();
        match (self.writes, is_killed) {
            (_, false) => {
                self.offset = self.read;
                self.write(changes);
            }
            (Writes::InTransaction, true) => self.kill(),
            (Writes::OutsideTransaction, true) => {
                self.offset = self.read;
                self.kill();
            }
        }
    }

    fn read_some(&mut self) {
        let count = self.chance(60) as usize;
        for _ in 0..count.min(self.log.len() - self.read) {
            self.notifier.alert(self.log[self.read].clone(), self.now);
            self.read += 1;
        }
    }

    fn send(&mut self, fails: bool) {
        assert!(
            !self.notifier.has_changes(),
            "only what is committed is sent"
        );
        self.under_way.extend(self.notifier.take_attempts(self.now));
        while let Some(attempt) = self.pick() {
            // Nothing arrives, or it arrives and the answer is lost, or all is well.
            let fate = if fails { self.chance(4) } else { 3 };
            if fate > 0 {
                self.receive(&attempt);
            }
            let outcome = match fate {
                0 | 1 => Outcome::Later {
                    reason: "no answer".to_owned(),
                    after: None,
                },
                2 if self.chance(8) == 0 => Outcome::Refused {
                    reason: "410".to_owned(),
                },
                _ => Outcome::Delivered,
            };
            let Attempt { number, place, .. } = attempt;
            self.notifier.outcome(number, place, outcome, self.now);
            if fails && self.chance(200) == 0 {
                return self.kill();
            }
        }
    }

    fn pick(&mut self) -> Option<Attempt> {
        let count = self.under_way.len() as u64;
        (count > 0).then(|| {
            let place = self.chance(count) as usize;
            self.under_way.swap_remove(place)
        })
    }

    fn receive(&mut self, attempt: &Attempt) {
        let letter = &attempt.letter;
        if self.acknowledged.contains(&letter.id) {
            self.repeated_after_acknowledgement += 1;
        }
        let place = self.received.entry(letter.to.clone()).or_default();
        // Whoever knows the id drops the repeat.
        if place
            .iter()
            .rev()
            .take(2_000)
            .all(|(id, _)| *id != letter.id)
        {
            let numbers = letter.alerts.iter().map(number_of).collect();
            place.push((letter.id.clone(), numbers));
        }
    }

    fn run(&mut self) {
        for round in 0..200_000 {
            let fails = self.read < self.log.len() || round % 3 == 0;
            self.now = self.now.plus(500);
            self.read_some();
            self.notifier.advance(self.now);
            self.commit(fails);
            if !self.notifier.has_changes() {
                self.send(fails);
            }
            self.commit(fails);
            if self.offset == self.log.len() && self.notifier.open_messages() == 0 {
                return;
            }
        }
        panic!("{} messages are still open", self.notifier.open_messages());
    }

    fn missing(&self) -> usize {
        let all = self.received.values().flatten();
        let got: HashSet<usize> = all.flat_map(|(_, numbers)| numbers.clone()).collect();
        self.log.len() - got.len()
    }

    /// Alerts that a place got after a later one of the same scope.
    fn out_of_order(&self) -> usize {
        let mut wrong = 0;
        for place in self.received.values() {
            let mut last: HashMap<u64, usize> = HashMap::new();
            for number in place.iter().flat_map(|(_, numbers)| numbers) {
                let last = last.entry(*number as u64 % SCOPES).or_insert(0);
                wrong += usize::from(*number < *last);
                *last = *number;
            }
        }
        wrong
    }
}

fn alert(number: usize) -> Alert {
    let scope = number as u64 % SCOPES;
    Alert {
        v: 1,
        key: format!("unpriced|{number}"),
        kind: AlertKind::UnpricedModel,
        severity: Severity::Warning,
        scope: format!("acme/customer=c-{scope}"),
        subject: number.to_string(),
        message: format!("alert {number}"),
        at: START,
        count: None,
        details: AlertDetails::default(),
    }
}

fn number_of(alert: &Alert) -> usize {
    alert.subject.parse().unwrap()
}

#[test]
fn every_alert_is_told_in_order_whatever_is_killed() {
    let mut world = World::new(7, 10_000, Writes::InTransaction);
    world.run();
    assert!(world.kills >= 30, "{} kills", world.kills);
    assert_eq!(world.missing(), 0);
    assert_eq!(world.out_of_order(), 0);
    assert_eq!(world.repeated_after_acknowledgement, 0);
    let places: Vec<&String> = world.received.keys().collect();
    assert_eq!(places, ["hook", "mailto:ops@example.com"]);
}

#[test]
fn state_that_is_written_outside_the_transaction_loses_alerts() {
    let mut world = World::new(7, 3_000, Writes::OutsideTransaction);
    world.run();
    assert!(world.missing() > 0, "the check cannot fail");
}

fn any_options() -> impl Strategy<Value = RouteOptions> {
    let remind = proptest::option::of(60_000..=86_400_000_i64);
    let quiet = proptest::sample::select(vec!["", "12:00-12:10", "11:00-13:00", "23:00-07:00"]);
    (1..=20 * MINUTE, remind, quiet, 1..=200_usize).prop_map(
        |(fall_back_after_millis, remind_every_millis, quiet, storm)| RouteOptions {
            fall_back_after_millis,
            remind_every_millis,
            quiet: QuietHours::parse(quiet),
            storm,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    /// However a route tells, and whenever it is killed.
    #[test]
    fn all_are_told_however_their_route_tells(options in any_options(), seed in 1_u64..) {
        let has_nights = options.quiet.is_some();
        let mut world = World::with(options, seed, 300, Writes::InTransaction);
        world.run();
        prop_assert_eq!(world.missing(), 0);
        prop_assert_eq!(world.repeated_after_acknowledgement, 0);
        // A summary comes after what is told meanwhile.
        prop_assert!(has_nights || world.out_of_order() == 0);
        world.assert_restored_whole();
    }
}
