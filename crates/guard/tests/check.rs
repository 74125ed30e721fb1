//! What a caller of the check sees, in the contract's JSON.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Attribution, Nanos, UnixMillis, Verdict};
use spendfuse_guard::{CheckRequest, ColdStart, Guard, GuardConfig, GuardWriter, Now};

const KEY: &str = "daily|acme/customer=c-42";

fn now() -> Now {
    Now {
        wall: UnixMillis::parse_rfc3339("2026-11-22T10:15:30Z").unwrap(),
        monotonic_millis: 0,
    }
}

fn budget(writer: &mut GuardWriter, id: &str, changes: Value) {
    let mut record = json!({
        "v": 1, "id": id, "scope": {"workspace": "acme", "customer": "*"}, "limit": "5.00",
        "window": "day", "timezone": "America/New_York", "counted_from": "2026-11-01T00:00:00Z",
        "steps": [{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}],
    });
    for (field, value) in changes.as_object().unwrap() {
        record[field] = value.clone();
    }
    let value = serde_json::to_vec(&record).unwrap();
    writer.apply_budget(id, Some(&value), 1).unwrap();
}

fn entry(spent: &str, verdict: &str) -> Vec<u8> {
    let end = "2026-11-23T05:00:00Z";
    serde_json::to_vec(&json!({
        "v": 1, "budget": "daily", "scope": "acme/customer=c-42", "where": null,
        "verdict": verdict, "action": verdict, "spent_usd": spent, "limit_usd": "5.00",
        "percent": 1.0, "window": "day:2026-11-22", "window_start": "2026-11-22T05:00:00Z",
        "resets_at": end, "expires_at": end, "counted_from": "2026-11-22T05:00:00Z",
        "downgrade_to": null, "version": 1, "decided_at": "2026-11-22T10:15:30Z",
        "caused_by": {"source": "app", "id": "1", "time": "2026-11-22T10:15:29Z"},
    }))
    .unwrap()
}

fn call(estimate: &str) -> CheckRequest<'static> {
    CheckRequest {
        attribution: Attribution {
            workspace: "acme".into(),
            customer: "c-42".into(),
            session: "s-1".into(),
            model: "gpt-4o-mini".into(),
            ..Attribution::default()
        },
        estimate: Spend {
            cost: Nanos::parse_usd(estimate).unwrap().amount,
            tokens: 0,
            calls: 1,
        },
        ..CheckRequest::default()
    }
}

fn answer(guard: &Guard, request: &CheckRequest<'_>, now: Now) -> Value {
    let response = guard.check_with_reasons(request, now).explain();
    serde_json::to_value(response).unwrap()
}

#[test]
fn a_blocked_call_learns_which_budget_and_until_when() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    budget(
        &mut writer,
        "daily",
        json!({"message": "Used up.", "help_url": "https://a.example"}),
    );
    writer
        .apply(KEY, Some(&entry("5.000123", "block")), now().wall, now())
        .unwrap();
    writer.publish(now().wall);
    let answer = answer(&guard, &call("0"), now());
    let line = &answer["budgets"][0];
    assert_eq!(answer["decision"], "block");
    assert_eq!(answer["retry_after_seconds"], 67_470);
    let expected = json!({
        "budget": "daily", "scope": "acme/customer=c-42", "verdict": "block",
        "spent_usd": "5.000123", "limit_usd": "5.00",
        "pending_usd": "0.00", "reserved_usd": "0.00", "remaining_usd": "-0.000123", "percent": 100.0,
        "window": "day:2026-11-22", "resets_at": "2026-11-23T05:00:00Z", "message": "Used up.",
        "help_url": "https://a.example",
    });
    assert_eq!(*line, expected);
}

#[test]
fn the_estimate_counts_and_a_window_that_ended_does_not() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    budget(&mut writer, "daily", json!({}));
    writer
        .apply(KEY, Some(&entry("4.50", "warn")), now().wall, now())
        .unwrap();
    writer.publish(now().wall);
    let verdict = |estimate, now| guard.check(&call(estimate), now).verdict();
    assert_eq!(verdict("0.50", now()), Verdict::Warn);
    assert_eq!(verdict("0.500000001", now()), Verdict::Block);
    let next_day = Now {
        wall: UnixMillis::parse_rfc3339("2026-11-23T05:00:00Z").unwrap(),
        ..now()
    };
    assert_eq!(verdict("0.500000001", next_day), Verdict::Ok);
    let fresh = answer(&guard, &call("0"), next_day);
    assert_eq!(fresh["budgets"][0]["window"], "day:2026-11-23");
    assert_eq!(fresh["budgets"][0]["spent_usd"], "0.00");
    // A tombstone is a fresh window too.
    writer.apply(KEY, None, now().wall, now()).unwrap();
    writer.publish(now().wall);
    assert_eq!(verdict("0.50", now()), Verdict::Ok);
}

#[test]
fn a_session_goes_by_the_limit_that_is_told_with_the_call_or_was_told_before() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let of_session = json!({
        "scope": {"workspace": "acme"}, "window": "session", "limit": "5.00",
        "limit_from": "event",
    });
    budget(&mut writer, "daily", of_session);
    writer.publish(now().wall);
    let verdict = |estimate, told: Option<&str>| {
        let request = CheckRequest {
            session_limit: told.map(|told| Nanos::parse_usd(told).unwrap().amount),
            ..call(estimate)
        };
        let verdict = guard.check(&request, now()).verdict();
        let answer = answer(&guard, &request, now());
        let limit = answer["budgets"][0]["limit_usd"].as_str().unwrap();
        assert_eq!(guard.check_with_reasons(&request, now()).verdict(), verdict);
        (verdict, limit.to_owned())
    };
    // The first call is limited, too.
    assert_eq!(verdict("3.00", None), (Verdict::Ok, "5.00".to_owned()));
    assert_eq!(
        verdict("3.00", Some("2.00")),
        (Verdict::Block, "2.00".to_owned())
    );
    assert_eq!(
        verdict("7.00", Some("9.00")),
        (Verdict::Ok, "9.00".to_owned())
    );
    // A usage event has told a smaller one.
    let mut entry: Value = serde_json::from_slice(&entry("1.00", "ok")).unwrap();
    for (name, value) in [("scope", "acme/session=s-1"), ("limit_usd", "1.50")] {
        entry[name] = value.into();
    }
    let entry = serde_json::to_vec(&entry).unwrap();
    writer
        .apply("daily|acme/session=s-1", Some(&entry), now().wall, now())
        .unwrap();
    writer.publish(now().wall);
    assert_eq!(verdict("0.60", None), (Verdict::Block, "1.50".to_owned()));
    assert_eq!(verdict("0.40", None), (Verdict::Ok, "1.50".to_owned()));
    assert_eq!(
        verdict("0.60", Some("4.00")),
        (Verdict::Ok, "4.00".to_owned())
    );
}

#[test]
fn limit_zero_blocks_a_customer_never_seen() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    budget(&mut writer, "daily", json!({"limit": "0"}));
    writer.publish(now().wall);
    let answer = answer(&guard, &call("0"), now());
    assert_eq!(answer["decision"], "block");
    assert_eq!(answer["budgets"][0]["percent"], Value::Null);
}

#[test]
fn a_budget_whose_where_cannot_be_judged_is_named() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    budget(
        &mut writer,
        "daily",
        json!({"limit": "0", "where": {"plan": "free"}}),
    );
    writer.publish(now().wall);
    let mut request = call("0");
    let unknown = answer(&guard, &request, now());
    assert_eq!(unknown["decision"], "allow");
    assert_eq!(unknown["warnings"][0]["type"], "not_evaluated");
    assert_eq!(unknown["warnings"][0]["budget"], "daily");
    request.attribution.plan = "pro".into();
    assert_eq!(answer(&guard, &request, now())["warnings"], json!([]));
    request.attribution.plan = "free".into();
    assert_eq!(answer(&guard, &request, now())["decision"], "block");
}

#[test]
fn a_call_that_already_uses_the_cheaper_model_is_only_warned() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let steps = json!([{"at": 50, "do": "downgrade", "to": "gpt-4o-mini"}]);
    budget(&mut writer, "daily", json!({"steps": steps}));
    writer
        .apply(KEY, Some(&entry("3.00", "downgrade")), now().wall, now())
        .unwrap();
    writer.publish(now().wall);
    let mut request = call("0");
    assert_eq!(answer(&guard, &request, now())["decision"], "warn");
    request.attribution.model = "gpt-4o".into();
    let downgraded = answer(&guard, &request, now());
    assert_eq!(downgraded["decision"], "downgrade");
    assert_eq!(downgraded["downgrade_to"], "gpt-4o-mini");
}

#[test]
fn before_it_has_caught_up_a_guard_follows_cold_start() {
    for (cold_start, decision) in [(ColdStart::Allow, "allow"), (ColdStart::Block, "block")] {
        let (mut writer, guard) = Guard::new(GuardConfig {
            cold_start,
            ..GuardConfig::new(1)
        });
        let cold = answer(&guard, &call("0"), now());
        assert_eq!(
            (&cold["state"], &cold["decision"]),
            (&json!("cold"), &json!(decision))
        );
        writer.caught_up();
        writer.publish(now().wall);
        let stale = answer(&guard, &call("0"), now());
        assert_eq!(
            (&stale["state"], &stale["decision"]),
            (&json!("stale"), &json!("allow"))
        );
    }
}

#[test]
fn a_session_stopped_by_a_detector_is_refused_and_its_open_findings_are_told() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let mut stop: Value = serde_json::from_slice(&entry("0", "block")).unwrap();
    stop["expires_at"] = json!("2026-11-22T10:30:30Z");
    stop["resets_at"] = Value::Null;
    let stop = serde_json::to_vec(&stop).unwrap();
    let key = "finding|retry_loop|acme/session=s-1";
    writer.apply(key, Some(&stop), now().wall, now()).unwrap();
    let finding = |state: &str| {
        serde_json::to_vec(&json!({
            "v": 1, "detector": "retry_loop", "scope": "acme/session=s-1", "agent": "planner",
            "model": "m", "customer": "", "feature": "", "rule": "loops", "state": state,
            "severity": "warning", "opened_at": "2026-11-22T10:00:00Z",
            "last_at": "2026-11-22T10:15:00Z", "measured": 4.0, "threshold": 3.0,
            "wasted_usd": "0.0182", "evidence": [], "message": "the same prompt ran 4 times in a row",
        }))
        .unwrap()
    };
    let finding_key = "acme/session=s-1|retry_loop|loops|planner";
    writer
        .apply_finding(finding_key, Some(&finding("open")))
        .unwrap();
    writer.publish(now().wall);
    let stopped = answer(&guard, &call("0"), now());
    assert_eq!(
        (&stopped["decision"], &stopped["retry_after_seconds"]),
        (&json!("block"), &json!(900))
    );
    assert_eq!(stopped["warnings"][0]["wasted_usd"], "0.0182");
    writer
        .apply_finding(finding_key, Some(&finding("closed")))
        .unwrap();
    writer.publish(now().wall);
    assert_eq!(answer(&guard, &call("0"), now())["warnings"], json!([]));
}

#[test]
fn a_call_that_costs_more_than_the_whole_limit_is_not_told_to_wait() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    budget(&mut writer, "daily", json!({}));
    writer.publish(now().wall);
    let told = |guard: &Guard, estimate: &str| {
        let answer = answer(guard, &call(estimate), now());
        let resets_at = answer["budgets"][0]["resets_at"].clone();
        (
            answer["decision"].clone(),
            answer["retry_after_seconds"].clone(),
            resets_at,
        )
    };
    let (block, end) = (json!("block"), json!("2026-11-23T05:00:00Z"));
    // Tomorrow it is refused as it is today.
    let never = (block.clone(), Value::Null, end.clone());
    assert_eq!(told(&guard, "5.01"), never);
    assert_eq!(told(&guard, "5.00").0, "allow");
    writer
        .apply(KEY, Some(&entry("4.50", "warn")), now().wall, now())
        .unwrap();
    writer.publish(now().wall);
    assert_eq!(told(&guard, "5.01"), never);
    let tomorrow = (block, json!(67_470), end);
    assert_eq!(told(&guard, "5.00"), tomorrow);
}

#[test]
fn a_follower_of_the_blocklist_misses_nothing_or_is_told_to_start_again() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let value = entry("4.50", "warn");
    let put = |writer: &mut GuardWriter, customer: u32, value: Option<&[u8]>| {
        let key = format!("daily|acme/customer={customer}");
        writer.apply(&key, value, now().wall, now()).unwrap();
        writer.publish(now().wall);
    };
    for customer in 0..100 {
        put(&mut writer, customer, Some(&value));
    }
    let mut page = guard.blocklist(None, 30, now().wall).unwrap();
    put(&mut writer, 5, None);
    put(&mut writer, 100, Some(&value));
    let mut known = std::collections::BTreeMap::new();
    loop {
        let at_end = !page.more && page.entries.is_empty();
        for entry in page.entries {
            match entry.value {
                Some(value) => known.insert(entry.key, value),
                None => known.remove(&entry.key),
            };
        }
        if at_end {
            break;
        }
        page = guard.blocklist(Some(&page.cursor), 30, now().wall).unwrap();
    }
    assert!(!known.contains_key("daily|acme/customer=5"));
    assert!(known.contains_key("daily|acme/customer=100"));
    let (_, other_run) = Guard::new(GuardConfig::new(1));
    assert!(
        other_run
            .blocklist(Some(&page.cursor), 30, now().wall)
            .is_err()
    );
}

#[test]
fn what_a_log_that_is_read_again_no_longer_says_is_forgotten_at_its_end() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let value = entry("4.50", "warn");
    budget(&mut writer, "daily", json!({}));
    budget(&mut writer, "gone", json!({"limit": "0"}));
    for customer in ["c-42", "c-43"] {
        let key = format!("daily|acme/customer={customer}");
        writer.apply(&key, Some(&value), now().wall, now()).unwrap();
    }
    writer.caught_up();
    writer.publish(now().wall);
    writer.begin_again(now().wall);
    budget(&mut writer, "daily", json!({}));
    writer.apply(KEY, Some(&value), now().wall, now()).unwrap();
    writer.publish(now().wall);
    // Until the end is reached the old state stands, also what a guard knew to be blocked.
    assert_eq!((guard.entry_count(), guard.budget_count()), (2, 2));
    writer.caught_up();
    writer.publish(now().wall);
    assert_eq!((guard.entry_count(), guard.budget_count()), (1, 1));
    assert_eq!(guard.check(&call("0"), now()).verdict(), Verdict::Warn);
}

#[test]
fn while_a_log_is_read_again_readers_see_none_of_what_was_true_once() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let decide = |guard: &Guard| guard.check(&call("0"), now()).verdict();
    let tell = |writer: &mut GuardWriter, value: &[u8]| {
        writer.apply(KEY, Some(value), now().wall, now()).unwrap();
        writer.publish(now().wall);
    };
    budget(&mut writer, "daily", json!({}));
    tell(&mut writer, &entry("1.00", "ok"));
    writer.caught_up();
    let followed = guard.blocklist(None, 10, now().wall).unwrap();
    writer.begin_again(now().wall);
    // The log still has what the budget and the entry said before.
    budget(&mut writer, "daily", json!({"limit": "0"}));
    tell(&mut writer, &entry("5.00", "block"));
    assert_eq!(decide(&guard), Verdict::Ok);
    // Lost once more on the way.
    writer.begin_again(now().wall);
    budget(&mut writer, "daily", json!({"limit": "0"}));
    tell(&mut writer, &entry("5.00", "block"));
    budget(&mut writer, "daily", json!({}));
    tell(&mut writer, &entry("1.00", "ok"));
    assert_eq!(decide(&guard), Verdict::Ok);
    writer.caught_up();
    writer.publish(now().wall);
    assert_eq!(decide(&guard), Verdict::Ok);
    let cursor = Some(&*followed.cursor);
    let changes = guard.blocklist(cursor, 10, now().wall).unwrap();
    let verdicts = changes.entries.iter().flat_map(|change| &change.value);
    assert!(
        verdicts
            .into_iter()
            .all(|entry| entry.verdict == Verdict::Ok)
    );
}

#[test]
fn what_cannot_be_read_the_second_time_stays_as_it_was() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    budget(&mut writer, "daily", json!({}));
    writer
        .apply(KEY, Some(&entry("5.00", "block")), now().wall, now())
        .unwrap();
    let finding = "acme/session=s-1|retry_loop|loops|planner";
    let open = json!({
        "v": 1, "detector": "retry_loop", "scope": "acme/session=s-1", "agent": "planner",
        "model": "", "customer": "", "feature": "", "rule": "loops", "state": "open",
        "severity": "warning", "opened_at": now().wall, "last_at": now().wall, "measured": 4.0,
        "threshold": 3.0, "wasted_usd": "0.00", "evidence": [], "message": "again and again",
    });
    let open = serde_json::to_vec(&open).unwrap();
    writer.apply_finding(finding, Some(&open)).unwrap();
    writer.caught_up();
    writer.publish(now().wall);
    writer.begin_again(now().wall);
    let newer = Some(br#"{"v":99}"#.as_slice());
    assert!(writer.apply_budget("daily", newer, 2).is_err());
    assert!(writer.apply(KEY, newer, now().wall, now()).is_err());
    assert!(writer.apply_finding(finding, newer).is_err());
    writer.caught_up();
    writer.publish(now().wall);
    assert_eq!(guard.check(&call("0"), now()).verdict(), Verdict::Block);
    assert_eq!(guard.open_findings(|_| true).len(), 1);
}

#[test]
fn an_empty_budgets_topic_that_was_made_anew_lifts_nothing() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    budget(&mut writer, "daily", json!({}));
    budget(&mut writer, "other", json!({}));
    writer.reached_end_of_budgets(7);
    writer.caught_up();
    writer.publish(now().wall);
    writer.begin_again(now().wall);
    writer.reached_end_of_budgets(0);
    writer.caught_up();
    writer.publish(now().wall);
    assert!(writer.holds_former_budgets());
    assert_eq!(guard.budget_count(), 2);
    // Read again while it is still empty.
    writer.begin_again(now().wall);
    writer.reached_end_of_budgets(0);
    writer.caught_up();
    writer.publish(now().wall);
    assert!(writer.holds_former_budgets());
    assert_eq!(guard.budget_count(), 2);
    budget(&mut writer, "daily", json!({}));
    writer.reached_end_of_budgets(2);
    writer.publish(now().wall);
    assert_eq!(
        (guard.budget_count(), writer.holds_former_budgets()),
        (1, false)
    );
}

#[test]
fn a_guard_that_was_cut_off_is_as_old_as_what_it_reads() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    writer.caught_up();
    let start = now().wall;
    let beat = |writer: &mut GuardWriter, second: i64, arrives: i64| {
        let to = start.plus(second * 1_000);
        let value = |to: UnixMillis| {
            let beat =
                json!({"v": 1, "partition": 0, "complete_to": to, "lag_ms": 10, "version": 1});
            serde_json::to_vec(&beat).unwrap()
        };
        let at = Now {
            wall: start,
            monotonic_millis: arrives,
        };
        for (stage, to) in [("meter", to), ("ledger", to.plus(20))] {
            let key = format!("heartbeat|{stage}|0");
            writer
                .apply(&key, Some(&value(to)), to.plus(10), at)
                .unwrap();
        }
        writer.publish(start);
        guard.state(arrives)
    };
    for second in 0..10 {
        beat(&mut writer, second, second * 1_000 + 15);
    }
    let live = beat(&mut writer, 10, 10_015);
    assert_eq!(live.state.name(), "live");
    // A minute without a network, then all of it at once: what is read first is a minute old.
    for second in 11..=71 {
        let behind = beat(&mut writer, second, 71_020);
        let age = behind.age_millis.unwrap();
        let least = (71 - second).unsigned_abs() * 1_000;
        assert!(age >= least, "{second}: {age}");
    }
    let live = beat(&mut writer, 72, 72_015);
    assert_eq!(live.state.name(), "live");
}

#[test]
fn a_guard_that_was_set_to_too_few_partitions_is_not_live_without_the_others() {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    writer.caught_up();
    let mut beat = |partitions: u32, second: i64| {
        let to = now().wall.plus(second * 1_000);
        for partition in 0..partitions {
            for stage in ["meter", "ledger"] {
                let beat = json!({"v": 1, "partition": partition, "complete_to": to, "lag_ms": 1, "version": 1});
                let beat = serde_json::to_vec(&beat).unwrap();
                let key = format!("heartbeat|{stage}|{partition}");
                writer.apply(&key, Some(&beat), to, now()).unwrap();
            }
        }
        writer.publish(now().wall);
        writer.expect_partitions(2);
        guard.state(0).state.name()
    };
    for second in 0..3 {
        beat(1, second);
    }
    assert_eq!(beat(1, 4), "stale");
    beat(2, 5);
    beat(2, 6);
    assert_eq!(beat(2, 7), "live");
}

#[test]
fn a_full_replica_leaves_out_scopes_that_may_go_on_and_never_one_that_may_not() {
    const NAMES: usize = 100_000;
    let (mut writer, guard) = Guard::new(GuardConfig {
        entry_capacity: 1_000,
        ..GuardConfig::new(1)
    });
    budget(&mut writer, "daily", json!({}));
    let known = entry("1.00", "ok");
    let of = |number: usize| format!("daily|acme/customer=x-{number}");
    let text = String::from_utf8(known.clone()).unwrap();
    for number in 0..NAMES {
        let invented = text.replace("customer=c-42", &format!("customer=x-{number}"));
        writer
            .apply(&of(number), Some(invented.as_bytes()), now().wall, now())
            .unwrap();
        if number % 500 == 0 {
            writer.publish(now().wall);
        }
    }
    writer.publish(now().wall);
    assert_eq!(guard.entry_count(), 1_000);
    writer.apply(KEY, Some(&known), now().wall, now()).unwrap();
    writer
        .apply(KEY, Some(&entry("5.00", "block")), now().wall, now())
        .unwrap();
    writer.publish(now().wall);
    assert_eq!(answer(&guard, &call("0"), now())["decision"], "block");
    // What is known stays known when it may go on again.
    writer.apply(KEY, Some(&known), now().wall, now()).unwrap();
    writer.publish(now().wall);
    let answer = answer(&guard, &call("0"), now());
    assert_eq!(answer["decision"], "allow");
    assert_eq!(answer["budgets"][0]["spent_usd"], "1.00");
    // An end makes room.
    writer.apply(&of(0), None, now().wall, now()).unwrap();
    writer.apply(&of(1), None, now().wall, now()).unwrap();
    writer.publish(now().wall);
    let again = text.replace("customer=c-42", "customer=x-99999");
    writer
        .apply(&of(99_999), Some(again.as_bytes()), now().wall, now())
        .unwrap();
    writer.publish(now().wall);
    assert_eq!(guard.entry_count(), 1_000);
}
