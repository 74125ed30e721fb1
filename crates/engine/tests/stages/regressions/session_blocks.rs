//! Sessions that a detector blocks.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::event::Body;
use spendfuse_domain::finding::{
    DetectorAction, DetectorRule, FindingState, Parameters, RetryLoop,
};
use spendfuse_domain::{Budget, Detector, Dimension, Filter, Severity, UnixMillis, WindowKind};
use spendfuse_engine::meter::{Counted, Meter};

use super::{IDLE, MINUTE, book, budget, call, config, count, meter, start};

#[test]
fn a_session_block_gets_its_tombstone_though_its_episode_closed_before() {
    let rule = DetectorRule {
        parameters: Parameters::RetryLoop(RetryLoop {
            repeats: 2,
            ..RetryLoop::default()
        }),
        order: 0,
        action: DetectorAction::BlockSession,
        at: Severity::Warning,
        ..DetectorRule::default_for(Detector::RetryLoop)
    };
    let mut meter = meter(book(1, vec![], vec![rule]));
    for (number, prompt) in [1, 1, 2].into_iter().enumerate() {
        let name = format!("e{number}");
        let mut event = call(&name, "s-1", start());
        if let Body::Usage(call) = &mut event.body {
            call.prompt_fingerprint = Some(prompt);
        }
        count(&mut meter, &event, start(), 1);
    }
    let key = "finding|retry_loop|acme/session=s-1";
    assert_eq!(meter.finish().told.blocklist[0].0, key);
    meter.advance(start().plus(IDLE + 1));
    assert_eq!(meter.finish().told.blocklist, [(key.to_owned(), None)]);
}

/// A rule that blocks whoever sends the same prompt twice in a row; of `agent` alone, where given.
fn blocking(id: &str, agent: Option<&str>, cooldown_millis: i64) -> DetectorRule {
    let filter = agent.map(|agent| Filter(vec![(Dimension::Agent, vec![agent.to_owned()])]));
    DetectorRule {
        id: id.to_owned(),
        order: 0,
        filter: filter.unwrap_or_default(),
        parameters: Parameters::RetryLoop(RetryLoop {
            repeats: 2,
            ..RetryLoop::default()
        }),
        action: DetectorAction::BlockSession,
        at: Severity::Warning,
        cooldown_millis,
    }
}

/// The same prompt twice by `agent` in session `s-1`; until when that blocks, where it is told.
fn runs_in_a_circle(meter: &mut Meter, agent: &str, at: UnixMillis) -> Option<UnixMillis> {
    for number in 0..2 {
        let name = format!("{agent}-{number}-{at}");
        let mut event = call(&name, "s-1", at);
        event.attribution.agent = Cow::Borrowed(agent);
        count(meter, &event, at, 1);
    }
    meter.advance(at);
    let told = meter.finish().told.blocklist;
    told.into_iter().find_map(|(_, entry)| entry?.expires_at)
}

#[test]
fn a_shorter_cool_down_does_not_end_a_longer_one() {
    let rules = vec![
        blocking("long", Some("slow"), 60 * MINUTE),
        blocking("short", Some("fast"), 5 * MINUTE),
    ];
    let mut meter = meter(book(1, vec![], rules));
    let until = start().plus(60 * MINUTE);
    assert_eq!(runs_in_a_circle(&mut meter, "slow", start()), Some(until));
    let later = start().plus(MINUTE);
    assert_eq!(
        runs_in_a_circle(&mut meter, "fast", later),
        None,
        "it is blocked for longer"
    );
    // Near the end of the longer one the shorter outlasts it.
    let mut last = None;
    for minute in (10..60).step_by(10).chain([58]) {
        let at = start().plus(minute * MINUTE);
        last = runs_in_a_circle(&mut meter, "fast", at).or(last);
    }
    assert_eq!(last, Some(start().plus(63 * MINUTE)));
}

#[test]
fn a_block_that_comes_again_names_the_call_that_caused_it() {
    let rules = vec![blocking("r", None, MINUTE)];
    let mut meter = meter(book(1, vec![], rules));
    // More calls than a finding keeps as evidence, each after the cool-down that the one before caused.
    for number in 0..30 {
        let at = start().plus(number * MINUTE);
        let id = format!("e{number}");
        count(&mut meter, &call(&id, "s-1", at), at, 1);
        let told = meter.finish().told.blocklist;
        let caused_by = told.into_iter().find_map(|(_, entry)| entry?.caused_by);
        let caused_by = caused_by.map(|event| event.id);
        assert_eq!(caused_by, (number > 0).then_some(id));
    }
}

#[test]
fn a_runaway_frees_itself_neither_by_ending_nor_by_a_pause() {
    const KEY: &str = "finding|retry_loop|acme/session=s-1";
    let session_budget = Budget {
        window: WindowKind::Session,
        scope: budget().scope.counted_in(WindowKind::Session),
        ..budget()
    };
    let lifted = |meter: &mut Meter| -> Vec<String> {
        let told = meter.finish().told.blocklist.into_iter();
        let told = told.filter(|(_, entry)| entry.is_none());
        told.map(|(key, _)| key).collect()
    };
    for ends in [true, false] {
        let rules = vec![blocking("r", None, 60 * MINUTE)];
        let book = book(1, vec![session_budget.clone()], rules);
        let mut meter = meter(Arc::clone(&book));
        runs_in_a_circle(&mut meter, "a", start());
        let mut end = call("end", "s-1", start());
        end.body = Body::SessionEnd;
        let at = start().plus(if ends { MINUTE } else { IDLE + 1 });
        match ends {
            true => assert_eq!(count(&mut meter, &end, at, 0), Counted::SessionEnded),
            false => meter.advance(at),
        }
        let written = meter.finish();
        let lifted_keys = written
            .told
            .blocklist
            .iter()
            .filter(|(_, entry)| entry.is_none());
        let lifted_keys: Vec<&str> = lifted_keys.map(|(key, _)| key.as_str()).collect();
        assert!(!lifted_keys.contains(&KEY), "ends {ends}: {lifted_keys:?}");
        assert_eq!(
            meter.session_account(&session_budget.id, "acme/session=s-1"),
            None
        );

        // A successor knows it as well, and lifts it when it is over.
        let mut successor = Meter::new(config(), book);
        for (key, value) in &written.told.changelog {
            successor.restore(key, value.as_deref()).unwrap();
        }
        successor.restored();
        successor.begin(3);
        successor.advance(start().plus(59 * MINUTE));
        assert_eq!(lifted(&mut successor), Vec::<String>::new());
        successor.advance(start().plus(60 * MINUTE + 1));
        assert_eq!(lifted(&mut successor), [KEY]);
        assert_eq!(successor.sizes().0, 0);
    }
}

#[test]
fn a_session_that_goes_on_while_it_is_blocked_ends_when_it_idles_and_not_with_the_block() {
    let rules = vec![blocking("r", None, 60 * MINUTE)];
    let mut meter = meter(book(1, vec![], rules));
    runs_in_a_circle(&mut meter, "a", start());
    let mut end = call("end", "s-1", start());
    end.body = Body::SessionEnd;
    count(&mut meter, &end, start().plus(MINUTE), 0);
    let again = start().plus(2 * MINUTE);
    runs_in_a_circle(&mut meter, "a", again);
    meter.advance(again.plus(IDLE + 1));
    let findings = meter.finish().told.findings;
    let states: Vec<_> = findings.iter().map(|(_, finding)| finding.state).collect();
    assert_eq!(states, [FindingState::Closed]);
}
