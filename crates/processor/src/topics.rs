//! The topics of spendfuse: their names and what they must be set to.

use std::collections::BTreeMap;

use spendfuse_bus::topics::TopicSpec;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Records of stage outputs may be this large, bytes; larger ones are split before.
const MAX_OUTPUT_BYTES: u32 = 8 * 1024 * 1024;
/// Usage events themselves are bounded to 64 KiB; batches and headers need some room.
const MAX_USAGE_BYTES: u32 = 1024 * 1024;
/// A rejected record carries more headers than it came with.
const MAX_DLQ_BYTES: u32 = MAX_USAGE_BYTES + 64 * 1024;
/// How long a tombstone stays readable for those who follow a compacted topic.
const TOMBSTONE_MILLIS: i64 = 14 * DAY_MILLIS;

/// The names of all topics under one prefix (`spendfuse.` by default).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Topics {
    pub usage: String,
    pub rerouted: String,
    pub dlq: String,
    pub deltas: String,
    pub rows: String,
    pub rows_ledger: String,
    pub findings: String,
    pub blocklist: String,
    pub alerts: String,
    pub budgets: String,
    pub prices: String,
    pub meter_changelog: String,
    pub meter_ids: String,
    pub ledger_changelog: String,
}

impl Topics {
    /// The topics whose names begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        let named = |name: &str| format!("{prefix}{name}");
        Self {
            usage: named("usage"),
            rerouted: named("usage.rerouted"),
            dlq: named("usage.dlq"),
            deltas: named("deltas"),
            rows: named("rows"),
            rows_ledger: named("rows.ledger"),
            findings: named("findings"),
            blocklist: named("blocklist"),
            alerts: named("alerts"),
            budgets: named("budgets"),
            prices: named("prices"),
            meter_changelog: named("meter.changelog"),
            meter_ids: named("meter.ids"),
            ledger_changelog: named("ledger.changelog"),
        }
    }

    /// What every topic must be set to. All stage topics have `partitions` partitions; identities
    /// are kept for `dedupe_horizon_millis` and a day.
    pub fn specs(&self, partitions: u32, dedupe_horizon_millis: i64) -> Vec<TopicSpec> {
        let log = |name: &str, days: i64, bytes: u32| {
            spec(name, partitions, retained(days * DAY_MILLIS, bytes))
        };
        let table = |name: &str, partitions: u32| spec(name, partitions, compacted());
        let ids = retained(dedupe_horizon_millis + DAY_MILLIS, MAX_OUTPUT_BYTES);
        vec![
            log(&self.usage, 7, MAX_USAGE_BYTES),
            log(&self.rerouted, 7, MAX_USAGE_BYTES),
            log(&self.dlq, 30, MAX_DLQ_BYTES),
            log(&self.deltas, 7, MAX_OUTPUT_BYTES),
            log(&self.rows, 7, MAX_OUTPUT_BYTES),
            log(&self.rows_ledger, 7, MAX_OUTPUT_BYTES),
            log(&self.alerts, 30, MAX_OUTPUT_BYTES),
            table(&self.findings, partitions),
            table(&self.blocklist, partitions),
            table(&self.meter_changelog, partitions),
            table(&self.ledger_changelog, partitions),
            spec(&self.meter_ids, partitions, ids),
            table(&self.budgets, 1),
            table(&self.prices, 1),
        ]
    }
}

fn spec(name: &str, partitions: u32, config: BTreeMap<String, String>) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions,
        config,
    }
}

/// Segments of compacted topics.
const SEGMENT_BYTES: u32 = 64 * 1024 * 1024;

/// Arrival times, dedupe ages and session expiry follow the broker's clock, not the senders'.
fn common(max_bytes: u32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "message.timestamp.type".to_owned(),
            "LogAppendTime".to_owned(),
        ),
        ("max.message.bytes".to_owned(), max_bytes.to_string()),
    ])
}

fn retained(millis: i64, max_bytes: u32) -> BTreeMap<String, String> {
    let mut config = common(max_bytes);
    config.insert("cleanup.policy".to_owned(), "delete".to_owned());
    config.insert("retention.ms".to_owned(), millis.to_string());
    config
}

fn compacted() -> BTreeMap<String, String> {
    let mut config = common(MAX_OUTPUT_BYTES);
    config.insert("cleanup.policy".to_owned(), "compact".to_owned());
    config.insert(
        "delete.retention.ms".to_owned(),
        TOMBSTONE_MILLIS.to_string(),
    );
    config.insert("min.cleanable.dirty.ratio".to_owned(), "0.1".to_owned());
    config.insert("segment.ms".to_owned(), DAY_MILLIS.to_string());
    // The newest segment is never compacted: with the default of 1 GiB a restart would read as much.
    config.insert("segment.bytes".to_owned(), SEGMENT_BYTES.to_string());
    config
}
