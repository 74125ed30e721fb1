//! Weeks in seconds: segments are closed, removed and compacted while the run goes on, so that logs
//! begin later and later and tombstones vanish. Nothing that a reader still needs goes: all of it takes
//! longer than the longest outage that a run makes.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Runtime;

use crate::schedule::LEAST_FOR_QUIET;

/// What is special about the time of a run. Logs that forget in seconds would lose what nobody has
/// read yet where the broker's clock jumps by hours, and be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Logs forget in seconds.
    ShortMemory,
    /// The broker's clock jumps.
    JumpingBroker,
}

impl Life {
    /// That of a seed.
    pub fn of(seed: u64) -> Self {
        match seed % 3 {
            0 => Self::JumpingBroker,
            _ => Self::ShortMemory,
        }
    }
}

/// Longer than [`KEPT`] and a segment: a log in which nothing is written meanwhile becomes empty.
pub const LONGER_THAN_KEPT: Duration = Duration::from_secs(92);

/// How long records and tombstones stay. A loader whose ClickHouse loses its power, is killed and has no
/// room again and again, and whose group is deleted, got no row in for 64 s on a busy machine.
const KEPT: Duration = Duration::from_secs(80);
/// In runs without quiet phases, which are short: logs need not become empty.
const KEPT_IN_SHORT_RUNS: Duration = Duration::from_secs(120);
/// Of a run, and more than its first seconds.
const BEGINNING: Duration = Duration::from_secs(45);
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);
const SEGMENT: &str = "4000";

/// Topics that keep their records for a time. What is set aside and told stays for the checks, and
/// identities for their horizon.
const BY_TIME: [&str; 5] = ["usage", "usage.rerouted", "deltas", "rows", "rows.ledger"];
/// Topics that keep the last record of each key.
const BY_KEY: [&str; 6] = [
    "blocklist",
    "findings",
    "meter.changelog",
    "ledger.changelog",
    "budgets",
    "prices",
];

/// A broker that looks every second for what may go.
pub fn broker_properties() -> Vec<(String, String)> {
    let lines = [
        ("log.initial.task.delay.ms", "1000"),
        ("log.retention.check.interval.ms", "1000"),
        ("log.cleaner.backoff.ms", "1000"),
    ];
    let lines = lines.iter();
    lines
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Makes the topics that begin with `prefix` forget in seconds.
pub fn shorten(brokers: &str, prefix: &str, kept: Duration) -> Result<()> {
    let kept = kept.as_millis().to_string();
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()?;
    let by_time = [
        ("cleanup.policy", "delete"),
        ("retention.ms", kept.as_str()),
    ];
    let by_key = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", &kept),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    let common = [
        ("segment.ms", SEGMENT),
        ("file.delete.delay.ms", "1000"),
        // All settings of a topic are replaced: these are as they were.
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "8388608"),
    ];
    let topics = BY_TIME.iter().map(|name| (name, by_time.as_slice()));
    let topics = topics.chain(BY_KEY.iter().map(|name| (name, by_key.as_slice())));
    let named: Vec<_> = topics
        .map(|(name, own)| (format!("{prefix}{name}"), own))
        .collect();
    let configs: Vec<AlterConfig<'_>> = named
        .iter()
        .map(|(name, own)| {
            let mut config = AlterConfig::new(ResourceSpecifier::Topic(name));
            config.entries.extend(own.iter().chain(&common).copied());
            config
        })
        .collect();
    let altered = admin.alter_configs(&configs, &AdminOptions::new());
    for result in Runtime::new()?.block_on(altered)? {
        result.map_err(|(topic, code)| anyhow!("settings of {topic:?}: {code}"))?;
    }
    Ok(())
}

/// How long the logs of a run keep their records.
pub fn kept(length: Duration) -> Duration {
    match length >= LEAST_FOR_QUIET {
        true => KEPT,
        false => KEPT_IN_SHORT_RUNS,
    }
}

/// After how long without events a session ends: those that get none after the beginning have ended
/// when the run does, and the checks, which take as long as the machine is slow, are over before others
/// do. `None` in short runs.
pub fn session_idle(length: Duration) -> Option<Duration> {
    (length >= LEAST_FOR_QUIET).then(|| length - BEGINNING)
}

/// Deletes a group with its offsets.
pub fn forget_group(brokers: &str, group: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()?;
    let options = AdminOptions::new().request_timeout(Some(ADMIN_PATIENCE));
    let deleted = admin.delete_groups(&[group], &options);
    for result in Runtime::new()?.block_on(deleted)? {
        match result {
            // An answer that came too late has said so before.
            Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
            Err((group, code)) => return Err(anyhow!("{group}: {code}")),
        }
    }
    Ok(())
}
