//! Creates topics, and checks that the ones that exist are what the stages rely on.
//!
//! The list of topics is the caller's; this module knows only how to compare it with the broker.

mod admin;
mod cluster;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::consumer::Consumer;

use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::native::Poller;
use admin::Admin;

pub(crate) use admin::{Partitions, partition_counts};
pub use cluster::{Cluster, TopicState, cluster};

/// What a topic must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Its number of partitions.
    pub partitions: u32,
    /// Topic settings it is created with, and that are compared where `check` looks at them
    /// ([`CHECKED_SETTINGS`]).
    pub config: BTreeMap<String, String>,
    /// How long records must be kept for a promise to hold, milliseconds; `None` where it is the
    /// operator's choice.
    pub least_retention_millis: Option<i64>,
}

/// Settings whose difference breaks a promise; others are the operator's choice.
pub const CHECKED_SETTINGS: [&str; 3] = [
    "cleanup.policy",
    "message.timestamp.type",
    "max.message.bytes",
];

const RETENTION: &str = "retention.ms";

/// Where a topic is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The topic.
    pub topic: String,
    /// What differs: `exists`, `partitions` or a setting.
    pub setting: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "topic `{}`: {} is {}, must be {}",
            self.topic, self.setting, self.found, self.expected
        )
    }
}

/// What [`create`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicReport {
    /// Topics that did not exist and do now.
    pub created: Vec<String>,
    /// Topics that existed as they must be.
    pub unchanged: Vec<String>,
    /// Differences of topics that existed; nothing was changed about them.
    pub mismatches: Vec<Mismatch>,
}

/// Creates what is missing and reports what exists but differs. `replication` of `None` is the
/// broker's default. Waits until new topics can be used.
///
/// # Errors
/// [`BusError::Unreachable`], [`BusError::Request`] with the topic's name, or a refused property.
pub fn create(
    kafka: &KafkaConfig,
    specs: &[TopicSpec],
    replication: Option<u16>,
    patience: Duration,
) -> Result<TopicReport, BusError> {
    let admin = Admin::connect(kafka, patience)?;
    let existing = admin.topics()?;
    let missing: Vec<&TopicSpec> = specs
        .iter()
        .filter(|spec| !existing.contains_key(&spec.name))
        .collect();
    let mut report = TopicReport::default();
    for spec in &missing {
        if admin.create(spec, replication)? {
            report.created.push(spec.name.clone());
        }
    }
    admin.wait_for_leaders(&report.created)?;
    let found: Vec<TopicSpec> = specs
        .iter()
        .filter(|spec| !report.created.contains(&spec.name))
        .cloned()
        .collect();
    report.mismatches = compare(&found, &admin.topics()?, &admin.settings(&found)?);
    report.unchanged = found
        .into_iter()
        .map(|spec| spec.name)
        .filter(|name| report.mismatches.iter().all(|wrong| wrong.topic != *name))
        .collect();
    Ok(report)
}

/// Every difference between the topics and what they must be; empty is good.
///
/// # Errors
/// As [`create`].
pub fn check(
    kafka: &KafkaConfig,
    specs: &[TopicSpec],
    patience: Duration,
) -> Result<Vec<Mismatch>, BusError> {
    let admin = Admin::connect(kafka, patience)?;
    let existing = admin.topics()?;
    let found: Vec<TopicSpec> = specs
        .iter()
        .filter(|spec| existing.contains_key(&spec.name))
        .cloned()
        .collect();
    let settings = admin.settings(&found)?;
    Ok(compare(specs, &existing, &settings))
}

/// Number of partitions of a topic.
///
/// # Errors
/// [`BusError::TopicMissing`], [`BusError::Unreachable`], [`BusError::Request`].
pub fn partition_count(
    kafka: &KafkaConfig,
    topic: &str,
    patience: Duration,
) -> Result<u32, BusError> {
    Admin::connect(kafka, patience)?
        .topics()?
        .get(topic)
        .copied()
        .ok_or_else(|| BusError::TopicMissing {
            topic: topic.to_owned(),
        })
}

/// Kafka's ids of those of `topics` that exist. A topic that is made anew gets another one.
///
/// # Errors
/// [`BusError::Unreachable`], [`BusError::Request`], [`BusError::TimedOut`].
pub fn ids(
    kafka: &KafkaConfig,
    topics: &[&str],
    patience: Duration,
) -> Result<BTreeMap<String, String>, BusError> {
    let reader = Poller::new(&kafka.reader(Isolation::ReadCommitted)?)?;
    // Says in words why no broker answers.
    let ids = partition_counts(reader.consumer().client(), &kafka.brokers, patience)
        .and_then(|_| reader.topic_ids(topics, patience));
    reader.drop_later();
    ids
}

/// Deletes topics that exist; for tests and `demo`.
///
/// # Errors
/// As [`create`].
pub fn delete(kafka: &KafkaConfig, names: &[&str], patience: Duration) -> Result<(), BusError> {
    Admin::connect(kafka, patience)?.delete(names)
}

/// Settings by topic and name.
type Settings = BTreeMap<(String, String), String>;

fn compare(specs: &[TopicSpec], existing: &Partitions, settings: &Settings) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    for spec in specs {
        let mut differs = |setting: &str, expected: String, found: String| {
            mismatches.push(Mismatch {
                topic: spec.name.clone(),
                setting: setting.to_owned(),
                expected,
                found,
            });
        };
        let Some(&partitions) = existing.get(&spec.name) else {
            differs("exists", "true".to_owned(), "false".to_owned());
            continue;
        };
        if partitions != spec.partitions {
            differs(
                "partitions",
                spec.partitions.to_string(),
                partitions.to_string(),
            );
        }
        for name in CHECKED_SETTINGS {
            let Some(expected) = spec.config.get(name) else {
                continue;
            };
            let found = settings
                .get(&(spec.name.clone(), name.to_owned()))
                .map_or("unknown", String::as_str);
            if !is_same(name, expected, found) {
                differs(name, expected.clone(), found.to_owned());
            }
        }
        if let Some(least) = spec.least_retention_millis {
            let found = settings
                .get(&(spec.name.clone(), RETENTION.to_owned()))
                .map_or("unknown", String::as_str);
            // -1 is for ever.
            if found
                .parse()
                .is_ok_and(|kept: i64| (0..least).contains(&kept))
            {
                differs(RETENTION, format!("at least {least}"), found.to_owned());
            }
        }
    }
    mismatches
}

/// A topic may allow larger records than it must; policies are sets, and what is compacted may be kept
/// for longer than it must, as topics of a release before are.
fn is_same(setting: &str, expected: &str, found: &str) -> bool {
    match setting {
        "max.message.bytes" => match (expected.parse::<u64>(), found.parse::<u64>()) {
            (Ok(expected), Ok(found)) => found >= expected,
            _ => false,
        },
        "cleanup.policy" => {
            let sorted = |text: &str| {
                let mut parts: Vec<String> = text.split(',').map(|p| p.trim().into()).collect();
                parts.sort();
                parts
            };
            let (expected, found) = (sorted(expected), sorted(found));
            expected == found || (expected == ["compact", "delete"] && found == ["compact"])
        }
        _ => expected == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_that_break_a_promise_are_reported_and_others_are_not() {
        let config = [
            ("cleanup.policy", "compact"),
            ("max.message.bytes", "1000"),
            ("retention.ms", "5"),
        ];
        let spec = TopicSpec {
            name: "t".to_owned(),
            partitions: 4,
            config: config.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            least_retention_millis: None,
        };
        let settings: Settings = [("cleanup.policy", "delete"), ("max.message.bytes", "2000")]
            .map(|(name, value)| (("t".to_owned(), name.to_owned()), value.to_owned()))
            .into();
        let existing = Partitions::from([("t".to_owned(), 3)]);
        let differing: Vec<String> = compare(&[spec], &existing, &settings)
            .into_iter()
            .map(|mismatch| mismatch.setting)
            .collect();
        assert_eq!(differing, ["partitions", "cleanup.policy"]);
    }

    #[test]
    fn what_is_compacted_may_be_kept_for_longer_than_it_must() {
        let is_same = |expected, found| is_same("cleanup.policy", expected, found);
        assert!(is_same("compact,delete", "delete, compact"));
        assert!(is_same("compact,delete", "compact"));
        assert!(!is_same("compact,delete", "delete"));
        assert!(!is_same("compact", "compact,delete"));
    }
}
