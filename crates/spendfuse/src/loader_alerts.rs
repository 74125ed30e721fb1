//! Brings what the loader has to say to people to the alerts topic.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use spendfuse_bus::BusError;
use spendfuse_bus::producer::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_domain::Severity;
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind, id_of};
use spendfuse_engine::alert_limit::AlertLimit;
use spendfuse_loader::protocol::StopReason;
use spendfuse_loader::{LoaderNews, NewsSink, SameId};

use crate::settings::Settings;

/// A sink that writes to the alerts topic. The loader has logged each alert before, so one that
/// Kafka does not take is not lost.
pub fn sink(settings: &Settings) -> Result<NewsSink, BusError> {
    let producer = EventProducer::open(&settings.kafka(), &ProducerOptions::default())?;
    let topic = settings.topics().alerts;
    let place = format!("loader {}", settings.values.instance_id.0);
    let told = Mutex::new(AlertLimit::default());
    Ok(Arc::new(move |news: LoaderNews| {
        let Some(alert) = alert_of(&news) else { return };
        if let LoaderNews::SameId(pair) = &news
            && pair.is_counted_twice()
        {
            tracing::warn!("{}", alert.message);
        }
        let now = alert.at;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let one = told.admit(alert);
        for alert in one.into_iter().chain(told.counted(now, || place.clone())) {
            publish(&producer, &topic, &alert);
        }
    }))
}

/// Sends an alert; one that Kafka does not take is logged.
pub fn publish(producer: &EventProducer, topic: &str, alert: &Alert) {
    let value = alert.to_record();
    let record = EventRecord {
        topic,
        partition: None,
        key: Some(alert.key.as_bytes()),
        value: Some(&value),
        headers: &[],
    };
    let failed = |error: BusError| tracing::warn!(error = %error, "alert not published");
    let acknowledged = move |outcome: Result<_, BusError>| {
        outcome.map(drop).unwrap_or_else(failed);
    };
    producer.send(&record, acknowledged).unwrap_or_else(failed);
}

fn alert_of(news: &LoaderNews) -> Option<Alert> {
    let (kind, topic, place, message) = match news {
        LoaderNews::Stopped {
            topic,
            partition,
            reason,
        } => (
            AlertKind::LoaderStopped,
            topic,
            format!("{partition}|stopped|{}", place_of(reason)),
            format!(
                "rows of {topic} partition {partition} are not loaded any more: {}",
                reason.with_way_out(topic, *partition)
            ),
        ),
        LoaderNews::SameId(pair) => return Some(same_id(pair)),
        LoaderNews::ToldAgain(_) => return None,
        LoaderNews::Unreadable(lost) => (
            AlertKind::UnreadableInput,
            &lost.topic,
            format!("{}|{}", lost.partition, lost.from),
            format!("{lost}; their rows are missing, see spendfuse audit"),
        ),
        LoaderNews::BrokenLink {
            topic,
            partition,
            offset,
            broken,
        } => (
            AlertKind::RowChain,
            topic,
            format!("{partition}|{offset}"),
            format!(
                "{} in the row blocks of {topic} partition {partition} at offset {offset}",
                broken.kind()
            ),
        ),
    };
    Some(Alert {
        v: 1,
        key: format!("loader|{topic}|{place}"),
        kind,
        severity: Severity::Critical,
        scope: "*".to_owned(),
        subject: topic.clone(),
        message,
        at: Timestamp::now().into(),
        count: None,
        details: AlertDetails::default(),
    })
}

/// The same whenever a loader meets the same obstacle again, and another one at the next.
fn place_of(reason: &StopReason) -> String {
    let offset = reason.stands_at().map(|offset| offset.to_string());
    offset.unwrap_or_else(|| id_of(&reason.to_string()))
}

fn same_id(pair: &SameId) -> Alert {
    let SameId {
        source,
        id,
        first,
        later,
        rows: _,
    } = pair;
    let (kind, severity, scope, message) = match pair.is_counted_twice() {
        true => (
            AlertKind::CountedTwice,
            Severity::Critical,
            first.workspace.clone(),
            format!(
                "the event with id {id} of source {source} was counted twice: {first}, and {later}; have the sender name the same session whenever it sends an event again"
            ),
        ),
        false => (
            AlertKind::SharedId,
            Severity::Warning,
            "*".to_owned(),
            format!(
                "workspaces {} and {} each have an event with id {id} of source {source}, and both are counted: {first}, and {later}; if it is one call that was reported twice, one of the senders names the wrong workspace, else give each app a source of its own",
                first.workspace, later.workspace
            ),
        ),
    };
    Alert {
        v: 1,
        key: pair.key(),
        kind,
        severity,
        scope,
        subject: source.clone(),
        message,
        at: Timestamp::now().into(),
        count: None,
        details: AlertDetails::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that is known is not told again, for a week.
    #[test]
    fn a_partition_that_stops_again_elsewhere_is_another_alert() {
        let key_of = |reason: StopReason| {
            let news = LoaderNews::Stopped {
                topic: "rows".to_owned(),
                partition: 3,
                reason,
            };
            alert_of(&news).expect("people are told").key
        };
        let poison = |offset| StopReason::Poison {
            offset,
            detail: "no block".to_owned(),
        };
        assert_eq!(key_of(poison(7)), "loader|rows|3|stopped|7");
        assert_ne!(key_of(poison(7)), key_of(poison(8)));
        let behind = |database: &str| StopReason::Behind {
            detail: format!("database {database} is not the one"),
        };
        assert_eq!(key_of(behind("a")), key_of(behind("a")));
        assert_ne!(key_of(behind("a")), key_of(behind("b")));
    }
}
