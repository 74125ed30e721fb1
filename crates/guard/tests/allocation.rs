//! A check takes no memory from the heap, whatever it decides, nor does a reservation.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Attribution, Nanos, UnixMillis, Verdict};
use spendfuse_guard::{CheckRequest, Expected, Guard, GuardConfig, GuardWriter, Now};

const NOW: Now = Now {
    wall: UnixMillis(1_795_000_000_000),
    monotonic_millis: 0,
};

/// Four stacking budgets and one per session.
const BUDGETS: [(&str, &str); 5] = [
    ("workspace", "acme"),
    ("customer", "acme/customer=c 42"),
    ("feature", "acme/customer=c 42/feature=chat"),
    ("user", "acme/customer=c 42/user=u-7"),
    ("session", "acme/session=s-1"),
];

fn apply(writer: &mut GuardWriter, key: &str, scope: &str, changes: Value) {
    let mut entry = json!({
        "v": 1, "budget": "any", "scope": scope, "where": null, "verdict": "ok",
        "action": "block", "spent_usd": "1.00", "limit_usd": "5.00", "percent": 20.0,
        "window": "day:2026-11-18", "window_start": NOW.wall, "resets_at": null,
        "expires_at": NOW.wall.plus(3_600_000), "counted_from": NOW.wall, "downgrade_to": null,
        "version": 1, "decided_at": NOW.wall, "caused_by": null,
    });
    for (field, value) in changes.as_object().unwrap() {
        entry[field] = value.clone();
    }
    let value = serde_json::to_vec(&entry).unwrap();
    writer.apply(key, Some(&value), NOW.wall, NOW).unwrap();
}

fn guard() -> (GuardWriter, Guard) {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    for (id, scope) in BUDGETS {
        let mut template = json!({"workspace": "*"});
        for dimension in ["customer", "feature", "user"] {
            if scope.contains(dimension) {
                template[dimension] = json!("*");
            }
        }
        let record = json!({
            "v": 1, "id": id, "scope": template, "limit": "5.00",
            "window": if id == "session" { "session" } else { "day" },
            "timezone": "America/New_York", "counted_from": "2026-01-01T00:00:00Z",
            "steps": [{"at": 50, "do": "warn"}, {"at": 80, "do": "downgrade", "to": "small"},
                      {"at": 100, "do": "block"}],
            "where": if id == "user" { json!({"plan": ["free", "pro"]}) } else { json!({}) },
        });
        let record = serde_json::to_vec(&record).unwrap();
        writer.apply_budget(id, Some(&record), 1).unwrap();
        let scope = scope.replace(' ', "%20");
        apply(&mut writer, &format!("{id}|{scope}"), &scope, json!({}));
    }
    writer.caught_up();
    writer.publish(NOW.wall);
    (writer, guard)
}

fn request(estimate: i64) -> CheckRequest<'static> {
    CheckRequest {
        attribution: Attribution {
            workspace: "acme".into(),
            customer: "c 42".into(),
            feature: "chat".into(),
            user: "u-7".into(),
            session: "s-1".into(),
            plan: "free".into(),
            ..Attribution::default()
        },
        estimate: Spend {
            cost: Nanos::from_dollars(estimate),
            ..Spend::default()
        },
        ..CheckRequest::default()
    }
}

#[track_caller]
fn assert_decides(guard: &Guard, request: &CheckRequest<'_>, verdict: Verdict) {
    assert_decides_at(guard, request, NOW, verdict);
    // In the last second of the windows full entries are asked.
    let late = UnixMillis(NOW.wall.0 + 3_599_999);
    assert_decides_at(guard, request, Now { wall: late, ..NOW }, verdict);
}

#[track_caller]
fn assert_decides_at(guard: &Guard, request: &CheckRequest<'_>, now: Now, verdict: Verdict) {
    let mut decided = None;
    let memory = allocation_counter::measure(|| {
        let decision = guard.check(request, now);
        decided = Some((decision.verdict(), decision.budgets().count()));
    });
    assert_eq!(decided, Some((verdict, BUDGETS.len())));
    assert_eq!(memory.count_total, 0, "{memory:?} for {verdict:?}");
}

#[test]
fn a_check_allocates_nothing_whatever_it_decides() {
    let (mut writer, guard) = guard();
    let call = request(0);
    // The first check of a thread registers the thread.
    guard.check(&call, NOW);
    assert_decides(&guard, &call, Verdict::Ok);
    assert_decides(&guard, &request(5), Verdict::Block);
    let key = "customer|acme/customer=c%2042";
    for (spent, verdict) in [
        ("3.00", Verdict::Warn),
        ("4.00", Verdict::Downgrade),
        ("5.00", Verdict::Block),
        // Does not fit into the table: the full entry is asked.
        ("99999999999.00", Verdict::Block),
    ] {
        let changes = json!({"spent_usd": spent, "verdict": verdict.name()});
        apply(&mut writer, key, "acme/customer=c%2042", changes);
        writer.publish(NOW.wall);
        assert_decides(&guard, &call, verdict);
    }
    writer.apply(key, None, NOW.wall, NOW).unwrap();
    writer.publish(NOW.wall);
    assert_decides(&guard, &call, Verdict::Ok);
    for detector in ["retry_loop", "context_bloat", "tool_amplification"] {
        let key = format!("finding|{detector}|acme/session=s-1");
        let block = json!({"verdict": "block"});
        apply(&mut writer, &key, "acme/session=s-1", block);
    }
    writer.publish(NOW.wall);
    assert_decides(&guard, &call, Verdict::Block);
}

#[test]
fn a_reservation_of_four_budgets_allocates_nothing_where_there_was_one_before() {
    let (_writer, guard) = guard();
    let mut call = request(0);
    call.attribution.session = "".into();
    let met = guard.check_with_reasons(&call, NOW).explain().budgets.len();
    assert_eq!(met, 4);
    let reserve = |cents: i128| {
        let spend = Spend {
            cost: Nanos::new(cents * 10_000_000),
            tokens: 0,
            calls: 1,
        };
        let mut hold = None;
        let memory = allocation_counter::measure(|| {
            let reserving = guard.reserve(&call, Expected::given(spend), 60_000, NOW);
            hold = reserving.ok().and_then(|reserving| reserving.hold);
        });
        (hold.map(|hold| hold.number), memory.count_total)
    };
    // It makes the cells, which stay for a while.
    let (first, _) = reserve(1);
    assert!(guard.release(first.unwrap()));
    for _ in 0..3 {
        let (held, allocations) = reserve(1);
        assert_eq!(allocations, 0);
        assert!(guard.release(held.unwrap()));
    }
    let (beside, _) = reserve(1);
    let (held, allocations) = reserve(1);
    assert_eq!(allocations, 0);
    assert_eq!(reserve(399), (None, 0), "a cent too much");
    for number in [beside, held] {
        assert!(guard.release(number.unwrap()));
    }
    // Nothing of it stays for ever.
    guard.expire_holds(NOW.monotonic_millis);
    assert!(reserve(1).1 > 0);
}

#[test]
fn the_counter_sees_what_an_explanation_allocates() {
    let (_writer, guard) = guard();
    let call = request(0);
    let decision = guard.check_with_reasons(&call, NOW);
    let memory = allocation_counter::measure(|| {
        decision.explain();
    });
    assert!(memory.count_total > 0);
}
