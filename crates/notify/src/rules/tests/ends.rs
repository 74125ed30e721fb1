//! What is over: digests that say so, what is kept of it, and ends that nobody tells.

use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::{Detector, Nanos};

use super::*;

#[test]
fn a_digest_says_which_of_its_alerts_are_over() {
    let calm = RouteOptions {
        storm: 1,
        ..options()
    };
    let mut notifier = notifier(&["ops"], calm);
    notifier.alert(critical("a"), NOON);
    notifier.alert(critical("b"), NOON);
    delivered(&mut notifier, NOON);
    delivered(&mut notifier, NOON.plus(MINUTE));
    // The window of both ends, and another one is used up: one message at once, and a digest.
    let end = NOON.plus(12 * HOUR);
    assert_eq!(delivered(&mut notifier, end), [What::Resolved]);
    let mut later = critical("c");
    later.details.ends_at = Some(NOON.plus(24 * HOUR));
    notifier.alert(later, end);
    notifier.advance(end.plus(MINUTE));
    notifier.take_changes();
    let digest = notifier.take_attempts(end.plus(MINUTE)).remove(0).letter;
    let over: Vec<bool> = digest
        .alerts
        .iter()
        .map(|one| digest.is_over(one))
        .collect();
    assert_eq!((digest.what, over), (What::Digest, vec![true, false]));
    let words = crate::text::words(&digest);
    assert!(
        words
            .headline
            .ends_with("1 of them critical, 1 over by now")
    );
    assert!(words.lines[1].starts_with("[over] "), "{:?}", words.lines);
}

#[test]
fn a_message_that_outlives_what_is_kept_of_its_alert_holds_nothing_up() {
    let mut before = notifier(&["hook", "mail"], options());
    let happened = Alert {
        kind: AlertKind::UnpricedModel,
        ..warning("a")
    };
    before.alert(happened, NOON);
    let records = before.take_changes();
    // Nobody runs for longer than an alert is kept.
    let mut after = notifier(&["hook", "mail"], options());
    for (key, value) in &records {
        after.restore(key, value.as_deref()).unwrap();
    }
    after.restored();
    let later = NOON.plus(9 * 24 * HOUR);
    assert_eq!(sent(&mut after, later)[0].1, "mail");
    assert_eq!(after.alerts().count(), 1);
    after.outcome(1, 1, Outcome::Delivered, later);
    after.advance(later);
    assert_eq!(
        after.alerts().count(),
        0,
        "it is forgotten with its message"
    );
}

#[test]
fn what_never_says_that_it_ended_is_not_told_to_be_over() {
    let once = RouteOptions {
        remind_every_millis: None,
        ..options()
    };
    let mut notifier = notifier(&["ops"], once);
    let mut lifetime = critical("acme");
    lifetime.details.ends_at = None;
    notifier.alert(lifetime, NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New]);
    let later = NOON.plus(33 * 24 * HOUR);
    assert_eq!(delivered(&mut notifier, later), []);
    assert!(notifier.alerts().all(|entry| !entry.is_open));
}

#[test]
fn a_finding_that_closed_before_its_alert_was_read_is_over() {
    let finding = Finding {
        v: 1,
        detector: Detector::RetryLoop,
        scope: "acme/session=s-1".to_owned(),
        agent: "planner".to_owned(),
        model: "gpt-4o".to_owned(),
        customer: String::new(),
        feature: String::new(),
        rule: "loops".to_owned(),
        state: FindingState::Closed,
        severity: Severity::Critical,
        opened_at: NOON,
        last_at: NOON,
        measured: 6.0,
        threshold: 3.0,
        wasted_usd: Nanos::ZERO,
        evidence: Vec::new(),
        message: "the same prompt ran 6 times in a row".to_owned(),
    };
    let alert = Alert {
        key: format!("acme/session=s-1|retry_loop|loops|planner|{}", NOON.0),
        kind: AlertKind::Finding,
        details: AlertDetails::default(),
        ..critical("acme/session=s-1")
    };
    let mut notifier = notifier(&["ops"], options());
    notifier.finding_closed(&finding, NOON);
    notifier.alert(alert, NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New, What::Resolved]);
    let next_week = NOON.plus(6 * 24 * HOUR);
    assert_eq!(
        delivered(&mut notifier, next_week),
        [],
        "nobody is reminded"
    );
}
