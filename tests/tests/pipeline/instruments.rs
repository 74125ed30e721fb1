//! One call that several instruments tell of: an SDK that knows its session, a proxy that knows the
//! customer, a gateway with a session of its own. In whatever order, it counts once in the end, with
//! all that they tell, in rows, budgets and audit, also where the loader is killed meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_tests::load::Sender;
use spendfuse_tests::random::Random;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, Record, eventually, pause};

const PATIENCE: Duration = Duration::from_secs(90);
/// As a real client would send them: far enough apart for the loader to look in between.
const APART: Duration = Duration::from_secs(12);
const CALLS: usize = 24;
const BUDGETS: &str = r#"
budgets:
  - {id: all, scope: {workspace: acme}, limit: "1000", window: lifetime}
  - {id: each, scope: {workspace: acme, customer: "*"}, limit: "1000", window: month}
  - {id: parts, scope: {workspace: acme, feature: "*"}, limit_calls: 1000, window: day}
"#;

/// What each of them knows beside the call itself.
fn instruments(call: usize) -> [Value; 3] {
    [
        json!({"session": format!("run-{call}"), "feature": "search", "tags": {"sdk": "python"}}),
        json!({"customer": format!("c-{}", call % 3), "environment": "production"}),
        json!({"session": format!("gateway-{call}"), "agent": "planner", "tags": {"route": "eu"}}),
    ]
}

fn event(call: usize, knows: &Value) -> Record {
    let mut data = json!({
        "workspace": "acme", "provider": "openai", "model": "gpt-4o-mini",
        "usage": {"input_tokens": 1000 + call}
    });
    if let (Value::Object(data), Value::Object(knows)) = (&mut data, knows) {
        data.extend(knows.clone());
    }
    let event = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "openai",
        "id": format!("resp-{call}"), "time": now().to_string(), "data": data
    });
    Record {
        partition: Some(call as u32 % 4),
        key: None,
        value: event.to_string().into_bytes(),
    }
}

/// Calls that are not as they should be, and how they are.
fn wrong(lab: &Lab) -> Result<Vec<Vec<String>>, String> {
    lab.warehouse().rows(
        "SELECT call, standing FROM (\
           SELECT call, groupArrayIf((customer, feature, environment, agent, known, n, t), n != 0) AS standing \
           FROM (SELECT if(amends_seq > 0, amends_id, event_id) AS call, customer, feature, environment, \
                        agent, length(tags) AS known, sum(calls) AS n, sum(input_tokens) AS t \
                 FROM spend GROUP BY ALL) GROUP BY call) \
         WHERE length(standing) != 1 OR standing[1].2 != 'search' OR standing[1].3 != 'production' \
            OR standing[1].4 != 'planner' OR standing[1].5 != 2 OR standing[1].6 != 1 \
            OR standing[1].1 != concat('c-', toString(toUInt32(splitByChar('-', call)[2]) % 3)) \
            OR standing[1].7 != 1000 + toUInt32(splitByChar('-', call)[2]) LIMIT 5",
    )
}

#[test]
fn a_call_of_three_instruments_counts_once_with_all_that_they_tell() {
    let lab = Lab::new("instruments");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let mut loader = lab.loader();
    let sender = Sender::new(&lab);
    let mut random = Random::new(7, 0);
    // Half of the calls are told of at once by all, the others by one after the other.
    let mut later: Vec<Vec<Record>> = vec![Vec::new(), Vec::new()];
    for call in 0..CALLS {
        let mut told: Vec<Record> = instruments(call)
            .iter()
            .map(|one| event(call, one))
            .collect();
        for place in (1..told.len()).rev() {
            told.swap(place, random.below(place as u64 + 1) as usize);
        }
        let mut told = told.into_iter();
        sender.send(&told.next().expect("three"));
        for (turn, record) in told.enumerate() {
            match call % 2 {
                0 => sender.send(&record),
                _ => later[turn].push(record),
            }
        }
    }
    sender.flush();
    for records in later {
        pause(APART);
        loader.kill();
        records.iter().for_each(|record| sender.send(record));
        sender.flush();
        loader.restart();
    }
    eventually("every call counts once, with all", PATIENCE, || {
        let calls = lab.warehouse().numbers("SELECT sum(calls) FROM spend")?;
        match (wrong(&lab)?, calls[0]) {
            (wrong, calls) if wrong.is_empty() && calls == CALLS as i128 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    lab.assert_no_drift_anywhere();
    // Nobody had to be told, and a fourth telling changes nothing.
    let rows = "SELECT count() FROM spend";
    let before = lab.warehouse().numbers(rows).expect("rows");
    for call in 0..CALLS {
        sender.send(&event(call, &instruments(call)[call % 3]));
    }
    sender.flush();
    pause(APART);
    let calls = lab.warehouse().numbers("SELECT sum(calls) FROM spend");
    assert_eq!(calls.expect("rows"), [CALLS as i128]);
    assert_eq!(lab.warehouse().numbers(rows).expect("rows"), before);
    let alerts = lab.read("alerts").into_iter();
    let alerts = alerts.filter_map(|alert| serde_json::from_slice::<Value>(&alert.value?).ok());
    let told: Vec<Value> = alerts
        .filter(|alert| {
            ["counted_twice", "conflict"]
                .iter()
                .any(|kind| alert["kind"] == *kind)
        })
        .collect();
    assert!(told.is_empty(), "{told:#?}");
}
