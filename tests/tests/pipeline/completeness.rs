//! What a check shows as counted is counted, and budgets count from the moment that `apply` names.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_domain::{Amount, Nanos, Verdict};
use spendfuse_tests::http;
use spendfuse_tests::lab::Said;
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{GuardView, Lab, PATIENCE, Traffic, eventually, pause};

/// What a call of a thousand input tokens costs.
const ONE_CALL: Amount = Amount::Usd(Nanos::new(35_000));

/// `spendfuse budgets apply`, as a person runs it.
fn apply(lab: &Lab, yaml: &str) -> Said {
    let file = lab.file("by-hand.yaml");
    fs::write(&file, yaml).expect("the folder can be written");
    let file = file.to_str().expect("temporary folders have plain names");
    lab.run(&["budgets", "apply", "--prune", file])
}

fn cap(id: &str, limit: &str) -> String {
    format!(
        "budgets: [{{id: {id}, scope: {{workspace: acme, customer: \"*\"}}, limit: \"{limit}\", window: day}}]"
    )
}

#[test]
fn spend_next_to_a_limit_is_known_before_the_next_estimate() {
    let lab = Lab::new("near_limit");
    lab.apply_budgets(&cap("cap", "0.10"));
    let _processor = lab.processor("1");
    let guard = GuardView::new(&lab);
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 3);
    // 0.099 dollars, then 0.00095 within the same second: less than a hundredth of the limit.
    sender.send(&traffic.call("c-1", "s-1", 2_828_571, 0, 0));
    sender.flush();
    guard.await_verdict("c-1", Verdict::Warn, PATIENCE);
    sender.send(&traffic.call("c-1", "s-1", 27_143, 0, 0));
    sender.flush();
    eventually("the last step is shown", Duration::from_secs(1), || {
        let spent = guard.answer("c-1").budgets[0].figures.spent.unwrap();
        let ok = spent == Amount::Usd(Nanos::new(99_949_990));
        ok.then_some(()).ok_or(spent.to_string())
    });
    let estimate = Nanos::parse_usd("0.0005").unwrap().amount;
    assert_eq!(guard.verdict_for("c-1", estimate), Verdict::Block);
}

#[test]
fn the_first_event_after_an_apply_counts() {
    let lab = Lab::new("after_apply");
    let said = apply(&lab, &cap("cap-0", "1.00"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("no processor runs now"), "{said:?}");

    let processor = lab.processor("1");
    let guard = GuardView::new(&lab);
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 4);
    for round in 1..=3 {
        let said = apply(&lab, &cap(&format!("cap-{round}"), "1.00"));
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.stdout.contains("the next event counts"), "{said:?}");
        sender.send(&traffic.call("c-1", "s-1", 1_000, 0, 0));
        sender.flush();
        eventually("the event counts", PATIENCE, || {
            let answer = guard.answer("c-1");
            let spent = answer.budgets.first().and_then(|line| line.figures.spent);
            let ok = spent == Some(ONE_CALL);
            ok.then_some(()).ok_or(format!("round {round}: {spent:?}"))
        });
    }

    // Who has not is said.
    processor.pause();
    let said = apply(&lab, &cap("cap-4", "1.00"));
    processor.resume();
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in [
        "not in force everywhere",
        "meter partition 0 uses version",
        "ledger partition 3",
    ] {
        assert!(said.stdout.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn an_event_behind_somebodys_open_transaction_is_not_promised() {
    let lab = Lab::new("open_transaction");
    lab.apply_budgets(&cap("cap", "1.00"));
    let _processor = lab.processor("1");
    let guard = GuardView::new(&lab);
    let complete_to = |guard: &GuardView| guard.answer("c-1").complete_to;
    let begun = now();
    eventually("completeness goes on", PATIENCE, || {
        (complete_to(&guard) > Some(begun))
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });

    let record = Traffic::new(&lab, 5).call("c-1", "s-1", 1_000, 0, 0);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", lab.kafka().brokers())
        .set("transactional.id", "somebody-else")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let before = now();
    let topic = lab.topic("usage");
    let native = BaseRecord::<[u8], [u8]>::to(&topic)
        .key(record.key.as_deref().unwrap())
        .payload(&record.value)
        .partition(record.partition.unwrap().cast_signed());
    producer.send(native).unwrap();
    producer.flush(PATIENCE).unwrap();
    let taken = now();
    // Several heartbeats long.
    pause(Duration::from_secs(4));
    let promised = complete_to(&guard).unwrap();
    assert!(
        promised <= taken,
        "{promised} is promised, an event of {taken} is not counted"
    );
    assert!(
        promised.since(before) > -3_000,
        "{promised} was complete before {before}"
    );

    producer.commit_transaction(PATIENCE).unwrap();
    eventually("the event counts", PATIENCE, || {
        (complete_to(&guard) > Some(taken))
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });
    let answer = guard.answer("c-1");
    assert_eq!(answer.budgets[0].figures.spent, Some(ONE_CALL));
}

#[test]
fn a_restarted_sidecar_and_a_command_are_as_fresh_as_the_log() {
    let lab = Lab::new("fresh");
    lab.apply_budgets(
        "budgets: [{id: cap, scope: {workspace: acme}, limit: \"1.00\", window: day, on_stale: block}]",
    );
    let _processor = lab.processor("1");
    let guard = GuardView::new(&lab);
    eventually("the state is live", PATIENCE, || {
        let state = guard.answer("c-1").state;
        (state == "live")
            .then_some(())
            .ok_or_else(|| state.to_owned())
    });
    let said = lab.must(&["check", "--workspace", "acme", "--json"]);
    assert!(said.stdout.contains("\"state\":\"live\""), "{said:?}");
    for round in ["1", "2", "3"] {
        let sidecar = lab.role("sidecar", round, &[("sidecar.listen", "127.0.0.1:0")]);
        let line = sidecar.await_line("the sidecar answers", PATIENCE);
        let address = line.split("address=").nth(1).unwrap();
        let address = address.split_whitespace().next().unwrap().to_owned();
        eventually("the sidecar is live", PATIENCE, || {
            let stream = TcpStream::connect(&address).unwrap();
            let path = "/v1/authz?workspace=acme";
            let answer = http::ask(stream, "GET", path, &[]).unwrap();
            // Never refused, on the way there neither.
            assert_eq!(answer.status, 200, "{}", answer.body);
            let stream = TcpStream::connect(&address).unwrap();
            let state = http::ask(stream, "GET", "/v1/state?workspace=acme", &[]).unwrap();
            let is_live = state.body.contains("\"state\":\"live\"");
            is_live.then_some(()).ok_or(state.body)
        });
        sidecar.stop();
    }
}

#[test]
fn starting_a_processor_makes_no_guard_stale_and_takes_nothing_back() {
    let lab = Lab::new("starting");
    lab.apply_budgets(&cap("cap", "1.00"));
    let first = lab.processor("1");
    let guard = GuardView::new(&lab);
    let age = |guard: &GuardView| guard.answer("c-1").state_age_ms;
    // Where nothing happens a state is two to three seconds old, by when in a second meter and ledger
    // tick; four is well before it is stale.
    eventually("the state is live", PATIENCE, || {
        let answer = age(&guard);
        let fresh = answer.is_some_and(|age| age < 4_000);
        fresh
            .then_some(())
            .ok_or_else(|| format!("{answer:?} ms old"))
    });
    let watch = |what: &str, seconds: u64| {
        let mut known = None;
        let mut oldest = 0;
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            let answer = guard.answer("c-1");
            assert!(
                answer.complete_to >= known,
                "{:?} after {known:?}",
                answer.complete_to
            );
            assert_eq!(answer.state, "live", "{what}: {answer:?}");
            known = answer.complete_to;
            oldest = oldest.max(answer.state_age_ms.unwrap_or(u64::MAX));
            pause(Duration::from_millis(10));
        }
        println!("{what}: the state was at most {oldest} ms old");
    };
    watch("one processor runs", 2);
    let second = lab.processor("2");
    watch("another is started", 6);
    first.stop();
    watch("the first is stopped", 4);
    second.stop();
    let _again = lab.processor("2");
    watch("it is started again", 4);
}
