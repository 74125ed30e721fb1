//! Alerts reach people: by the real binary, real receivers and a real mail server.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_bus::committed_offsets;
use spendfuse_testkit::mail::MailServer;
use spendfuse_testkit::receiver::Receiver;
use spendfuse_tests::deliveries::{Alerts, Plan, run};
use spendfuse_tests::load::Sender;
use spendfuse_tests::{Lab, PATIENCE, Record, Role, eventually, pause};

/// The recipe of docs/notifier.md: 80 % of each user's budget, to two webhooks, by mail where
/// neither answers.
#[test]
fn a_users_budget_reaches_the_next_place_where_those_before_fail() {
    let mut lab = Lab::new("notifier_falls_back");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mail = MailServer::start(&repository, &lab.file("")).expect("the mail server starts");
    let is_down = Arc::new(AtomicBool::new(false));
    let first = {
        let is_down = Arc::clone(&is_down);
        Receiver::start(move |_, _| match is_down.load(Ordering::Relaxed) {
            true => 500,
            false => 200,
        })
    };
    let second = Receiver::start(|_, _| 404);
    let (budgets, settings) = (recipe("yaml", 0), recipe("toml", 0));
    let server = format!(
        "smtp_host = \"127.0.0.1\"\nsmtp_port = {}\nca_file = \"{}\"",
        mail.port(),
        mail.certificate().display()
    );
    let settings = with(&settings, "https://a.example.com/spend", first.url());
    let settings = with(&settings, "https://b.example.com/spend", second.url());
    let settings = with(&settings, "smtp_host = \"smtp.example.com\"", &server);
    let settings = with(&settings, "\"2m\"", "\"1s\"");

    let file = lab.file("budgets.yaml");
    fs::write(&file, budgets).expect("the folder can be written");
    let file = file.to_str().expect("temporary folders have plain names");
    let apply = ["budgets", "apply", file, "--no-wait"];
    let said = lab.run(&apply);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr.contains("hook-a is neither a channel"),
        "{said:?}"
    );
    lab.configure(&settings);
    lab.must(&apply);
    let _processor = lab.processor("1");
    let notifier = start(&lab);

    let sender = Sender::new(&lab);
    sender.send(&call("ada", 1));
    let got = eventually("the first place gets it", PATIENCE, || {
        let got = first.received().into_iter().next();
        got.ok_or_else(|| notifier.log())
    });
    let text = got.body["text"].as_str().expect("it has a text");
    let about = "acme/user=ada reached 80 % of budget per-user";
    assert!(text.contains(about), "{text}");
    assert_eq!(got.body["severity"], "warning");

    is_down.store(true, Ordering::Relaxed);
    sender.send(&call("ada", 2));
    let told = eventually("the mail comes", PATIENCE, || {
        let mut mails = mail.received().into_iter();
        let told = mails.next().map(|received| received.mail);
        told.ok_or_else(|| notifier.log())
    });
    let text = told["plain"].as_str().expect("it has a text");
    assert_eq!(told["to"], json!(["ops@example.com"]));
    assert_eq!(told["secured"], true, "{told:#}");
    for part in [
        "acme/user=ada reached 100 % of budget per-user",
        "Calls are refused",
        "spendfuse budgets apply",
        "hook-a did not take this message: 500",
        "hook-b did not take this message: 404",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(second.received().len(), 1);
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
    assert_eq!(alert["budget"], "per-user");
    let id = alert["id"].as_str().expect("it has an id");
    let shown = lab.must(&["alerts", "show", id]).stdout;
    assert!(
        shown.contains("delivered mailto:ops@example.com"),
        "{shown}"
    );

    lab.must(&["alerts", "test", "mailto:ops@example.com"]);
    let said = lab.run(&["alerts", "test", "hook-b", "--json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("404"), "{said:?}");
}

/// The recipe of docs/notifier.md: a session that runs away, to Slack.
#[test]
fn a_finding_reaches_slack_and_a_muted_scope_nobody() {
    let mut lab = Lab::empty("notifier_slack");
    lab.create_topics();
    let slack = Receiver::start(|_, _| 200);
    let channel = "[notifier.channels.slack-agents]\n";
    let with_url = format!("{channel}url = \"{}\"\n", slack.url());
    lab.configure(&with(&recipe("toml", 1), channel, &with_url));
    let _processor = lab.processor("1");
    let notifier = start(&lab);
    lab.must(&["alerts", "mute", "acme/session=s-9", "--for", "1h"]);
    // Requests come by another topic, whose order to alerts nobody promises.
    pause(Duration::from_secs(1));
    let alerts = Alerts::new(&lab);
    for (session, kind) in [("s-9", "finding"), ("s-1", "capacity")] {
        alerts.send(&format!("acme/session={session}"), kind, 1);
    }
    let sender = Sender::new(&lab);
    for number in 0..5 {
        sender.send(&step("s-2", number));
    }
    let got = eventually("Slack gets it", PATIENCE, || {
        let got = slack.received();
        got.first().cloned().ok_or_else(|| notifier.log())
    });
    let text = got.body["text"].as_str().expect("it has a text");
    // Who and what, in the line that a phone shows.
    assert!(text.contains("acme/session=s-2: the same prompt"), "{text}");
    assert!(got.body.to_string().contains("gpt-4o"), "{:#}", got.body);
    // Alerts of other partitions may be looked at later.
    let outcome = |id: &str| {
        eventually("it is listed", PATIENCE, || {
            let said = lab.must(&["alerts", "list", "--json"]);
            let all: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
            let all = all.as_array().expect("it is a list").clone();
            let scope = format!("acme/session={id}");
            let one = all.into_iter().find(|one| one["scope"] == scope);
            one.ok_or_else(|| said.stdout.clone())
        })
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

/// Requests are kept for a week. What was asked of a notifier that was away for longer stops its partition
/// until somebody accepts that, by the sentence that it prints.
#[test]
fn a_notifier_whose_requests_were_removed_goes_on_once_that_is_accepted() {
    let mut lab = Lab::new("notifier_gaps");
    let slack = Receiver::start(|_, _| 200);
    let channel = "[notifier.channels.slack-agents]\n";
    let with_url = format!("{channel}url = \"{}\"\n", slack.url());
    lab.configure(&with(&recipe("toml", 1), channel, &with_url));
    let requests = lab.topic("notifier.requests");
    let mute = |scope: &str| lab.must(&["alerts", "mute", scope, "--for", "1h"]);
    let position = || {
        let group = "notifier_gaps-notifier";
        let committed = committed_offsets(&lab.kafka_config(), group, &requests, PATIENCE);
        let committed = committed.map_err(|error| error.to_string())?[0];
        committed.ok_or_else(|| "nothing is committed".to_owned())
    };
    let mut notifier = start(&lab);
    mute("acme/session=s-1");
    let read_to = eventually("the request is read", PATIENCE, || match position()? {
        0 => Err(notifier.log()),
        read_to => Ok(read_to),
    });
    notifier.stop();
    mute("acme/session=s-2");
    lab.delete_records(&requests, 0);

    notifier.restart();
    let line = notifier.await_line("spendfuse gaps accept", PATIENCE);
    let (_, command) = line.split_once("`spendfuse ").expect("it names a command");
    let (command, _) = command.split_once('`').expect("the command ends");
    assert_eq!(lab.run(&["gaps", "list"]).code, Some(1));
    lab.must(&command.split(' ').collect::<Vec<_>>());
    notifier.await_line("lost input is accepted", PATIENCE);
    mute("acme/session=s-3");
    eventually("it goes on", PATIENCE, || match position()? {
        now if now > read_to => Ok(()),
        now => Err(format!("at {now}\n{}", notifier.log())),
    });
    assert_eq!(lab.run(&["gaps", "list"]).code, Some(0));
}

/// A slice of `make notify`.
#[test]
fn every_alert_arrives_in_order_though_notifier_and_broker_are_killed() {
    let lab = Lab::for_kills_of_the_broker("notifier_killed");
    lab.create_topics();
    let plan = Plan {
        alerts: 200,
        strikes: 1,
        seed: 1,
    };
    let report = run(&lab, &plan);
    println!("{report}");
    assert!(report.is_well(), "{report}\n{}", report.log);
}

/// The block of docs/notifier.md's recipes in this language, from 0 on.
fn recipe(language: &str, number: usize) -> String {
    let page = include_str!("../../../docs/notifier.md");
    let (_, recipes) = page.split_once("## Recipes\n").expect("it has recipes");
    let (recipes, _) = recipes.split_once("\n## ").expect("a section follows");
    let opening = format!("```{language}\n");
    let block = recipes.split(opening.as_str()).nth(number + 1);
    let (block, _) = block
        .and_then(|block| block.split_once("```"))
        .expect("there is such a block");
    block.to_owned()
}

/// A recipe with this test's own address or time in it.
fn with(recipe: &str, written: &str, own: &str) -> String {
    assert!(recipe.contains(written), "{written} is not in\n{recipe}");
    recipe.replace(written, own)
}

/// A call of a user that costs $4.20.
fn call(user: &str, number: u32) -> Record {
    let usage = json!({"input_tokens": 0, "output_tokens": 420_000});
    let data = json!({"workspace": "acme", "user": user, "provider": "openai", "model": "gpt-4o", "usage": usage});
    event(&format!("{user}-{number}"), user, data)
}

/// A step of a session that asks the same again.
fn step(session: &str, number: u32) -> Record {
    let usage = json!({"input_tokens": 2_000, "output_tokens": 380});
    let data = json!({
        "workspace": "acme", "session": session, "agent": "a-1", "provider": "openai",
        "model": "gpt-4o", "prompt_fingerprint": "9f2c41d0a1b2c3d4", "usage": usage,
    });
    event(&format!("{session}-{number}"), session, data)
}

fn event(id: &str, key: &str, data: Value) -> Record {
    let value = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "tests", "id": id,
        "time": spendfuse_tests::traffic::now().to_string(), "data": data,
    });
    Record {
        partition: None,
        key: Some(key.as_bytes().to_vec()),
        value: value.to_string().into_bytes(),
    }
}

fn start(lab: &Lab) -> Role {
    let role = lab.role("notifier", "1", &[]);
    role.await_line("stage=\"notifier\"", PATIENCE);
    role
}
