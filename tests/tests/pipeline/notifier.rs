//! Alerts reach people: by the real binary, real receivers and a real mail server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spendfuse_bus::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_tests::lab::run_to_end;
use spendfuse_tests::load::Sender;
use spendfuse_tests::receiver::Receiver;
use spendfuse_tests::{Lab, Role, Traffic, eventually, pause};

const PATIENCE: Duration = Duration::from_secs(20);
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);

/// TokenPak's set-up: 80 % of each user's budget, two webhooks, mail where neither takes it.
const BUDGET: &str = "budgets:
  - id: per-customer
    scope: {workspace: acme, customer: \"*\"}
    limit: \"0.000001\"
    window: day
    warn_at: [80]
    action: block
    alert: [hook-a, hook-b, \"mailto:ops@example.com\"]
";

#[test]
fn a_used_up_budget_reaches_the_next_place_where_those_before_fail() {
    let lab = Lab::new("notifier_falls_back");
    let (mail, port, certificate) = mail_server(&lab);
    let (first, second) = (Receiver::start(|_, _| 500), Receiver::start(|_, _| 404));
    let settings = [
        ("notifier.channels.hook-a.kind", "webhook".to_owned()),
        ("notifier.channels.hook-a.url", first.url().to_owned()),
        ("notifier.channels.hook-b.kind", "webhook".to_owned()),
        ("notifier.channels.hook-b.url", second.url().to_owned()),
        ("notifier.smtp_host", "127.0.0.1".to_owned()),
        ("notifier.smtp_port", port.to_string()),
        ("notifier.ca_file", certificate.display().to_string()),
        ("notifier.fall_back_after", "1s".to_owned()),
    ];
    let _processor = lab.processor("1");
    let notifier = start(&lab, &settings);

    let file = lab.file("budgets.yaml");
    fs::write(&file, BUDGET).expect("the folder can be written");
    let file = file.to_str().expect("temporary folders have plain names");
    let apply = ["budgets", "apply", file, "--no-wait"];
    let said = lab.run(&apply);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.stderr.contains("hook-a is neither a channel"),
        "{said:?}"
    );
    let set = arguments(&settings);
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    lab.must(&[&apply[..], &set].concat());

    let mut traffic = Traffic::new(&lab, 1);
    let sender = Sender::new(&lab);
    sender.send(&traffic.call("c-1", "s-1", 2000, 101, 300));
    sender.flush();
    let acknowledged = Instant::now();

    let told = eventually("the mail comes", PATIENCE, || {
        let log = mail.log();
        let mails = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = mails.into_iter().find(|mail| mail["subject"].is_string());
        told.ok_or_else(|| format!("{log}\n{}", notifier.log()))
    });
    let text = told["plain"].as_str().expect("it has a text");
    assert_eq!(told["to"], json!(["ops@example.com"]));
    assert_eq!(told["secured"], true, "{told:#}");
    for part in [
        "acme/customer=c-1 reached 100 % of budget per-customer",
        "Calls are refused",
        "spendfuse budgets apply",
        "hook-a did not take this message: 500",
        "hook-b did not take this message: 404",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let lag = first.received()[0].at.duration_since(acknowledged);
    println!("event acknowledged -> message received: {lag:?}");
    assert!(!first.received().is_empty() && second.received().len() == 1);
    let id = &second.received()[0].id;
    assert_eq!(told["id"], format!("<{id}@spendfuse>"));

    let alert = eventually("the delivery is known", PATIENCE, || {
        let said = lab.must(&["alerts", "list", "--json"]);
        let all: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        match all[0]["messages"][0]["state"] == "delivered" {
            true => Ok(all[0].clone()),
            false => Err(format!("{all:#}")),
        }
    });
    assert_eq!(alert["budget"], "per-customer");
    let id = alert["id"].as_str().expect("it has an id");
    let shown = lab.must(&["alerts", "show", id]).stdout;
    assert!(
        shown.contains("delivered mailto:ops@example.com"),
        "{shown}"
    );

    let test = ["alerts", "test", "mailto:ops@example.com"];
    lab.must(&[&test[..], &set].concat());
    let test = ["alerts", "test", "hook-b", "--json"];
    let said = lab.run(&[&test[..], &set].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("404"), "{said:?}");
}

/// Apeiros' set-up: what a session does, to Slack.
#[test]
fn a_finding_reaches_slack_and_a_muted_scope_nobody() {
    let lab = Lab::empty("notifier_slack");
    lab.create_topics();
    let slack = Receiver::start(|_, _| 200);
    let settings = [
        ("notifier.channels.slack.kind", "slack".to_owned()),
        ("notifier.channels.slack.url", slack.url().to_owned()),
        ("notifier.routes.runaways.to", "slack".to_owned()),
        ("notifier.routes.runaways.kinds", "finding".to_owned()),
    ];
    let notifier = start(&lab, &settings);
    lab.must(&["alerts", "mute", "acme/session=s-9", "--for", "1h"]);
    // Requests come by another topic, whose order to alerts nobody promises.
    pause(Duration::from_secs(1));
    let alerts = Alerts::new(&lab);
    for (session, kind) in [("s-9", "finding"), ("s-1", "capacity"), ("s-2", "finding")] {
        alerts.send(&format!("acme/session={session}"), kind, 1);
    }
    let got = eventually("Slack gets it", PATIENCE, || {
        let got = slack.received();
        got.first().cloned().ok_or_else(|| notifier.log())
    });
    let text = got.body["text"].as_str().expect("it has a text");
    assert!(text.contains("acme/session=s-2"), "{text}");
    let outcome = |id: &str| {
        let said = lab.must(&["alerts", "list", "--json"]);
        let all: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        let all = all.as_array().expect("it is a list").clone();
        let one = all
            .into_iter()
            .find(|one| one["scope"] == format!("acme/session={id}"));
        one.expect("it is listed")
    };
    assert_eq!(outcome("s-9")["untold"], "muted");
    assert_eq!(outcome("s-1")["untold"], "no_route");
    let id = outcome("s-9")["id"]
        .as_str()
        .expect("it has an id")
        .to_owned();
    lab.must(&["alerts", "resend", &id]);
    eventually("Slack gets it again", PATIENCE, || {
        let got = slack.received();
        let is_there = got.iter().any(|one| one.body.to_string().contains("s-9"));
        is_there.then_some(()).ok_or_else(|| notifier.log())
    });
    assert_eq!(slack.received().len(), 2, "{:#?}", slack.received());
}

#[test]
fn every_alert_arrives_in_order_though_the_notifier_is_killed() {
    killed("notifier_killed", 200, 3);
}

/// `cargo test --release -p spendfuse-tests --test pipeline -- --ignored notifier`.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_alerts_arrive_in_order_through_thirty_kills_of_notifier_and_broker() {
    killed("notifier_killed_often", 10_000, 30);
}

fn killed(name: &str, count: usize, kills: usize) {
    const EACH_SCOPE: usize = 4;
    let lab = Lab::empty(name);
    lab.create_topics();
    // Half of the requests fail, in an order that no message follows; none fails so often that its
    // pauses are longer than a test may take.
    let failed: Mutex<BTreeMap<String, u32>> = Mutex::default();
    let hook = Receiver::start(move |number, id| {
        let mut failed = failed.lock().expect("no test panics here");
        let times = failed.entry(id.to_owned()).or_default();
        let fails = *times < 3 && ((number * 40_503) >> 8) % 2 == 1;
        *times += u32::from(fails);
        if fails { 503 } else { 200 }
    });
    let settings = [
        ("notifier.channels.hook.kind", "webhook".to_owned()),
        ("notifier.channels.hook.url", hook.url().to_owned()),
        ("notifier.routes.all.to", "hook".to_owned()),
        ("notifier.storm", "100000".to_owned()),
    ];
    let mut notifier = start(&lab, &settings);
    let alerts = Alerts::new(&lab);
    for kill in 0..kills {
        for number in count * kill / kills..count * (kill + 1) / kills {
            let scope = format!("acme/customer=c-{}", number % (count / EACH_SCOPE));
            alerts.send(&scope, "conflict", number);
        }
        alerts.flush();
        pause(Duration::from_millis(400));
        notifier.kill();
        if kill % 3 == 2 {
            lab.kafka().kill(0);
            lab.kafka().restart(0).expect("the broker starts again");
            lab.kafka().wait_ready().expect("it gets ready");
        }
        notifier.restart();
    }
    let patience = Duration::from_secs(60 + count as u64 / 50);
    eventually("every alert arrives", patience, || {
        let missing = count - numbers(&hook).len();
        match missing {
            0 => Ok(()),
            _ => Err(format!("{missing} of {count} are missing")),
        }
    });
    eventually("every delivery is known", PATIENCE, || {
        let said = lab.must(&["alerts", "list", "--untold", "--json"]);
        let untold: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        match untold.as_array().map_or(0, Vec::len) {
            0 => Ok(()),
            count => Err(format!("{count} alerts are listed as untold")),
        }
    });
    let mut ids: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let (mut known, mut repeated) = (BTreeSet::new(), 0);
    for one in hook.received().into_iter().filter(|one| one.status == 200) {
        // A receiver drops what it knows by its id.
        if !known.insert(one.id.clone()) {
            repeated += 1;
            continue;
        }
        for alert in one.body["alerts"].as_array().expect("it has alerts") {
            let (number, scope) = (number_of(alert), alert["scope"].to_string());
            ids.entry(number).or_default().insert(one.id.clone());
            let before = last.insert(scope, number).unwrap_or(-1);
            assert!(before < number, "{number} came after {before}");
        }
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "told under two ids");
    println!("{count} alerts, {kills} kills, {repeated} repeats of taken messages, by their ids");
    // At most what was under way at a kill: 16 attempts in each of 4 partitions.
    assert!(repeated <= kills * 64, "{repeated} repeats");
}

/// The alerts that the receiver has taken.
fn numbers(hook: &Receiver) -> BTreeSet<i64> {
    let taken = hook.received().into_iter().filter(|one| one.status == 200);
    let alerts = taken.flat_map(|one| one.body["alerts"].as_array().cloned().unwrap_or_default());
    alerts.map(|alert| number_of(&alert)).collect()
}

fn number_of(alert: &Value) -> i64 {
    let number = alert["subject"].as_str().and_then(|text| text.parse().ok());
    number.expect("the subject is its number")
}

/// Writes alerts as a processor would.
struct Alerts {
    producer: EventProducer,
    topic: String,
}

impl Alerts {
    fn new(lab: &Lab) -> Self {
        let options = ProducerOptions {
            // Longer than any restart of a broker.
            delivery_timeout: Duration::from_secs(60),
            ..ProducerOptions::default()
        };
        let producer = EventProducer::open(&lab.kafka_config(), &options);
        Self {
            producer: producer.expect("a producer can be made"),
            topic: lab.topic("alerts"),
        }
    }

    fn send(&self, scope: &str, kind: &str, number: usize) {
        let value = json!({
            "v": 1, "key": format!("{kind}|{scope}|{number}"), "kind": kind, "severity": "warning",
            "scope": scope, "subject": number.to_string(), "at": spendfuse_tests::traffic::now(),
            "message": format!("{scope}: alert {number}"),
        });
        let value = value.to_string();
        let record = EventRecord {
            topic: &self.topic,
            // Partitioned by scope, as the ledger's are.
            partition: None,
            key: Some(scope.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        let sent = self.producer.send(&record, |outcome| {
            outcome.expect("the broker takes it");
        });
        sent.expect("the record is taken");
    }

    fn flush(&self) {
        let flushed = self.producer.flush(Duration::from_secs(60));
        flushed.expect("the broker takes all");
    }
}

fn arguments(settings: &[(&str, String)]) -> Vec<String> {
    let each = settings.iter();
    each.flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
        .collect()
}

fn start(lab: &Lab, settings: &[(&str, String)]) -> Role {
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let role = lab.role("notifier", "1", &settings);
    role.await_line("stage=\"notifier\"", Duration::from_secs(30));
    role
}

/// A mail server that wants STARTTLS: itself, its port and its certificate.
fn mail_server(lab: &Lab) -> (Role, u16, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
    let made = made.expect("a certificate can be made");
    let (certificate, key) = (lab.file("mail.pem"), lab.file("mail.key"));
    fs::write(&certificate, made.cert.pem()).expect("the folder can be written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("the folder can be written");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut install = Command::new(repository.join("scripts/python-venv"));
    install.arg(repository.join("tests/mail/requirements.txt"));
    let said = run_to_end(install, &lab.file("python-venv"), INSTALL_PATIENCE);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let arguments = [
        repository.join("tests/mail/server.py"),
        certificate.clone(),
        key,
    ];
    let server = Role::start(
        "mail server",
        Path::new(said.stdout.trim()).join("bin/python"),
        arguments.map(|one| one.display().to_string()).into(),
        lab.file("mail.log"),
    );
    let began = Instant::now();
    let line = server.await_line("\"port\"", Duration::from_secs(20));
    let said: Value = serde_json::from_str(&line).expect("it is JSON");
    let port = said["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    println!("mail server after {:?}", began.elapsed());
    (server, port.expect("it is a port"), certificate)
}
