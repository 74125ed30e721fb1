//! Channels against receivers that fail in every way.
#![allow(clippy::unwrap_used)] // a panic here is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::generate_simple_self_signed;
use serde_json::Value;
use spendfuse_domain::budget::BasisPoints;
use spendfuse_domain::rates::Rates;
use spendfuse_domain::{Amount, Figures, Nanos, Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};
use spendfuse_notify::letter::{Letter, Passed, What};
use spendfuse_notify::rules::Outcome;
use spendfuse_notify::{Channel, ChannelKind, Channels};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

const TIMEOUT: Duration = Duration::from_millis(700);

/// A receiver that says `answer` once and closes; `None` says nothing. Returns its address and what
/// it got.
async fn receiver(answer: Option<&'static str>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part).await.unwrap_or_default();
            got.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&got);
            let body = text.split_once("\r\n\r\n").map(|(head, body)| {
                let length = head.lines().find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                });
                (length.unwrap().parse::<usize>().unwrap(), body.len())
            });
            if read == 0 || body.is_some_and(|(length, has)| has >= length) {
                break;
            }
        }
        match answer {
            Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
            None => tokio::time::sleep(TIMEOUT * 4).await,
        }
        String::from_utf8(got).unwrap()
    });
    (address, serving)
}

fn channels(kind: ChannelKind, url: &str) -> Channels {
    let channel = Channel {
        kind,
        url: url.to_owned(),
        secret: "s3cret".to_owned(),
    };
    let named = BTreeMap::from([("ops".to_owned(), channel)]);
    Channels::new(named, None, None, TIMEOUT).unwrap()
}

fn alert() -> Alert {
    let dollars = |cents: i128| Amount::Usd(Nanos::new(cents * 10_000_000));
    Alert {
        v: 1,
        key: "cap|acme/customer=c-42|1795323600000|10000".to_owned(),
        kind: AlertKind::BudgetStep,
        severity: Severity::Critical,
        scope: "acme/customer=<c-42>*&".to_owned(),
        subject: "cap".to_owned(),
        message: "acme/customer=<c-42>*& reached 100 % of budget cap\u{1b}[31m".to_owned(),
        at: UnixMillis(1_795_342_531_320),
        count: None,
        details: AlertDetails {
            budget: Some("cap".to_owned()),
            step: Some(BasisPoints(10_000)),
            action: Some("block".to_owned()),
            ends_at: Some(UnixMillis(1_795_410_000_000)),
            figures: Figures::new(dollars(401), dollars(500)),
            rates: Rates {
                hour: Some(Amount::Usd(Nanos::new(1_239_600_000))),
                five_minutes: Some(dollars(792)),
            },
            exhausts_at: Some(UnixMillis(1_795_342_981_320)),
            ..AlertDetails::default()
        },
    }
}

fn letter() -> Letter {
    Letter {
        id: "8f2b6c1d0e9a7743".to_owned(),
        what: What::New,
        route: "all".to_owned(),
        to: "ops".to_owned(),
        alerts: vec![alert()],
        over: BTreeSet::new(),
        passed: vec![Passed {
            to: "hook".to_owned(),
            reason: "503".to_owned(),
        }],
        created_at: UnixMillis(1_795_342_531_400),
    }
}

async fn outcome(answer: Option<&'static str>) -> Outcome {
    let (url, _serving) = receiver(answer).await;
    channels(ChannelKind::Webhook, &url).send(&letter()).await
}

fn is_later(outcome: &Outcome, says: &str) -> bool {
    matches!(outcome, Outcome::Later { reason, after: None } if reason.contains(says))
}

#[tokio::test]
async fn every_answer_means_what_the_receiver_meant() {
    let ok = outcome(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
    assert_eq!(ok, Outcome::Delivered);
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf";
    assert_eq!(outcome(Some(cut)).await, Outcome::Delivered, "it said yes");
    let asked = "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    match outcome(Some(asked)).await {
        Outcome::Later { after, .. } => assert_eq!(after, Some(Duration::from_secs(7))),
        other => panic!("{other:?}"),
    }
    let busy = outcome(Some("HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n")).await;
    assert!(is_later(&busy, "429"), "{busy:?}");
    let broken = outcome(Some("HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\nno\u{7}")).await;
    assert!(is_later(&broken, "500"), "{broken:?}");
    let half = outcome(Some("HTTP/1.1 200")).await;
    assert!(is_later(&half, ""), "{half:?}");
    let garbage = outcome(Some("SSH-2.0-OpenSSH\r\n\r\n")).await;
    assert!(is_later(&garbage, ""), "{garbage:?}");
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let gone = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
    for answer in [moved, gone] {
        let refused = outcome(Some(answer)).await;
        assert!(matches!(refused, Outcome::Refused { .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn who_hangs_refuses_or_has_a_wrong_certificate_is_tried_again() {
    let began = Instant::now();
    let hung = outcome(None).await;
    assert!(is_later(&hung, "no answer within"), "{hung:?}");
    assert!(began.elapsed() < TIMEOUT * 3);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let away = channels(ChannelKind::Webhook, &url).send(&letter()).await;
    assert!(is_later(&away, "refused"), "{away:?}");

    let url = self_signed().await;
    let wrong = channels(ChannelKind::Webhook, &url).send(&letter()).await;
    assert!(is_later(&wrong, "certificate"), "{wrong:?}");
}

/// A receiver whose certificate nobody has signed.
async fn self_signed() -> String {
    let made = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = acceptor.accept(stream).await;
    });
    url
}

/// The head and the JSON that a channel of `kind` posts.
async fn posted(kind: ChannelKind, letter: &Letter) -> (String, Value) {
    let (url, serving) = receiver(Some("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")).await;
    let outcome = channels(kind, &url).send(letter).await;
    assert_eq!(outcome, Outcome::Delivered);
    let got = serving.await.unwrap();
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_webhook_is_signed_and_satisfies_its_schema() {
    let (head, body) = posted(ChannelKind::Webhook, &letter()).await;
    for header in [
        "webhook-id: 8f2b6c1d0e9a7743",
        "idempotency-key: 8f2b6c1d0e9a7743",
        "webhook-signature: v1,",
        "webhook-timestamp: ",
    ] {
        assert!(head.contains(header), "{head}");
    }
    assert!(!head.contains("s3cret"));
    let schema = include_str!("../../../schemas/notification.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    assert!(schema.is_valid(&body), "{body:#}");
    let alert_schema = include_str!("../../../schemas/alert.schema.json");
    let alert_schema: Value = serde_json::from_str(alert_schema).unwrap();
    let alert_schema = jsonschema::validator_for(&alert_schema).unwrap();
    assert!(alert_schema.is_valid(&body["alerts"][0]), "{body:#}");
}

#[tokio::test]
async fn markup_from_outside_reaches_nobody_and_limits_are_kept() {
    let mut many = letter();
    many.what = What::Digest;
    let long = Alert {
        message: "<!channel> ".repeat(1_000),
        ..alert()
    };
    many.alerts = vec![long; 100];
    for letter in [letter(), many] {
        let (_, slack) = posted(ChannelKind::Slack, &letter).await;
        let blocks = slack["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50, "{slack:#}");
        let text = slack.to_string();
        assert!(
            !text.contains("<!channel>") && !text.contains("<c-42>"),
            "{text}"
        );
        assert!(!text.contains("\\u001b"), "{text}");
        for block in blocks {
            let length = block["text"]["text"].as_str().unwrap_or_default();
            assert!(length.chars().count() <= 3_000);
            assert!(block["fields"].as_array().is_none_or(|all| all.len() <= 10));
        }
        let (_, teams) = posted(ChannelKind::Teams, &letter).await;
        assert!(
            teams.to_string().len() < 28_000,
            "{}",
            teams.to_string().len()
        );
        let (_, pager) = posted(ChannelKind::PagerDuty, &letter).await;
        let summary = pager["payload"]["summary"].as_str().unwrap();
        assert!(summary.chars().count() <= 1_024);
        assert_eq!(pager["event_action"], "trigger");
    }
    let (_, slack) = posted(ChannelKind::Slack, &letter()).await;
    assert!(
        slack
            .to_string()
            .contains("hook did not take this message: 503")
    );
    assert!(slack.to_string().contains("$4.01 of $5.00"));
    let rate = "$1.24/h in the last hour, $7.92/h in the last five minutes; exhausted about 2026-11-22 10:23 UTC";
    assert!(slack.to_string().contains(rate), "{slack:#}");
}

#[tokio::test]
async fn what_ends_resolves_what_began() {
    let began = posted(ChannelKind::PagerDuty, &letter()).await.1;
    let over = Letter {
        what: What::Resolved,
        id: "0000000000000001".to_owned(),
        ..letter()
    };
    let ended = posted(ChannelKind::PagerDuty, &over).await.1;
    assert_eq!(began["dedup_key"], ended["dedup_key"]);
    assert_eq!(ended["event_action"], "resolve");
    let (head, began) = posted(ChannelKind::Alertmanager, &letter()).await;
    assert!(head.starts_with("POST /api/v2/alerts "), "{head}");
    let ended = posted(ChannelKind::Alertmanager, &over).await.1;
    assert_eq!(began[0]["labels"], ended[0]["labels"]);
    assert_eq!(began[0]["endsAt"], "2026-11-23T05:00:00Z");
    assert_ne!(began[0]["endsAt"], ended[0]["endsAt"]);
    // A digest ends what is over, and is no more urgent than what goes on.
    let other = Alert {
        key: "cap|acme/customer=c-7|1795323600000|8000".to_owned(),
        severity: Severity::Warning,
        ..alert()
    };
    let digest = Letter {
        what: What::Digest,
        over: BTreeSet::from([alert().key]),
        alerts: vec![alert(), other],
        ..letter()
    };
    let told = posted(ChannelKind::Alertmanager, &digest).await.1;
    assert_ne!(told[0]["endsAt"], "2026-11-23T05:00:00Z");
    assert_eq!(told[1]["endsAt"], "2026-11-23T05:00:00Z");
    let told = posted(ChannelKind::Webhook, &digest).await.1;
    assert_eq!(told["severity"], "warning");
    assert_eq!(
        told["text"],
        "[warning] 2 alerts in a short time, 0 of them critical, 1 over by now"
    );
    let told = posted(ChannelKind::PagerDuty, &digest).await.1;
    assert_eq!(told["event_action"], "trigger");
    let ended = Letter {
        alerts: vec![alert()],
        ..digest
    };
    let told = posted(ChannelKind::PagerDuty, &ended).await.1;
    let triggered = posted(ChannelKind::PagerDuty, &letter()).await.1;
    assert_eq!(told["event_action"], "resolve");
    assert_eq!(told["dedup_key"], triggered["dedup_key"]);
}

#[test]
fn channels_that_can_never_work_are_refused_at_the_start() {
    for (kind, url, secret) in [
        (ChannelKind::Slack, "hooks.slack.com/x", ""),
        (ChannelKind::Webhook, "ftp://example.com", ""),
        (ChannelKind::Webhook, "https://example.com", "whsec_%"),
        (ChannelKind::PagerDuty, "", ""),
    ] {
        let channel = Channel {
            kind,
            url: url.to_owned(),
            secret: secret.to_owned(),
        };
        assert!(!format!("{channel:?}").contains("hooks"), "{channel:?}");
        let named = BTreeMap::from([("ops".to_owned(), channel)]);
        assert!(Channels::new(named, None, None, TIMEOUT).is_err(), "{url}");
    }
}
