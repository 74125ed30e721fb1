//! One partition, without a broker.

use spendfuse_bus::{Headers, OutputSink};
use spendfuse_domain::Severity;
use spendfuse_engine::alert::{AlertDetails, AlertKind};

use super::*;
use crate::route::Route;
use crate::{RouteFilter, RouteOptions};

const NOW: i64 = 1_795_348_800_000;
const HOUR: i64 = 3_600_000;

/// A partition whose state is what these records of its changelog say.
fn partition(changelog: &[(Vec<u8>, Option<Vec<u8>>)]) -> NotifierPartition {
    let route = Route {
        name: "all".to_owned(),
        to: vec!["ops".to_owned()],
        filter: RouteFilter::default(),
        options: RouteOptions::default(),
    };
    let routes = Routes {
        routes: vec![route],
        options: RouteOptions::default(),
    };
    let mut partition = NotifierPartition::new(0, Arc::new(routes));
    for (key, value) in changelog {
        let restored = partition.restore(RestoreSource::Changelog, key, value.as_deref(), NOW);
        restored.unwrap();
    }
    partition.restored(changelog.len() as u64).unwrap();
    partition
}

fn used_up() -> Alert {
    Alert {
        v: 1,
        key: "cap|acme|1|10000".to_owned(),
        kind: AlertKind::BudgetStep,
        severity: Severity::Critical,
        scope: "acme".to_owned(),
        subject: "cap".to_owned(),
        message: "acme has reached budget cap".to_owned(),
        at: UnixMillis(NOW),
        count: None,
        details: AlertDetails {
            ends_at: Some(UnixMillis(NOW + HOUR / 2)),
            ..AlertDetails::default()
        },
    }
}

fn take(partition: &mut NotifierPartition, alert: &Alert) {
    let value = alert.to_record();
    let record = InputRecord {
        topic_index: ALERTS_INPUT,
        partition: 0,
        offset: 0,
        timestamp_millis: NOW,
        key: None,
        value: Some(&value),
        headers: Headers::from_slice(&[]),
    };
    partition.process(&record).unwrap();
}

fn tick(partition: &mut NotifierPartition, now_millis: i64, state: InputState) {
    let input = InputProgress { reached: 1, state };
    partition.begin(2, now_millis);
    partition.tick(now_millis, &[input; 3]);
}

#[derive(Default)]
struct Written(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl OutputSink for Written {
    fn send(
        &mut self,
        _topic: &str,
        _partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        _headers: &[(&str, &[u8])],
    ) -> Result<(), spendfuse_bus::BusError> {
        let key = key.unwrap_or_default().to_vec();
        self.0.push((key, value.map(<[u8]>::to_vec)));
        Ok(())
    }
}

fn written(partition: &mut NotifierPartition) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut written = Written::default();
    let mut outputs = Outputs::new(&mut written, "changelog", 0);
    partition.finish(&mut outputs).unwrap();
    written.0
}

/// Of what was raised before there was a notifier nobody is told; what comes now is none of that.
#[test]
fn at_the_first_start_an_hour_ahead_what_comes_now_is_told() {
    let mut first = partition(&[]);
    first.begin(1, NOW + HOUR);
    take(&mut first, &used_up());
    tick(&mut first, NOW + HOUR, InputState::Behind);
    let changelog = written(&mut first);
    tick(&mut first, NOW + HOUR, InputState::Behind);
    assert!(first.has_output(), "the time is read off what is written");
    assert_eq!(first.notifier.messages().count(), 0);
    // Killed here, it begins once more.
    for mut partition in [first, partition(&changelog)] {
        tick(&mut partition, NOW + 1_000, InputState::Complete);
        assert_eq!(partition.notifier.messages().count(), 1);
        let due = partition.notifier.take_attempts(partition.now());
        assert_eq!(due.len(), 1, "and at once");
    }
}

#[test]
fn at_a_start_an_hour_ahead_no_window_is_over_that_is_not() {
    let mut before = partition(&[]);
    tick(&mut before, NOW, InputState::Complete);
    take(&mut before, &used_up());
    let changelog = written(&mut before);

    let mut after = partition(&changelog);
    tick(&mut after, NOW + HOUR, InputState::Behind);
    let is_open = |partition: &NotifierPartition| {
        let mut alerts = partition.notifier.alerts();
        alerts.any(|entry| entry.is_open)
    };
    assert!(is_open(&after));
    tick(&mut after, NOW + 1_000, InputState::Complete);
    assert!(is_open(&after));
    tick(&mut after, NOW + HOUR, InputState::Complete);
    assert!(!is_open(&after));
}

/// It would fill a record of the changelog to the last byte, and with its first reminder no more fit.
#[test]
fn an_alert_that_is_far_too_large_is_passed_by() {
    let mut partition = partition(&[]);
    tick(&mut partition, NOW, InputState::Complete);
    written(&mut partition);
    let mut alert = used_up();
    alert.message = "m".repeat(MOST_BYTES);
    take(&mut partition, &alert);
    assert!(!partition.has_output());
    take(&mut partition, &used_up());
    assert!(partition.has_output());
}
