//! What was measured takes the place of an estimate where that is counted: no customer and no day that
//! never had the estimate gets less than nothing.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::budget::Budget;
use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::{Identity, Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, Rows};

const HOUR: i64 = 60 * 60_000;
/// 22 November 2026, 23:00.
const EVENING: UnixMillis = UnixMillis(1_795_388_400_000);
const CENT: i128 = 10_000_000;

/// A row: its time, customer, cents, and whether it only tells more of whose call it is.
type Line = (UnixMillis, String, i128, bool);

#[derive(Default)]
struct Lines(Vec<Line>);

impl Rows for Lines {
    fn push(&mut self, row: &SpendRow<'_>) {
        let before = row
            .amends
            .map_or(Nanos::ZERO, |amends| amends.counts.cost.total());
        let cents = (row.cost.total() - before).get() / CENT;
        let is_told_again = row.flags.contains(Flags::TOLD_AGAIN);
        let customer = row.event.attribution.customer.to_string();
        self.0
            .push((row.event.time, customer, cents, is_told_again));
    }
}

struct Running {
    meter: Meter,
    seq: u64,
    ids: Vec<Vec<u8>>,
    lines: Lines,
    /// Tag `team` of what is told.
    team: &'static str,
    /// Scope, minute, cents.
    deltas: Vec<(String, i64, i128)>,
}

fn meter() -> Meter {
    let budget = |id: &str, scope: &str| {
        let record = format!(
            r#"{{"v":1,"scope":{{"workspace":"acme"{scope}}},"limit":"2.00","window":"day",
            "steps":[{{"at":100,"do":"block"}}],"counted_from":"2026-11-01T00:00:00Z"}}"#
        );
        Budget::from_record(id, record.as_bytes()).unwrap()
    };
    let budgets = vec![
        budget("all", ""),
        budget("each", r#","customer":"*""#),
        budget("teams", r#","tags.team":"*""#),
    ];
    let book = BudgetBook::compile(1, budgets, DetectorRules::default());
    let config = MeterConfig {
        partition: 0,
        partitions: 1,
        dedupe_horizon_millis: 24 * HOUR,
        dedupe_capacity: 1_000,
        session_idle_millis: HOUR,
        session_capacity: 10,
    };
    Meter::new(config, Arc::new(book))
}

impl Running {
    fn new() -> Self {
        let mut meter = meter();
        meter.restored();
        Self {
            meter,
            seq: 0,
            ids: Vec::new(),
            lines: Lines::default(),
            team: "",
            deltas: Vec::new(),
        }
    }

    /// Tells of call `c-1` so many hours after the evening, and what it costs, a token a cent.
    fn tell(
        &mut self,
        hours: i64,
        customer: &'static str,
        is_estimate: bool,
        cents: u32,
    ) -> Counted {
        self.seq += 1;
        let now = EVENING.plus(hours * HOUR);
        let mut call = Call::default();
        call.tokens.output = cents.into();
        let mut event = Event {
            identity: Identity::of("acme", "app", "c-1", "final"),
            content: self.seq as u32,
            source: Cow::Borrowed("app"),
            id: Cow::Borrowed("c-1"),
            time: now,
            flags: Flags::default(),
            attribution: Attribution {
                workspace: Cow::Borrowed("acme"),
                customer: Cow::Borrowed(customer),
                tags: match self.team {
                    "" => Vec::new(),
                    team => vec![(Cow::Borrowed("team"), Cow::Borrowed(team))],
                },
                ..Attribution::default()
            },
            body: Body::Usage(call),
        };
        if is_estimate {
            event.flags.insert(Flags::USAGE_ESTIMATED);
        }
        let charge = Charge {
            cost: CostParts {
                output: Nanos::new(i128::from(cents) * CENT),
                ..CostParts::default()
            },
            ..Charge::default()
        };
        let origin = Origin {
            arrival: now,
            ..Origin::default()
        };
        self.meter.begin(self.seq);
        let counted = self.meter.count(&event, &charge, origin, &mut self.lines);
        let outputs = self.meter.finish();
        self.ids.push(codec::encode(&outputs.ids));
        let told = outputs
            .deltas
            .iter()
            .flat_map(|(_, deltas)| &deltas.entries);
        let told = told.map(|entry| (entry.scope.clone(), entry.minute, entry.cost.get() / CENT));
        self.deltas.extend(told);
        counted
    }

    /// A successor takes over, by what was written.
    fn restart(&mut self) {
        self.meter = meter();
        for ids in &self.ids {
            self.meter.restore_ids(ids).unwrap();
        }
        self.meter.restored();
    }

    /// Cents in a scope of the day of the estimate, and of the day after.
    fn spent(&self, scope: &str) -> [i128; 2] {
        let midnight = EVENING.plus(HOUR).minute();
        let mut days = [0; 2];
        for (of, minute, cents) in &self.deltas {
            if of == scope {
                days[usize::from(*minute >= midnight)] += cents;
            }
        }
        days
    }
}

fn grown(counted: Counted) -> bool {
    matches!(counted, Counted::Grown(_))
}

#[test]
fn less_than_an_estimate_is_taken_from_its_own_day_and_customer() {
    for is_restarted in [false, true] {
        let mut running = Running::new();
        running.tell(0, "", true, 150);
        if is_restarted {
            running.restart();
        }
        assert!(grown(running.tell(2, "c-1", false, 20)));
        assert_eq!(running.spent("acme"), [20, 0]);
        assert_eq!(running.spent("acme/customer=c-1"), [0, 0]);
        let lines = [
            (EVENING, String::new(), 150, false),
            (EVENING, String::new(), -130, false),
            // Whoever settles calls by the rows moves all of it to the customer.
            (EVENING.plus(2 * HOUR), "c-1".to_owned(), 0, true),
        ];
        assert_eq!(running.lines.0, lines);
    }
}

#[test]
fn an_estimate_of_somebody_else_stands_where_less_was_measured() {
    let mut running = Running::new();
    running.tell(0, "c-2", true, 150);
    assert_eq!(running.tell(2, "c-1", false, 20), Counted::Conflict);
    assert_eq!(running.spent("acme/customer=c-1"), [0, 0]);
    assert_eq!(running.spent("acme/customer=c-2"), [150, 0]);
    // Of the same one it gives way.
    assert!(grown(running.tell(3, "c-2", false, 20)));
    assert_eq!(running.spent("acme/customer=c-2"), [20, 0]);
}

#[test]
fn more_than_an_estimate_is_spend_of_whoever_tells_it() {
    let mut running = Running::new();
    running.tell(0, "", true, 50);
    assert!(grown(running.tell(2, "c-1", false, 80)));
    assert_eq!(running.spent("acme"), [50, 30]);
    assert_eq!(running.spent("acme/customer=c-1"), [0, 30]);
}

#[test]
fn an_estimate_gives_way_to_what_names_nobody_and_to_another_tag() {
    for is_restarted in [false, true] {
        let mut running = Running::new();
        running.team = "blue";
        running.tell(0, "c-1", true, 150);
        if is_restarted {
            running.restart();
        }
        running.team = "red";
        assert!(grown(running.tell(2, "", false, 20)));
        assert_eq!(running.spent("acme"), [20, 0]);
        assert_eq!(running.spent("acme/customer=c-1"), [20, 0]);
        assert_eq!(running.spent("acme/tags.team=blue"), [20, 0]);
        assert_eq!(running.spent("acme/tags.team=red"), [0, 0]);
        // What stands can be corrected: all of it names the same.
        let lines = [
            (EVENING, "c-1".to_owned(), 150, false),
            (EVENING, "c-1".to_owned(), -130, false),
        ];
        assert_eq!(running.lines.0, lines);
    }
}

#[test]
fn an_estimate_that_grows_stays_in_one_place() {
    let mut running = Running::new();
    running.tell(0, "", true, 50);
    assert!(grown(running.tell(2, "c-1", true, 150)));
    running.restart();
    assert!(grown(running.tell(3, "c-1", false, 20)));
    assert_eq!(running.spent("acme"), [20, 0]);
    assert_eq!(running.spent("acme/customer=c-1"), [0, 0]);
}

#[test]
fn estimates_of_two_customers_are_not_taken_back_from_one() {
    for is_restarted in [false, true] {
        let mut running = Running::new();
        running.tell(0, "c-1", true, 100);
        assert!(grown(running.tell(1, "c-2", true, 150)));
        if is_restarted {
            running.restart();
        }
        for customer in ["c-1", "c-2", ""] {
            let counted = running.tell(2, customer, false, 20);
            assert_eq!(counted, Counted::Conflict, "{customer}");
        }
        assert_eq!(running.spent("acme/customer=c-1"), [100, 0]);
        assert_eq!(running.spent("acme/customer=c-2"), [0, 50]);
        // It still grows.
        assert!(grown(running.tell(2, "c-1", true, 160)));
        assert!(grown(running.tell(3, "c-1", false, 180)));
        assert_eq!(running.spent("acme/customer=c-1"), [100, 30]);
        assert_eq!(running.spent("acme"), [100, 80]);
    }
}
