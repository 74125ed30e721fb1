//! Corrections: what stands for an entry from now on reaches rows, windows, sessions and verdicts, and
//! people are told what is lifted.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::budget::Budget;
use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::{DetectorRules, FindingState};
use spendfuse_domain::row::{AmendedBy, CostParts, MeterAddress, Origin, SpendRow, WindowLineKind};
use spendfuse_domain::{Amount, Identity, Nanos, UnixMillis, Verdict};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::delta::CountedThen;
use spendfuse_engine::ledger::{Ledger, LedgerConfig, LedgerOutputs, PUBLISH_RATE};
use spendfuse_engine::meter::{
    Charge, Corrected, Correction, Counted, Meter, MeterConfig, MeterOutputs, Rows, Standing,
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// 22 November 2026, noon.
const NOON: UnixMillis = UnixMillis(1_795_348_800_000);

/// Of each row what amends it, and how much more it costs.
#[derive(Default)]
struct Seen(Vec<(Option<AmendedBy>, i128, u64)>);

impl Rows for Seen {
    fn push(&mut self, row: &SpendRow<'_>) {
        let before = row.amends.map(|amended| amended.counts.clone());
        let more = row.cost.total() - before.unwrap_or_default().cost.total();
        let by = row.amends.map(|amended| amended.by);
        self.0.push((by, more.get(), row.budget_version));
    }
}

fn event(number: u32, time: UnixMillis) -> Event<'static> {
    let id = format!("e{number}");
    Event {
        identity: Identity::of("acme", "app", &id, "final"),
        content: number,
        source: Cow::Borrowed("app"),
        id: Cow::Owned(id),
        time,
        flags: Flags::default(),
        attribution: Attribution {
            workspace: Cow::Borrowed("acme"),
            customer: Cow::Borrowed("c-1"),
            session: Cow::Borrowed("s-1"),
            ..Attribution::default()
        },
        body: Body::Usage(Call::default()),
    }
}

fn dollars(amount: i64) -> Charge<'static> {
    Charge {
        cost: CostParts {
            output: Nanos::from_dollars(amount),
            ..CostParts::default()
        },
        ..Charge::default()
    }
}

fn budget(id: &str, customer: &str, window: &str, limit: &str) -> Budget {
    let scope = match window {
        "session" => r#"{"workspace":"acme","session":"*"}"#.to_owned(),
        _ => format!(r#"{{"workspace":"acme","customer":"{customer}"}}"#),
    };
    let record = format!(
        r#"{{"v":1,"scope":{scope},"limit":"{limit}","window":"{window}","steps":[{{"at":50,"do":"warn"}},{{"at":100,"do":"block"}}],"counted_from":"2026-11-01T00:00:00Z"}}"#
    );
    Budget::from_record(id, record.as_bytes()).expect("a good record")
}

struct Pair {
    meter: Meter,
    ledger: Ledger,
    seq: u64,
    rows: Seen,
    now: UnixMillis,
}

impl Pair {
    fn new(budgets: Vec<Budget>) -> Self {
        let book = Arc::new(BudgetBook::compile(1, budgets, DetectorRules::default()));
        let meter = MeterConfig {
            partition: 0,
            partitions: 1,
            dedupe_horizon_millis: DAY,
            dedupe_capacity: 1_000,
            session_idle_millis: HOUR,
            session_capacity: 10,
        };
        let ledger = LedgerConfig {
            partition: 0,
            partitions: 1,
            grace_millis: DAY,
            publish_rate: PUBLISH_RATE,
            account_capacity: 100,
        };
        Self {
            meter: Meter::new(meter, Arc::clone(&book)),
            ledger: Ledger::new(ledger, book),
            seq: 0,
            rows: Seen::default(),
            now: NOON,
        }
    }

    fn commit<T>(
        &mut self,
        act: impl FnOnce(&mut Meter, Origin, &mut Seen) -> T,
    ) -> (T, MeterOutputs, LedgerOutputs) {
        self.seq += 1;
        self.meter.begin(self.seq);
        self.ledger.begin(self.seq);
        let origin = Origin {
            arrival: self.now,
            ..Origin::default()
        };
        let done = act(&mut self.meter, origin, &mut self.rows);
        let metered = self.meter.finish();
        for (_, deltas) in &metered.deltas {
            self.ledger.apply(deltas, self.now);
        }
        self.ledger.advance(self.now);
        (done, metered, self.ledger.finish())
    }

    fn count(&mut self, number: u32, amount: i64) -> (MeterAddress, MeterOutputs, LedgerOutputs) {
        let event = event(number, self.now);
        let (counted, metered, told) =
            self.commit(|meter, origin, rows| meter.count(&event, &dollars(amount), origin, rows));
        let Counted::AtAddress(address) = counted else {
            panic!("{counted:?}");
        };
        (address, metered, told)
    }

    /// Corrects the entry at `address`; `number` is that of the correction.
    fn correct(
        &mut self,
        address: MeterAddress,
        number: u32,
        before: Option<Standing<'static>>,
        after: Option<Standing<'static>>,
    ) -> (Corrected, MeterOutputs, LedgerOutputs) {
        let correction = Correction {
            id: "c",
            identity: Identity(u128::from(address.seq << 32 | u64::from(number))),
            content: u32::from(after.is_some()),
            entry: address,
            entry_id: "e",
            counted: CountedThen {
                budget_version: 1,
                arrival: NOON,
            },
            judged_at: self.now,
            before,
            after,
            reason: "a test: why",
            is_rerate: false,
        };
        self.commit(|meter, origin, rows| meter.correct(&correction, origin, rows))
    }
}

fn standing(number: u32, amount: i64) -> Option<Standing<'static>> {
    Some(Standing {
        event: event(number, NOON),
        charge: dollars(amount),
    })
}

fn verdicts(outputs: &LedgerOutputs) -> Vec<(String, Verdict)> {
    let entries = outputs.told.blocklist.iter();
    entries
        .filter_map(|(key, entry)| Some((key.clone(), entry.as_ref()?.verdict)))
        .collect()
}

#[test]
fn a_voided_entry_lifts_block_alert_and_finding_and_a_later_rise_tells_again() {
    let mut pair = Pair::new(vec![
        budget("daily", "*", "day", "2.00"),
        budget("a-session", "", "session", "2.00"),
    ]);
    pair.count(1, 1);
    let (second, _, told) = pair.count(2, 1);
    assert_eq!(told.told.alerts.len(), 1, "{:?}", told.told.alerts);
    let (corrected, metered, told) = pair.correct(second, 1, standing(2, 1), None);
    assert!(matches!(corrected, Corrected::Applied { rows: 1, .. }));
    let last = pair.rows.0.last().copied();
    assert_eq!(last, Some((Some(AmendedBy::TakingBack), -1_000_000_000, 1)));
    let key = "daily|acme/customer=c-1".to_owned();
    assert_eq!(verdicts(&told), [(key.clone(), Verdict::Warn)]);
    let lifted: Vec<bool> = told
        .told
        .alerts
        .iter()
        .map(|alert| alert.details.lifted_at.is_some())
        .collect();
    assert_eq!(lifted, [true]);
    let closed: Vec<FindingState> = told
        .told
        .findings
        .iter()
        .map(|(_, one)| one.state)
        .collect();
    assert_eq!(closed, [FindingState::Closed]);
    let session = metered.told.blocklist.iter();
    let session: Vec<_> = session
        .filter_map(|(_, entry)| Some(entry.as_ref()?.verdict))
        .collect();
    assert_eq!(session, [Verdict::Warn], "the session is live");

    let (_, _, told) = pair.count(3, 1);
    assert_eq!(verdicts(&told), [(key, Verdict::Block)]);
    assert!(told.told.alerts[0].details.lifted_at.is_none());
    assert_eq!(told.told.findings[0].1.state, FindingState::Open);
}

#[test]
fn of_two_corrections_with_one_number_the_first_stands_and_the_same_one_does_nothing() {
    let mut pair = Pair::new(vec![budget("daily", "*", "day", "5.00")]);
    let (first, _, _) = pair.count(1, 1);
    let of = |pair: &mut Pair, number, before, after| pair.correct(first, number, before, after).0;
    assert!(matches!(
        of(&mut pair, 1, standing(1, 1), None),
        Corrected::Applied { .. }
    ));
    assert_eq!(of(&mut pair, 1, standing(1, 1), None), Corrected::Twice);
    let other = of(&mut pair, 1, standing(1, 1), standing(1, 3));
    assert_eq!(other, Corrected::Conflict);
    // What was void stands again.
    assert!(matches!(
        of(&mut pair, 2, None, standing(1, 1)),
        Corrected::Applied { .. }
    ));
    let costs: Vec<i128> = pair.rows.0.iter().map(|(_, more, _)| *more).collect();
    assert_eq!(costs, [1_000_000_000, -1_000_000_000, 1_000_000_000]);
    let elsewhere = MeterAddress {
        partition: 1,
        ..first
    };
    let ahead = MeterAddress {
        seq: first.seq + 1_000,
        ..first
    };
    for unknown in [elsewhere, ahead, MeterAddress::default()] {
        let (corrected, ..) = pair.correct(unknown, 1, standing(1, 1), None);
        assert_eq!(corrected, Corrected::NoEntry);
    }
}

#[test]
fn another_customer_gets_what_is_taken_from_the_first_one() {
    let mut pair = Pair::new(vec![budget("daily", "*", "day", "1.00")]);
    let (first, _, _) = pair.count(1, 1);
    let mut moved = standing(1, 1).expect("it stands");
    moved.event.attribution.customer = Cow::Borrowed("c-2");
    let (corrected, _, told) = pair.correct(first, 1, standing(1, 1), Some(moved));
    assert!(matches!(corrected, Corrected::Applied { rows: 2, .. }));
    let mut seen = verdicts(&told);
    seen.sort();
    let expected = [("c-1", Verdict::Ok), ("c-2", Verdict::Block)];
    let expected = expected.map(|(who, verdict)| (format!("daily|acme/customer={who}"), verdict));
    assert_eq!(seen, expected);
}

#[test]
fn a_closed_window_gets_a_line_and_a_count_that_began_later_nothing() {
    let mut pair = Pair::new(vec![budget("daily", "*", "day", "1.00")]);
    let (first, _, _) = pair.count(1, 1);
    pair.now = NOON.plus(3 * DAY);
    pair.count(2, 1);
    let (_, _, told) = pair.correct(first, 1, standing(1, 1), None);
    let late: Vec<_> = told
        .window_lines
        .iter()
        .filter(|line| line.kind == WindowLineKind::Late)
        .map(|line| (line.spend.cost, line.spend.calls))
        .collect();
    assert_eq!(late, [(Nanos::from_dollars(-1), -1)]);

    let mut young = budget("daily", "*", "day", "1.00");
    young.counted_from = NOON.plus(-1_000);
    let book = BudgetBook::compile(2, vec![young], DetectorRules::default());
    let compiled = &book.budgets[0];
    let then = |budget_version, arrival| CountedThen {
        budget_version,
        arrival,
    };
    assert!(!then(1, NOON).is_in(compiled), "perhaps counted by others");
    assert!(then(2, NOON).is_in(compiled));
    assert!(then(1, NOON.plus(60_000)).is_in(compiled));
    let before = BudgetBook::compile(1, vec![compiled.budget.clone()], DetectorRules::default());
    let kept = book.succeeding(&before);
    assert!(
        then(1, NOON).is_in(&kept.budgets[0]),
        "that count was there"
    );
}

#[test]
fn what_meters_of_earlier_topics_knew_is_not_counted_again() {
    let mut pair = Pair::new(vec![
        budget("daily", "*", "day", "5.00"),
        budget("a-session", "", "session", "2.00"),
    ]);
    let (news, metered, _) = pair.commit(|meter, _, _| {
        let of_session = [standing(1, 1), standing(2, 1), standing(2, 1)];
        let calls = of_session.map(|call| meter.recover_call(&call.unwrap(), NOON));
        let identity = Identity::of("acme", "app", "e3", "final");
        let other = [(); 2].map(|()| meter.recover_identity(identity, NOON));
        (calls, other)
    });
    assert_eq!(news, ([true, true, false], [true, false]));
    assert!(metered.deltas.is_empty(), "{:?}", metered.deltas);
    assert_eq!(metered.ids.ids.len(), 3);
    let told: Vec<_> = metered.told.blocklist.iter().collect();
    let [(key, Some(entry))] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(key, "a-session|acme/session=s-1");
    assert_eq!(
        (entry.verdict, entry.figures.spent),
        (Verdict::Block, Some(Amount::Usd(Nanos::from_dollars(2))))
    );

    // As its successor knows it.
    let mut heir = Pair::new(vec![
        budget("daily", "*", "day", "5.00"),
        budget("a-session", "", "session", "2.00"),
    ]);
    for (key, value) in &metered.told.changelog {
        heir.meter.restore(key, value.as_deref()).unwrap();
    }
    let ids = spendfuse_engine::codec::encode(&metered.ids);
    heir.meter.restore_ids(&ids).unwrap();
    heir.meter.restored();
    for pair in [&mut pair, &mut heir] {
        for number in 1..=3 {
            // Whatever it says.
            let event = event(number, pair.now);
            let (counted, ..) =
                pair.commit(|meter, origin, rows| meter.count(&event, &dollars(7), origin, rows));
            assert_eq!(counted, Counted::Duplicate);
        }
        assert!(pair.rows.0.is_empty());
        pair.count(4, 1);
        let id = spendfuse_domain::budget::BudgetId::new("a-session").unwrap();
        let account = pair.meter.session_account(&id, "acme/session=s-1").unwrap();
        assert_eq!(account.cost, Nanos::from_dollars(3));
    }
}

#[test]
fn history_that_was_counted_is_remembered_and_no_part_of_its_session() {
    let mut pair = Pair::new(vec![budget("a-session", "", "session", "2.00")]);
    let mut call = standing(1, 1).unwrap();
    call.event.flags.insert(Flags::BACKFILLED);
    let (is_news, metered, _) = pair.commit(|meter, _, _| meter.recover_call(&call, NOON));
    assert!(is_news && metered.told.blocklist.is_empty());
    assert_eq!(pair.meter.sizes(), (0, 1));
}

#[test]
fn a_session_knows_what_it_counted_whatever_the_budgets_record_says_later() {
    let budgets = |limit: &str| {
        let mut budget = budget("a-session", "", "session", limit);
        budget.counted_from = NOON.plus(-10_000);
        vec![budget]
    };
    let mut pair = Pair::new(budgets("2.00"));
    pair.count(1, 1);
    let (second, _, _) = pair.count(2, 1);
    // A successor that reads a later record of the budget: the first is compacted away.
    let book = BudgetBook::compile(9, budgets("3.00"), DetectorRules::default());
    pair.meter.set_book(Arc::new(book));
    let (corrected, ..) = pair.correct(second, 1, standing(2, 1), None);
    assert!(matches!(corrected, Corrected::Applied { rows: 1, .. }));
    let id = spendfuse_domain::budget::BudgetId::new("a-session").unwrap();
    let account = pair.meter.session_account(&id, "acme/session=s-1").unwrap();
    assert_eq!(account.cost, Nanos::from_dollars(1));
}
