//! A call that is told of several times, each time with more: in sum it counts once, as the largest
//! says, in rows, budgets and audit, through a kill of the meter and through its own late echoes.

use serde_json::{Value, json};
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, Record, eventually};

const BUDGETS: &str = r#"
budgets:
  - {id: cap, scope: {workspace: acme}, limit: "0.02", window: lifetime}
  - {id: few, scope: {workspace: acme}, limit_calls: 10, window: lifetime}
  - {id: a-run, scope: {workspace: acme}, limit: "0.02", window: session}
"#;

/// A message of an agent as its log has it while it is written.
fn message(id: &str, output: u32, more: &Value) -> Vec<u8> {
    let mut data = json!({
        "workspace": "acme", "provider": "anthropic", "model": "claude-sonnet-4-5",
        "session": "run-1", "usage_format": "anthropic.messages",
        "usage": {"input_tokens": 400, "output_tokens": output}
    });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more.clone());
    }
    let event = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "agent-log", "id": id,
        "time": now().to_string(), "data": data
    });
    event.to_string().into_bytes()
}

struct Log<'a> {
    lab: &'a Lab,
    sender: Sender,
}

impl Log<'_> {
    /// Sends messages to `partition`, one after the other.
    fn send(&self, partition: i32, values: impl IntoIterator<Item = Vec<u8>>) {
        for value in values {
            self.sender.send(&Record {
                partition: Some(partition as u32),
                key: None,
                value,
            });
        }
        self.sender.flush();
    }

    /// Waits until `sql` says `expected`.
    fn await_rows(&self, what: &str, sql: &str, expected: &[&str]) {
        eventually(what, PATIENCE, || {
            let rows = self.lab.warehouse().rows(sql)?;
            match rows.first() {
                Some(row) if row == expected => Ok(()),
                _ => Err(format!("{rows:?}")),
            }
        });
    }
}

#[test]
fn a_call_whose_counts_grow_counts_once_as_its_largest() {
    let lab = Lab::new("growing");
    lab.apply_budgets(BUDGETS);
    let mut processor = lab.processor("1");
    let _loader = lab.loader();
    let log = Log {
        lab: &lab,
        sender: Sender::new(&lab),
    };
    let none = json!({});
    let sums = "SELECT sum(calls), sum(output_tokens), sum(input_tokens), toString(sum(cost)) FROM spend \
        WHERE event_id = 'msg-1'";
    log.send(0, [message("msg-1", 5, &none)]);
    // 3 dollars a million in, 15 out.
    log.await_rows("the first piece", sums, &["1", "5", "400", "0.001275"]);
    log.send(1, [message("msg-1", 120, &none)]);
    log.await_rows("the second piece", sums, &["1", "120", "400", "0.003"]);
    processor.kill();
    processor.restart();
    // The whole, and late copies of the pieces by other ways.
    let late = [380, 120, 5, 380].map(|output| message("msg-1", output, &none));
    log.send(2, late);
    log.await_rows("the whole", sums, &["1", "380", "400", "0.0069"]);

    // An estimate gives way to what the provider says, though that is less.
    let estimate = json!({"usage_format": "estimated"});
    log.send(0, [message("msg-2", 4_000, &estimate)]);
    log.send(0, [message("msg-2", 100, &none)]);
    let of_second = sums.replace("msg-1", "msg-2");
    log.await_rows("the exact one", &of_second, &["1", "100", "400", "0.0027"]);
    // Another model is another call: told to people, not counted.
    log.send(
        0,
        [message("msg-1", 900, &json!({"model": "claude-opus-4-1"}))],
    );
    log.send(0, [message("msg-3", 100, &none)]);
    let of_third = sums.replace("msg-1", "msg-3");
    log.await_rows("one more", &of_third, &["1", "100", "400", "0.0027"]);
    log.await_rows("nothing else", sums, &["1", "380", "400", "0.0069"]);

    let rows = "SELECT kind, calls, output_tokens, amends_id, amends_seq > 0 FROM spend \
        WHERE event_id = 'msg-1' ORDER BY meter_seq";
    let rows = lab.warehouse().rows(rows).expect("it is asked");
    let expected = [
        ["usage", "1", "5", "", "0"],
        ["correction", "0", "115", "msg-1", "1"],
        ["correction", "0", "260", "msg-1", "1"],
    ];
    assert_eq!(rows, expected);
    for (budget, spent) in [("cap", json!("0.0123")), ("few", json!(3))] {
        let status = lab.must(&["budgets", "status", "--budget", budget, "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).expect("it is JSON");
        let scope = &status["scopes"][0];
        let found = scope.get("spent_usd").or_else(|| scope.get("spent_calls"));
        assert_eq!(found, Some(&spent), "{scope:#}");
    }
    let session = lab.table("blocklist");
    let session = &session["a-run|acme/session=run-1"];
    assert_eq!(session["spent_usd"], "0.0123", "{session:#}");
    // A command that sends pieces of a message says so.
    let file = lab.file("pieces.ndjson");
    let pieces = [5, 120, 380, 120].map(|output| message("msg-4", output, &none));
    let whole = message("msg-1", 400, &none);
    let pieces: Vec<String> = { pieces.iter().chain([&whole]) }
        .map(|line| format!("{}\n", String::from_utf8_lossy(line)))
        .collect();
    std::fs::write(&file, pieces.concat()).expect("it is written");
    let done = lab.must(&["ingest", file.to_str().expect("it is text"), "--json"]);
    let done: Value = serde_json::from_str(&done.stdout).expect("it is JSON");
    let outcome = ["counted", "grown", "duplicates"].map(|name| &done["outcome"][name]);
    // What more was told of a message of before is counted.
    assert_eq!(outcome, [2, 2, 1], "{done:#}");
    // The same log, of three days ago.
    let old = now().plus(-3 * 24 * 3_600_000).to_string();
    let lines = [5, 120, 380, 120].map(|output| {
        let mut line: Value =
            serde_json::from_slice(&message("old-1", output, &none)).expect("it is JSON");
        line["time"] = json!(old);
        format!("{line}\n")
    });
    let file = lab.file("log.ndjson");
    std::fs::write(&file, lines.concat()).expect("it is written");
    let file = file.to_str().expect("it is text");
    let done = lab.must(&["ingest", file, "--backfill", "--json"]);
    let done: Value = serde_json::from_str(&done.stdout).expect("it is JSON");
    let counts = ["not_counted_before", "grown", "already_counted"].map(|name| &done[name]);
    assert_eq!(counts, [1, 2, 1], "{done:#}");
    assert_eq!(done["cost_usd"], "0.0069", "{done:#}");
    let of_old = sums.replace("msg-1", "old-1");
    log.await_rows("history", &of_old, &["1", "380", "400", "0.0069"]);
    lab.assert_no_drift();
}
