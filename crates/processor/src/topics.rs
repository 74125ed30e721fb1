//! What the topics of spendfuse must be set to.

use std::collections::BTreeMap;

use spendfuse_bus::topics::TopicSpec;
use spendfuse_domain::topics::{Keeps, TOMBSTONE_MILLIS, Topic, Topics};

const HOUR_MILLIS: i64 = 60 * 60 * 1000;
const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;
/// Segments of compacted topics. The newest segment is never compacted: with the default of 1 GiB a
/// restart would read as much.
const SEGMENT_BYTES: u32 = 64 * 1024 * 1024;

/// What every topic must be set to. All stage topics have `partitions` partitions; identities
/// are kept for `dedupe_horizon_millis` and a day.
pub fn specs(topics: &Topics, partitions: u32, dedupe_horizon_millis: i64) -> Vec<TopicSpec> {
    let spec_of = |topic: Topic<'_>| {
        let (partitions, policy) = match topic.keeps {
            Keeps::Days(days) => (partitions, deleted_after(i64::from(days) * DAY_MILLIS)),
            Keeps::DedupeHorizon => (
                partitions,
                deleted_after(ids_retention_millis(dedupe_horizon_millis)),
            ),
            Keeps::Latest => (partitions, compacted()),
            Keeps::LatestForDays(days) => (partitions, compacted_for(i64::from(days) * DAY_MILLIS)),
            Keeps::LatestForHours(hours) => {
                let mut policy = compacted_for(i64::from(hours) * HOUR_MILLIS);
                // Who begins reads the newest segment whole.
                policy.insert("segment.ms", (HOUR_MILLIS / 6).to_string());
                (partitions, policy)
            }
            Keeps::LatestInOnePartition => (1, compacted()),
        };
        // Arrival times, dedupe ages and session expiry follow the broker's clock, not the senders'.
        let common = [
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("max.message.bytes", topic.max_record_bytes.to_string()),
        ];
        let config = common.into_iter().chain(policy);
        TopicSpec {
            name: topic.name.to_owned(),
            partitions,
            config: config
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            least_retention_millis: match topic.keeps {
                Keeps::DedupeHorizon => Some(ids_retention_millis(dedupe_horizon_millis)),
                _ => None,
            },
        }
    };
    topics.all().into_iter().map(spec_of).collect()
}

/// How long identities are kept: a day longer than they are needed, so that after a day without a
/// processor none is missing.
pub fn ids_retention_millis(dedupe_horizon_millis: i64) -> i64 {
    dedupe_horizon_millis + DAY_MILLIS
}

type Config = BTreeMap<&'static str, String>;

fn deleted_after(millis: i64) -> Config {
    BTreeMap::from([
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", millis.to_string()),
    ])
}

fn compacted_for(millis: i64) -> Config {
    let mut policy = compacted();
    policy.extend(deleted_after(millis));
    policy.insert("cleanup.policy", "compact,delete".to_owned());
    policy
}

fn compacted() -> Config {
    BTreeMap::from([
        ("cleanup.policy", "compact".to_owned()),
        ("delete.retention.ms", TOMBSTONE_MILLIS.to_string()),
        ("min.cleanable.dirty.ratio", "0.1".to_owned()),
        ("segment.ms", DAY_MILLIS.to_string()),
        ("segment.bytes", SEGMENT_BYTES.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_outlive_the_horizon_and_budgets_lie_in_one_partition() {
        let topics = Topics::new("test.");
        let specs = specs(&topics, 8, DAY_MILLIS);
        let of = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap();
        let ids = of("test.meter.ids");
        let two_days = (2 * DAY_MILLIS).to_string();
        assert_eq!(
            (ids.partitions, &ids.config["retention.ms"]),
            (8, &two_days)
        );
        let budgets = of("test.budgets");
        assert_eq!(
            (budgets.partitions, &budgets.config["cleanup.policy"][..]),
            (1, "compact")
        );
        let findings = &of("test.findings").config;
        let hundred_days = (100 * DAY_MILLIS).to_string();
        assert_eq!(
            (&findings["cleanup.policy"][..], &findings["retention.ms"]),
            ("compact,delete", &hundred_days),
            "closed findings would stay for ever"
        );
        let on_the_brokers_clock =
            |spec: &TopicSpec| spec.config["message.timestamp.type"] == "LogAppendTime";
        assert!(specs.iter().all(on_the_brokers_clock));
    }
}
