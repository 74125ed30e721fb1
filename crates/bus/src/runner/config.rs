//! How a stage is set up.

use std::time::Duration;

use crate::config::KafkaConfig;
use crate::health::Part;

/// A changelog with plain retention (not compacted), of which the recent part is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryTopic {
    /// Its name.
    pub topic: String,
    /// Records of the last this many milliseconds are restored, counted back from the time that the
    /// restored state has come to.
    pub since_millis: i64,
    /// For how long at least the log keeps its records, milliseconds.
    pub retention_millis: i64,
}

/// How one worker of a stage is set up.
#[derive(Debug, Clone)]
pub struct StageConfig {
    /// Brokers and client properties.
    pub kafka: KafkaConfig,
    /// The stage's name, in logs and metrics: "meter", "ledger".
    pub stage: &'static str,
    /// Consumer group.
    pub group_id: String,
    /// `transactional.id`: prefix, stage, instance and thread; different for every worker.
    pub transactional_id: String,
    /// `group.instance.id`: different for every worker of the group, the same after a restart.
    pub instance_id: String,
    /// Input topics, co-partitioned: the worker gets the same partitions of each.
    pub inputs: Vec<String>,
    /// Of these the ones that the group does not subscribe to: they are read along with the partition
    /// of the others, from where the partition's own commits say. A release that adds an input adds it
    /// so: members of the release before do not read it, and an assignment to both kinds would
    /// never hold each partition of every input.
    pub attached: Vec<String>,
    /// Compacted topic of the state; partition p holds the state of input partition p.
    pub changelog: String,
    /// Further logs of which the recent part is restored.
    pub history: Vec<HistoryTopic>,
    /// Other topics that are written: checked to exist before the stage starts, because a send
    /// to a missing topic shows only as a time-out.
    pub outputs: Vec<String>,
    /// Partitions of inputs, changelog and history.
    pub partitions: u32,
    /// A batch is committed no earlier than this after its first record, unless it is full.
    pub commit_min: Duration,
    /// A batch is committed at the latest this long after its first record.
    pub commit_interval: Duration,
    /// The same, at most, where the first record has waited in the log (half of its wait)
    /// or the last commit took long (as long as that).
    pub catch_up_interval: Duration,
    /// A batch with this many records is full.
    pub batch_max_events: usize,
    /// A batch with this many bytes of values is full.
    pub batch_max_bytes: usize,
    /// How often time passes for the partitions.
    pub tick_every: Duration,
    /// `transaction.timeout.ms`: a worker that is gone holds readers back this long at most.
    pub transaction_timeout: Duration,
    /// `session.timeout.ms`: a worker that is gone is replaced after this time.
    pub session_timeout: Duration,
    /// `max.poll.interval.ms`: a worker that hangs is replaced after this time.
    pub max_poll_interval: Duration,
    /// Where the worker tells how it is.
    pub health: Part,
}

impl StageConfig {
    /// The inputs that the group subscribes to.
    pub(crate) fn subscribed(&self) -> impl Iterator<Item = &String> {
        let is_attached = |topic: &&String| self.attached.contains(topic);
        self.inputs.iter().filter(move |topic| !is_attached(topic))
    }

    /// A worker with the time settings of the design and without history and outputs.
    pub fn new(kafka: KafkaConfig, stage: &'static str, group_id: &str, instance_id: &str) -> Self {
        Self {
            kafka,
            stage,
            group_id: group_id.to_owned(),
            transactional_id: format!("{group_id}-{instance_id}"),
            instance_id: instance_id.to_owned(),
            inputs: Vec::new(),
            attached: Vec::new(),
            changelog: String::new(),
            history: Vec::new(),
            outputs: Vec::new(),
            partitions: 1,
            commit_min: Duration::from_millis(5),
            commit_interval: Duration::from_millis(20),
            catch_up_interval: Duration::from_millis(200),
            batch_max_events: 20_000,
            batch_max_bytes: 16 * 1024 * 1024,
            tick_every: Duration::from_secs(1),
            transaction_timeout: Duration::from_secs(5),
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(30),
            health: Part::default(),
        }
    }
}
