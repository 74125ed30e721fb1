//! `ingest --backfill`: history is counted once, whoever is killed, and nobody is told.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use spendfuse_tests::lab::spendfuse;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, eventually};

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
const HISTORY: usize = 3_000;
/// Calls of the last hour that an app has sent already.
const LIVE: usize = 20;
const BUDGETS: &str = r#"
budgets:
  - {id: ever, scope: {workspace: acme}, limit: "5.00", window: lifetime, warn_at: [50]}
  - {id: daily, scope: {workspace: acme, customer: "*"}, limit: "1.00", window: day}
  - {id: a-run, scope: {workspace: acme}, limit: "0.01", window: session}
"#;

/// One call of a session that says the same prompt again and again.
fn line(id: &str, number: usize, age_millis: i64) -> String {
    let event = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "history", "id": id,
        "time": now().plus(-age_millis).to_string(),
        "data": {"workspace": "acme", "customer": format!("c-{}", number % 5),
                 "session": format!("s-{}", number % 40), "prompt_fingerprint": "9f2c41d0a1b2c3d4",
                 "provider": "openai", "model": "gpt-4o", "usage": {"input_tokens": 1000 + number}},
    });
    format!("{event}\n")
}

/// Three weeks, half a minute to twenty a call.
fn history(count: usize) -> impl Iterator<Item = String> {
    let step = 21 * DAY_MILLIS / count as i64;
    (0..count).map(move |number| {
        let age = 3 * DAY_MILLIS + number as i64 * step;
        line(&format!("old-{number}"), number, age)
    })
}

fn answer(lab: &Lab, arguments: &[&str], code: i32) -> Value {
    let said = lab.run(arguments);
    assert_eq!(said.code, Some(code), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

fn backfill(lab: &Lab, file: &Path, more: &[&str]) -> Value {
    let mut arguments = vec!["ingest", file.to_str().unwrap(), "--backfill", "--json"];
    arguments.extend(more);
    answer(lab, &arguments, 0)
}

fn rows(lab: &Lab) -> (i128, i128, String) {
    let sql = "SELECT count(), uniqExact(event_id), toString(sum(cost)) FROM spend";
    let rows = lab.warehouse().rows(sql).unwrap();
    let number = |place: usize| rows[0][place].parse().unwrap();
    (number(0), number(1), rows[0][2].clone())
}

/// Begins to backfill `lines`, and is killed once some of them are counted.
fn kill_in_the_middle(lab: &Lab, lines: &[String]) {
    let mut command = Command::new(spendfuse())
        .args(["ingest", "-", "--backfill"])
        .args(lab.setting_arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = command.stdin.take().unwrap();
    let before = rows(lab).0;
    let (first, rest) = lines.split_at(lines.len() / 2);
    input.write_all(first.concat().as_bytes()).unwrap();
    let mut rest = rest.iter();
    eventually("some history is counted", PATIENCE, || {
        // A line now and then: what has come within a second is judged when another comes.
        input.write_all(rest.next().unwrap().as_bytes()).unwrap();
        match rows(lab).0 {
            found if found > before => Ok(()),
            _ => Err("none".to_owned()),
        }
    });
    command.kill().unwrap();
    command.wait().unwrap();
}

#[test]
fn history_counts_once_through_a_kill_and_tells_nobody() {
    let lab = Lab::new("backfill");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    // What an app has sent itself, one session a call.
    let live: Vec<String> = (0..LIVE)
        .map(|number| line(&format!("new-{number}"), number, 3_600_000))
        .collect();
    let history: Vec<String> = history(HISTORY).collect();
    let (sent, all) = (lab.file("sent.ndjson"), lab.file("all.ndjson"));
    std::fs::write(&sent, live.concat()).unwrap();
    std::fs::write(&all, format!("{}{}", live.concat(), history.concat())).unwrap();
    lab.must(&["ingest", sent.to_str().unwrap()]);
    let alerts_of_live = lab.read("alerts").len();

    let would = backfill(&lab, &all, &["--dry-run"]);
    assert_eq!(would["already_counted"], LIVE, "{would:#}");
    assert_eq!(would["not_counted_before"], HISTORY, "{would:#}");
    let verdicts = would["verdicts"].as_array().unwrap();
    let [ever] = &verdicts[..] else {
        panic!("one budget has an open window that history reaches: {would:#}");
    };
    assert_eq!(
        (&ever["budget"], &ever["to"]),
        (&json!("ever"), &json!("block"))
    );
    assert_eq!(rows(&lab).0, LIVE as i128, "nothing was sent");

    kill_in_the_middle(&lab, &history);
    let done = backfill(&lab, &all, &[]);
    let (known, fresh) = (&done["already_counted"], &done["not_counted_before"]);
    assert!(known.as_u64() > Some(LIVE as u64), "{done:#}");
    let judged = known.as_u64().unwrap() + fresh.as_u64().unwrap();
    assert_eq!(judged, (LIVE + HISTORY) as u64);
    assert_eq!(done["outcome"]["late"], 0, "{done:#}");
    let counted = rows(&lab);
    assert_eq!((counted.0, counted.1), (judged as i128, judged as i128));
    let again = backfill(&lab, &all, &[]);
    assert_eq!(again["not_counted_before"], 0, "{again:#}");
    assert_eq!(rows(&lab), counted);

    // The budget without an end holds all of it, to the last digit.
    let total: f64 = counted.2.parse().unwrap();
    assert!(total > 5.0, "the limit is reached: {total}");
    eventually("the budget has it all", PATIENCE, || {
        let status = answer(
            &lab,
            &["budgets", "status", "--budget", "ever", "--json"],
            0,
        );
        let scope = &status["scopes"][0];
        let spent = scope["spent_usd"].as_str().unwrap_or_default();
        match spent.trim_end_matches('0') == counted.2.trim_end_matches('0') {
            true if scope["verdict"] == "block" => Ok(()),
            _ => Err(format!("{scope:#}")),
        }
    });
    let alerts = lab.read("alerts");
    assert_eq!(alerts.len(), alerts_of_live, "nobody is told");
    let of_history = "SELECT countIf(has(flags, 'backfilled')) FROM spend";
    assert_eq!(
        lab.warehouse().numbers(of_history).unwrap(),
        [HISTORY as i128]
    );
    let audit = answer(&lab, &["audit", "--json"], 0);
    assert_eq!(audit["drift_events"], 0, "{audit:#}");
}

#[test]
fn two_backfills_of_a_new_source_at_once_count_each_event_once() {
    const REPEATED: usize = 100;
    let lab = Lab::new("backfill_at_once");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let file = lab.file("new.ndjson");
    let mut lines: Vec<String> = history(HISTORY).collect();
    lines.extend_from_within(..REPEATED);
    std::fs::write(&file, lines.concat()).unwrap();
    let start = || {
        Command::new(spendfuse())
            .args(["ingest", file.to_str().unwrap(), "--backfill", "--json"])
            .args(lab.setting_arguments())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for run in [start(), start()] {
        let output = run.wait_with_output().unwrap();
        let done: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(done["events"], lines.len(), "{done:#}");
        let known = done["already_counted"].as_u64().unwrap();
        assert!(known >= REPEATED as u64, "{done:#}");
        let fresh = done["not_counted_before"].as_u64().unwrap();
        assert_eq!(known + fresh, lines.len() as u64, "{done:#}");
        assert_eq!(done["outcome"]["late"], 0, "{done:#}");
    }
    let found = rows(&lab);
    assert_eq!((found.0, found.1), (HISTORY as i128, HISTORY as i128));
    let again = backfill(&lab, &file, &[]);
    assert_eq!(again["already_counted"], lines.len(), "{again:#}");
    lab.assert_no_drift();
}

/// `cargo test --release -p spendfuse-tests --test pipeline -- --ignored --nocapture last_month`
#[test]
#[ignore = "a measurement of minutes, for a quiet machine"]
fn a_million_events_of_last_month_are_counted_at_50_000_a_second() {
    const EVENTS: usize = 1_000_000;
    let lab = Lab::for_measurement("backfill_speed");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let file = lab.file("month.ndjson");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    for line in history(EVENTS) {
        out.write_all(line.as_bytes()).unwrap();
    }
    out.flush().unwrap();
    let mut slowest = f64::MAX;
    for (run, fresh) in [("first", EVENTS), ("second", 0)] {
        let begin = Instant::now();
        let done = run_long(&lab, &file);
        let seconds = begin.elapsed().as_secs_f64();
        let rate = EVENTS as f64 / seconds;
        println!("{run}: {seconds:.1} s from start to the last row, {rate:.0} events/s: {done:#}");
        slowest = slowest.min(rate);
        assert_eq!(done["not_counted_before"], fresh, "{done:#}");
        let found = rows(&lab);
        assert_eq!((found.0, found.1), (EVENTS as i128, EVENTS as i128));
    }
    let audit = answer(&lab, &["audit", "--json"], 0);
    assert_eq!(audit["drift_events"], 0, "{audit:#}");
    assert!(slowest >= 50_000.0, "{slowest:.0} events/s");
}

/// As [`backfill`], without the patience of a test.
fn run_long(lab: &Lab, file: &Path) -> Value {
    let run = Command::new(spendfuse())
        .args(["ingest", file.to_str().unwrap(), "--backfill", "--json"])
        .args(lab.setting_arguments())
        .output()
        .unwrap();
    serde_json::from_slice(&run.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&run.stderr)))
}
