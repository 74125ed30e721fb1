//! Kafka as the roles see it: topics made as `spendfuse topics create` makes them, transactions that
//! are seen whole or not at all, and groups whose offsets expire.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::OutputRecord;
use spendfuse_domain::Topics;

use crate::calendar::DAY;
use crate::log::{Log, Policy};

/// `offsets.retention.minutes`, longer than anybody is away, as `docs/operations.md` asks for.
const OFFSETS_KEPT: i64 = 21 * DAY;
/// `segment.ms` by default; `segment.bytes` closes segments of busy topics before.
const SEGMENT: i64 = DAY;

/// Offsets that a transaction commits with its records.
#[derive(Debug)]
pub(crate) struct Offsets<'a> {
    pub(crate) group: &'a str,
    pub(crate) positions: Vec<(String, u32, i64)>,
}

#[derive(Debug, Default)]
struct Group {
    /// Topic and partition → offset and metadata.
    offsets: HashMap<(String, u32), (i64, String)>,
    /// When a member was there last.
    seen_at: i64,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) now: i64,
    logs: BTreeMap<String, Vec<Log>>,
    groups: BTreeMap<String, Group>,
}

impl Cluster {
    pub(crate) fn new(now: i64) -> Self {
        Self {
            now,
            logs: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// Makes all topics with the settings that a processor asks for.
    pub(crate) fn create(&mut self, topics: &Topics, partitions: u32, horizon: i64) {
        for spec in spendfuse_processor::topics::specs(topics, partitions, horizon) {
            let millis = |name: &str| spec.config.get(name).and_then(|text| text.parse().ok());
            let (retention, segment) = (millis("retention.ms"), millis("segment.ms"));
            let policy = match (spec.config["cleanup.policy"].contains("compact"), retention) {
                (false, Some(retention)) => Policy::Delete {
                    retention,
                    segment: SEGMENT,
                },
                (_, retention) => Policy::Compact {
                    tombstones: millis("delete.retention.ms").unwrap_or(DAY),
                    segment: segment.unwrap_or(SEGMENT),
                    retention,
                },
            };
            let logs = (0..spec.partitions).map(|_| Log::new(policy)).collect();
            self.logs.insert(spec.name, logs);
        }
    }

    /// Deletes a set of topics, and with them what groups have committed for them.
    pub(crate) fn delete(&mut self, topics: &Topics) {
        for topic in topics.all() {
            self.logs.remove(topic.name);
            for group in self.groups.values_mut() {
                group.offsets.retain(|(name, _), _| name != topic.name);
            }
        }
    }

    pub(crate) fn log(&self, topic: &str, partition: u32) -> &Log {
        let logs = self.logs.get(topic);
        let logs = logs.unwrap_or_else(|| panic!("topic {topic} was never made"));
        &logs[partition as usize]
    }

    fn log_mut(&mut self, topic: &str, partition: u32) -> &mut Log {
        let logs = self.logs.get_mut(topic);
        let logs = logs.unwrap_or_else(|| panic!("topic {topic} was never made"));
        &mut logs[partition as usize]
    }

    pub(crate) fn partitions(&self, topic: &str) -> u32 {
        self.logs.get(topic).map_or(0, |logs| logs.len() as u32)
    }

    /// A record of a plain producer; its offset.
    pub(crate) fn send(&mut self, topic: &str, partition: u32, key: &[u8], value: &[u8]) -> i64 {
        let (now, key) = (self.now, Bytes::copy_from_slice(key));
        let value = Some(Bytes::copy_from_slice(value));
        self.log_mut(topic, partition)
            .append(now, Some(key), value, Vec::new())
    }

    /// Records that become visible together, with the offsets of their input.
    pub(crate) fn commit(&mut self, records: Vec<OutputRecord>, offsets: Option<Offsets<'_>>) {
        self.write(records);
        if let Some(offsets) = offsets {
            self.commit_positions(offsets);
        }
    }

    fn write(&mut self, records: Vec<OutputRecord>) {
        let now = self.now;
        let mut touched = Vec::new();
        for record in records {
            let place = (record.topic, record.partition);
            let (key, value) = (record.key.map(Bytes::from), record.value.map(Bytes::from));
            let log = self.log_mut(&place.0, place.1);
            log.append(now, key, value, record.headers);
            if !touched.contains(&place) {
                touched.push(place);
            }
        }
        self.end_transaction(&touched);
    }

    fn commit_positions(&mut self, offsets: Offsets<'_>) {
        self.attend(offsets.group);
        let group = self.groups.entry(offsets.group.to_owned()).or_default();
        for (topic, partition, offset) in offsets.positions {
            group
                .offsets
                .insert((topic, partition), (offset, String::new()));
        }
    }

    /// Records that nobody will see; their offsets are used up.
    pub(crate) fn abort(&mut self, records: Vec<OutputRecord>, offsets: Offsets<'_>) {
        if is_broken(Break::OffsetsOutsideTransaction) {
            self.commit_positions(offsets);
        }
        let is_outside = |record: &OutputRecord| {
            is_broken(Break::ChangelogOutsideTransaction) && record.topic.ends_with(".changelog")
        };
        let (outside, records): (Vec<_>, Vec<_>) = records.into_iter().partition(is_outside);
        self.write(outside);
        let now = self.now;
        let mut touched = Vec::new();
        for record in records {
            let place = (record.topic, record.partition);
            self.log_mut(&place.0, place.1).pass(now);
            if !touched.contains(&place) {
                touched.push(place);
            }
        }
        self.end_transaction(&touched);
    }

    fn end_transaction(&mut self, touched: &[(String, u32)]) {
        let now = self.now;
        for (topic, partition) in touched {
            self.log_mut(topic, *partition).pass(now);
        }
    }

    pub(crate) fn committed(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> Option<(i64, String)> {
        let offsets = &self.groups.get(group)?.offsets;
        offsets.get(&(topic.to_owned(), partition)).cloned()
    }

    /// A plain commit of a group's offset.
    pub(crate) fn commit_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: u32,
        offset: i64,
        metadata: String,
    ) {
        self.attend(group);
        let group = self.groups.entry(group.to_owned()).or_default();
        let place = (topic.to_owned(), partition);
        group.offsets.insert(place, (offset, metadata));
    }

    /// The group was deleted, or its offsets have expired.
    pub(crate) fn forget_group(&mut self, group: &str) {
        self.groups.remove(group);
    }

    /// A member of the group is there: whoever commits is one.
    pub(crate) fn attend(&mut self, group: &str) {
        self.groups.entry(group.to_owned()).or_default().seen_at = self.now;
    }

    /// What brokers do by themselves: retention, compaction, offsets of groups without members.
    pub(crate) fn clean(&mut self) {
        let now = self.now;
        self.logs
            .values_mut()
            .flatten()
            .for_each(|log| log.clean(now));
        self.groups
            .retain(|_, group| now - group.seen_at < OFFSETS_KEPT);
    }

    /// Records of all topics, for the curve of what grows, and whether the topic has a retention.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (&str, usize, bool)> {
        self.logs.iter().map(|(topic, logs)| {
            let has_retention = logs.iter().all(Log::has_retention);
            (
                topic.as_str(),
                logs.iter().map(Log::len).sum(),
                has_retention,
            )
        })
    }
}
