//! What the brokers say of themselves and of the topics, for whoever looks after them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::metadata::MetadataPartition;

use super::TopicSpec;
use super::admin::Admin;
use crate::config::KafkaConfig;
use crate::error::BusError;

/// The brokers, as one of them sees the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Numbers of those that live.
    pub brokers: BTreeSet<i32>,
    /// Settings of one of them, by name.
    pub broker_settings: BTreeMap<String, String>,
    /// Of the topics that were asked about and exist.
    pub topics: BTreeMap<String, TopicState>,
}

/// One topic, as its brokers have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Settings by name.
    pub settings: BTreeMap<String, String>,
    /// Copies of the partition that has the fewest.
    pub replicas: usize,
    /// Partitions that nobody leads: they can be neither written nor read.
    pub without_leader: Vec<i32>,
    /// Partitions of which a copy is behind.
    pub behind: Vec<i32>,
}

/// Asks one of the brokers.
///
/// # Errors
/// [`BusError::Unreachable`] after `patience`, [`BusError::Request`].
pub fn cluster(
    kafka: &KafkaConfig,
    specs: &[TopicSpec],
    patience: Duration,
) -> Result<Cluster, BusError> {
    let admin = Admin::connect(kafka, patience)?;
    let metadata = admin.metadata()?;
    let mut cluster = Cluster {
        brokers: metadata.brokers().iter().map(|one| one.id()).collect(),
        ..Cluster::default()
    };
    let known: Vec<TopicSpec> = specs
        .iter()
        .filter(|spec| {
            let mut topics = metadata.topics().iter();
            topics.any(|topic| topic.name() == spec.name && topic.error().is_none())
        })
        .cloned()
        .collect();
    for topic in metadata.topics() {
        if known.iter().all(|spec| spec.name != topic.name()) {
            continue;
        }
        let state = cluster.topics.entry(topic.name().to_owned()).or_default();
        let partitions = topic.partitions();
        let copies = partitions.iter().map(|one| one.replicas().len());
        state.replicas = copies.min().unwrap_or_default();
        let no_leader = partitions.iter().filter(|one| one.leader() < 0);
        state.without_leader = no_leader.map(|one| one.id()).collect();
        let behind = |one: &&MetadataPartition| one.isr().len() < one.replicas().len();
        let behind = partitions.iter().filter(behind);
        state.behind = behind.map(|one| one.id()).collect();
    }
    for ((topic, name), value) in admin.settings(&known)? {
        if let Some(state) = cluster.topics.get_mut(&topic) {
            state.settings.insert(name, value);
        }
    }
    if let Some(broker) = cluster.brokers.first() {
        cluster.broker_settings = admin.broker_settings(*broker)?;
    }
    Ok(cluster)
}
