//! The rules, one by one.

use std::time::Duration;

use spendfuse_domain::Severity;
use spendfuse_domain::budget::BasisPoints;
use spendfuse_engine::alert::{AlertDetails, AlertKind};

use super::*;
use crate::QuietHours;
use crate::route::{Route, RouteFilter, RouteOptions};

mod ends;

/// 2026-11-22T12:00:00Z.
const NOON: UnixMillis = UnixMillis(1_795_348_800_000);
const HOUR: i64 = 60 * MINUTE;

fn options() -> RouteOptions {
    RouteOptions::default()
}

fn notifier(to: &[&str], options: RouteOptions) -> Notifier {
    let route = Route {
        name: "all".to_owned(),
        to: to.iter().map(|one| (*one).to_owned()).collect(),
        filter: RouteFilter::default(),
        options: options.clone(),
    };
    let routes = Routes {
        routes: vec![route],
        options,
    };
    Notifier::new(0, Arc::new(routes))
}

fn step(scope: &str, percent: u32, severity: Severity) -> Alert {
    Alert {
        v: 1,
        key: format!("cap|{scope}|{}|{percent}00", NOON.0),
        kind: AlertKind::BudgetStep,
        severity,
        scope: scope.to_owned(),
        subject: "cap".to_owned(),
        message: format!("{scope} reached {percent} % of budget cap"),
        at: NOON,
        count: None,
        details: AlertDetails {
            budget: Some("cap".to_owned()),
            step: Some(BasisPoints(percent * 100)),
            ends_at: Some(NOON.plus(12 * HOUR)),
            ..AlertDetails::default()
        },
    }
}

fn warning(scope: &str) -> Alert {
    step(scope, 80, Severity::Warning)
}

fn critical(scope: &str) -> Alert {
    step(scope, 100, Severity::Critical)
}

/// What is sent now: why, where, and the first alert's message.
fn sent(notifier: &mut Notifier, now: UnixMillis) -> Vec<(What, String, String)> {
    notifier.advance(now);
    notifier.take_changes();
    let attempts = notifier.take_attempts(now);
    let sent = attempts.iter().map(|attempt| {
        let letter = &attempt.letter;
        let message = letter.alerts[0].message.clone();
        (letter.what, letter.to.clone(), message)
    });
    sent.collect()
}

/// The same, and every place takes what it gets.
fn delivered(notifier: &mut Notifier, now: UnixMillis) -> Vec<What> {
    let mut all = Vec::new();
    loop {
        notifier.advance(now);
        notifier.take_changes();
        let attempts = notifier.take_attempts(now);
        if attempts.is_empty() {
            return all;
        }
        for attempt in attempts {
            all.push(attempt.letter.what);
            notifier.outcome(attempt.number, attempt.place, Outcome::Delivered, now);
        }
    }
}

fn later(after: Option<Duration>) -> Outcome {
    Outcome::Later {
        reason: "503".to_owned(),
        after,
    }
}

#[test]
fn an_alert_is_told_once_and_a_higher_step_at_once() {
    let mut notifier = notifier(&["ops"], options());
    notifier.alert(warning("acme"), NOON);
    notifier.alert(warning("acme"), NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New]);
    notifier.alert(warning("acme"), NOON.plus(HOUR));
    assert_eq!(delivered(&mut notifier, NOON.plus(HOUR)), []);
    notifier.alert(critical("acme"), NOON.plus(HOUR));
    assert_eq!(delivered(&mut notifier, NOON.plus(HOUR)), [What::New]);
    let open: Vec<bool> = notifier.alerts().map(|entry| entry.is_open).collect();
    assert_eq!(open, [true, false], "the lower step is over");
}

#[test]
fn what_is_critical_and_goes_on_is_told_again_and_so_is_its_end() {
    let every = RouteOptions {
        remind_every_millis: Some(4 * HOUR),
        ..options()
    };
    let mut notifier = notifier(&["ops"], every);
    notifier.alert(critical("acme"), NOON);
    notifier.alert(warning("other"), NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New, What::New]);
    let after = |hours: i64| NOON.plus(hours * HOUR);
    assert_eq!(delivered(&mut notifier, after(3)), []);
    assert_eq!(delivered(&mut notifier, after(4)), [What::Reminder]);
    assert_eq!(delivered(&mut notifier, after(8)), [What::Reminder]);
    assert_eq!(delivered(&mut notifier, after(12)), [What::Resolved]);
    assert_eq!(delivered(&mut notifier, after(40)), []);
    assert_eq!(delivered(&mut notifier, after(24 * 9)), []);
    assert_eq!(notifier.alerts().count(), 0, "it is forgotten after a week");
    assert_eq!(notifier.messages().count(), 0);
}

#[test]
fn messages_about_one_scope_keep_their_order_and_others_do_not_wait() {
    let mut notifier = notifier(&["ops"], options());
    notifier.alert(warning("acme"), NOON);
    notifier.alert(critical("acme"), NOON);
    notifier.alert(warning("other"), NOON);
    notifier.take_changes();
    let attempts = notifier.take_attempts(NOON);
    let scopes: Vec<&str> = attempts
        .iter()
        .map(|attempt| attempt.letter.alerts[0].scope.as_str())
        .collect();
    assert_eq!(scopes, ["acme", "other"]);
    let first = &attempts[0];
    notifier.outcome(first.number, first.place, later(None), NOON);
    assert_eq!(sent(&mut notifier, NOON), [], "it is tried again first");
    let again = notifier.take_attempts(NOON.plus(MINUTE));
    assert_eq!(again[0].letter.id, first.letter.id, "with the same id");
    notifier.outcome(first.number, 0, Outcome::Delivered, NOON.plus(MINUTE));
    let next = sent(&mut notifier, NOON.plus(MINUTE));
    assert_eq!(next.len(), 1);
    assert!(next[0].2.contains("100 %"), "{next:?}");
}

#[test]
fn the_next_place_is_told_after_a_while_or_at_once_where_the_first_refuses() {
    let mut notifier = notifier(&["hook", "mailto:ops@example.com"], options());
    notifier.alert(critical("acme"), NOON);
    notifier.take_changes();
    let attempt = notifier.take_attempts(NOON).remove(0);
    notifier.outcome(attempt.number, 0, later(None), NOON);
    let after = NOON.plus(5 * MINUTE);
    let told = sent(&mut notifier, after);
    assert_eq!(told[0].1, "mailto:ops@example.com");
    let message = notifier.messages().next().unwrap();
    assert_eq!(message.state, State::FallenBack);
    assert_eq!(message.passed[0].reason, "503");

    notifier.alert(critical("other"), after);
    notifier.take_changes();
    let attempt = notifier.take_attempts(after).remove(0);
    let refused = || Outcome::Refused {
        reason: "404".to_owned(),
    };
    notifier.outcome(attempt.number, 0, refused(), after);
    notifier.take_changes();
    let attempt = notifier.take_attempts(after).remove(0);
    assert_eq!(attempt.letter.to, "mailto:ops@example.com");
    // Nobody is left: it is tried for a day.
    notifier.outcome(attempt.number, 1, refused(), after);
    assert_eq!(notifier.messages().nth(1).unwrap().state, State::FallenBack);
    notifier.advance(after.plus(24 * HOUR));
    assert_eq!(notifier.messages().nth(1).unwrap().state, State::Failed);
}

#[test]
fn a_place_that_asks_for_a_pause_gets_it_for_all_messages() {
    let mut notifier = notifier(&["ops"], options());
    notifier.alert(warning("a"), NOON);
    notifier.take_changes();
    let attempt = notifier.take_attempts(NOON).remove(0);
    let pause = Some(Duration::from_secs(90));
    notifier.outcome(attempt.number, 0, later(pause), NOON);
    notifier.alert(warning("b"), NOON);
    assert_eq!(sent(&mut notifier, NOON.plus(89_999)), []);
    assert_eq!(notifier.next_due(), Some(NOON.plus(90_000)));
    assert_eq!(sent(&mut notifier, NOON.plus(90_000)).len(), 2);
}

#[test]
fn at_night_only_what_is_critical_is_told_and_a_summary_follows() {
    let quiet = QuietHours::parse("11:00-13:00").unwrap();
    let night = RouteOptions {
        quiet: Some(quiet),
        ..options()
    };
    let mut notifier = notifier(&["ops"], night);
    notifier.alert(warning("a"), NOON);
    notifier.alert(critical("b"), NOON);
    notifier.alert(warning("c"), NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New]);
    notifier.advance(NOON.plus(HOUR));
    notifier.take_changes();
    let summary = notifier.take_attempts(NOON.plus(HOUR)).remove(0).letter;
    assert_eq!((summary.what, summary.alerts.len()), (What::Summary, 2));
}

#[test]
fn a_storm_becomes_digests() {
    let calm = RouteOptions {
        storm: 5,
        ..options()
    };
    let mut notifier = notifier(&["ops"], calm);
    for number in 0..250 {
        notifier.alert(warning(&format!("s{number}")), NOON);
    }
    assert_eq!(delivered(&mut notifier, NOON), [What::New; 5]);
    assert_eq!(
        delivered(&mut notifier, NOON.plus(MINUTE)),
        [What::Digest; 3]
    );
    let told: usize = notifier.messages().map(|one| one.alerts.len()).sum();
    assert_eq!(told, 250, "each is in one message");
    notifier.alert(warning("later"), NOON.plus(5 * MINUTE));
    assert_eq!(delivered(&mut notifier, NOON.plus(5 * MINUTE)), [What::New]);
}

#[test]
fn muted_scopes_are_not_told_of_until_the_time_is_over() {
    let mut notifier = notifier(&["ops"], options());
    let until = NOON.plus(HOUR);
    let scope = "acme/".to_owned();
    notifier.request(Request::Mute { scope, until }, NOON);
    notifier.alert(critical("acme/customer=c-1"), NOON);
    notifier.alert(critical("other/customer=c-1"), NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New]);
    notifier.alert(critical("acme/customer=c-2"), until);
    assert_eq!(delivered(&mut notifier, until), [What::New]);
    let id = id_of(&critical("acme/customer=c-1").key);
    notifier.request(Request::Resend { alert: id }, until);
    assert_eq!(delivered(&mut notifier, until), [What::Again]);
}

#[test]
fn telling_again_of_a_workspace_ends_the_mutes_of_its_customers() {
    let mut notifier = notifier(&["ops"], options());
    for scope in ["acme/customer=c-1", "acme2/"] {
        let (scope, until) = (scope.to_owned(), NOON.plus(HOUR));
        notifier.request(Request::Mute { scope, until }, NOON);
    }
    let (scope, until) = ("acme/".to_owned(), NOON);
    notifier.request(Request::Mute { scope, until }, NOON);
    notifier.alert(critical("acme/customer=c-1"), NOON);
    notifier.alert(critical("acme2/customer=c-1"), NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New]);
}

fn id_of(key: &str) -> String {
    spendfuse_engine::alert::id_of(key)
}

#[test]
fn a_raised_limit_ends_what_was_told_and_a_step_that_is_reached_again_is_news() {
    let mut notifier = notifier(&["ops"], options());
    notifier.alert(step("acme", 80, Severity::Warning), NOON);
    notifier.alert(step("acme", 100, Severity::Critical), NOON);
    notifier.alert(step("acme/other", 100, Severity::Critical), NOON);
    assert_eq!(delivered(&mut notifier, NOON), [What::New; 3]);
    let later = NOON.plus(MINUTE);
    let mut lifted = step("acme", 100, Severity::Info);
    lifted.message = "acme is below 100 % again".to_owned();
    lifted.details.lifted_at = Some(later);
    lifted.details.step = Some(BasisPoints(0));
    notifier.alert(lifted.clone(), later);
    // Once, whoever says it again.
    notifier.alert(lifted, later);
    notifier.take_changes();
    let over = notifier.take_attempts(later).remove(0);
    assert_eq!(over.letter.what, What::Resolved);
    assert_eq!(over.letter.alerts[0].message, "acme is below 100 % again");
    assert_eq!(over.letter.severity(), Severity::Critical);
    notifier.outcome(over.number, over.place, Outcome::Delivered, later);
    let open = notifier.alerts().filter(|entry| entry.is_open).count();
    assert_eq!(open, 1, "the other scope's");

    // Both steps are news again.
    let again = later.plus(MINUTE);
    notifier.alert(step("acme", 80, Severity::Warning), again);
    notifier.alert(step("acme", 100, Severity::Critical), again);
    assert_eq!(delivered(&mut notifier, again), [What::New; 2]);
}

#[test]
fn what_was_raised_before_there_was_a_notifier_is_not_told() {
    let mut notifier = notifier(&["ops"], options());
    notifier.begin_first(NOON.plus(HOUR));
    notifier.alert(critical("acme"), NOON.plus(HOUR));
    assert_eq!(delivered(&mut notifier, NOON.plus(HOUR)), []);
    let entry = notifier.alerts().next().unwrap();
    assert_eq!(entry.untold, Some(Untold::Old));
}

#[test]
fn a_budget_that_names_its_places_has_a_route_of_its_own() {
    let mut notifier = notifier(&["ops"], options());
    let mut alert = critical("acme");
    alert.details.to = vec!["slack-acme".to_owned()];
    notifier.alert(alert, NOON);
    let told = sent(&mut notifier, NOON);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, "slack-acme");
    assert_eq!(notifier.messages().next().unwrap().route, "budget cap");
}

#[test]
fn the_state_comes_back_as_it_was() {
    let mut before = notifier(&["hook", "mail"], options());
    let mut records = BTreeMap::new();
    before.alert(critical("a"), NOON);
    before.alert(warning("b"), NOON);
    records.extend(before.take_changes());
    let attempt = before.take_attempts(NOON).remove(0);
    before.outcome(attempt.number, 0, later(None), NOON);
    records.extend(before.take_changes());

    let mut after = notifier(&["hook", "mail"], options());
    for (key, value) in &records {
        after.restore(key, value.as_deref()).unwrap();
    }
    after.restored();
    assert_eq!(
        after.messages().collect::<Vec<_>>(),
        before.messages().collect::<Vec<_>>()
    );
    assert_eq!(
        after.alerts().collect::<Vec<_>>(),
        before.alerts().collect::<Vec<_>>()
    );
    assert_eq!(after.open_messages(), 2);
    let all = delivered(&mut after, NOON.plus(MINUTE));
    assert_eq!(all.len(), 2);
}
