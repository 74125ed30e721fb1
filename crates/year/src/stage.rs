//! A stage's worker for one partition: the processor's own logic, driven as the bus's runner drives
//! it (`crates/bus/src/runner`), which needs a broker and is rebuilt here by its rules: restore, compare
//! positions, batches in transactions, ticks, positions that follow the log's end.

use bytes::Bytes;
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::{
    Headers, HistoryTopic, InputProgress, InputRecord, InputState, LogicError, OutputRecord,
    Outputs, PartitionLogic, RestoreSource, StageLogic, Unreadable,
};

use crate::calendar::HOUR;
use crate::cluster::{Cluster, Offsets};
use crate::log::Record;

const POSITION_KEY: &[u8] = b"\0position";

/// Where a process dies, in the middle of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Records were processed, nothing was sent.
    BeforeOutputs,
    /// Everything was sent; the transaction will be aborted.
    BeforeCommit,
    /// The transaction is committed, the worker does not know.
    AfterCommit,
}

impl Death {
    pub(crate) const ALL: [Self; 3] = [Self::BeforeOutputs, Self::BeforeCommit, Self::AfterCommit];
}

/// Names of what a stage reads and writes.
#[derive(Clone, Debug)]
pub(crate) struct Wiring {
    pub(crate) group: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) changelog: String,
    pub(crate) history: Option<HistoryTopic>,
    /// Input that retention removed is given up, and noted.
    pub(crate) accept_lost_input: bool,
}

pub(crate) struct Worker<L: StageLogic> {
    pub(crate) wiring: Wiring,
    stage: L,
    partition: u32,
    slot: Option<Slot<L::Partition>>,
}

struct Slot<P> {
    logic: P,
    seq: u64,
    next: Vec<i64>,
}

impl<L: StageLogic> Worker<L> {
    pub(crate) fn new(wiring: Wiring, stage: L, partition: u32) -> Self {
        Self {
            wiring,
            stage,
            partition,
            slot: None,
        }
    }

    /// The state, while the worker runs.
    pub(crate) fn logic(&self) -> Option<&L::Partition> {
        self.slot.as_ref().map(|slot| &slot.logic)
    }

    /// Restores state and position.
    ///
    /// # Errors
    /// Why the partition would stop and wait for a person.
    pub(crate) fn start(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let mut logic = self.stage.open(self.partition).map_err(text)?;
        let mut stored = None;
        let changelog = cluster.log(&self.wiring.changelog, self.partition);
        for record in changelog.from(changelog.start()) {
            let key = record.key.clone().unwrap_or_default();
            if key == POSITION_KEY {
                stored = record.value.as_deref().map(position);
                continue;
            }
            let value = record.value.as_deref();
            logic
                .restore(RestoreSource::Changelog, &key, value, record.at)
                .map_err(text)?;
        }
        self.restore_history(cluster, &mut logic)?;
        let (seq, next) = self.compare(cluster, stored)?;
        logic.restored(seq).map_err(text)?;
        if !logic.ready().map_err(text)? {
            return Err("waits for budgets that nobody has".to_owned());
        }
        self.slot = Some(Slot { logic, seq, next });
        Ok(())
    }

    /// As the runner's `histories` plans it.
    fn restore_history(&self, cluster: &Cluster, logic: &mut L::Partition) -> Result<(), String> {
        let Some(history) = &self.wiring.history else {
            return Ok(());
        };
        let log = cluster.log(&history.topic, self.partition);
        let reached = logic
            .restored_time()
            .map_or(cluster.now, |time| time.min(cluster.now));
        let since = reached - history.since_millis;
        let from = log.offset_at(since).max(log.start());
        let is_cut = log.start() > 0 && from == log.start();
        let complete_since = match is_cut {
            false => since,
            true => since.max(cluster.now - history.retention_millis + HOUR),
        };
        logic.history(0, complete_since);
        for record in log.from(from) {
            let key = record.key.clone().unwrap_or_default();
            let value = record.value.as_deref();
            logic
                .restore(RestoreSource::History(0), &key, value, record.at)
                .map_err(text)?;
        }
        Ok(())
    }

    /// The rule of the runner's `compare`: group and changelog agree, or the partition stops.
    fn compare(
        &self,
        cluster: &Cluster,
        stored: Option<(u64, Vec<i64>)>,
    ) -> Result<(u64, Vec<i64>), String> {
        let group = &self.wiring.group;
        let committed: Vec<Option<i64>> = { self.wiring.inputs.iter() }
            .map(|topic| cluster.committed(group, topic, self.partition))
            .map(|found| found.map(|(offset, _)| offset))
            .collect();
        match stored {
            None if committed.iter().all(Option::is_none) => {
                let starts = self.wiring.inputs.iter();
                let starts = starts.map(|topic| cluster.log(topic, self.partition).start());
                Ok((0, starts.collect()))
            }
            Some((seq, next)) if next.iter().copied().map(Some).eq(committed.iter().copied()) => {
                Ok((seq, next))
            }
            // The group's offsets are gone. The runner waits before it believes the changelog.
            Some((seq, next)) if committed.iter().all(Option::is_none) => Ok((seq, next)),
            stored => Err(format!(
                "{group} partition {}: the changelog says {stored:?}, the group {committed:?}",
                self.partition
            )),
        }
    }

    /// Works on up to `most` waiting records; returns whether there were any.
    ///
    /// # Errors
    /// Why the partition would stop.
    pub(crate) fn work(
        &mut self,
        cluster: &mut Cluster,
        most: usize,
        death: Option<Death>,
    ) -> Result<bool, String> {
        self.pass_lost_input(cluster)?;
        self.commit_what_is_due(cluster)?;
        let Some(slot) = &mut self.slot else {
            return Ok(false);
        };
        let mut batch: Vec<(usize, Record)> = Vec::new();
        for (index, topic) in self.wiring.inputs.iter().enumerate() {
            let left = most.saturating_sub(batch.len());
            let log = cluster.log(topic, self.partition);
            batch.extend(
                log.from(slot.next[index])
                    .take(left)
                    .map(|one| (index, one.clone())),
            );
        }
        if batch.is_empty() {
            return Ok(false);
        }
        slot.logic.begin(slot.seq + 1, cluster.now);
        for (index, record) in &batch {
            match process(&mut slot.logic, *index, self.partition, record) {
                // Comes again once the budgets that it needs are followed.
                Err(LogicError::NotYet(_)) => break,
                processed => processed.map_err(text)?,
            }
            slot.next[*index] = record.offset + 1;
        }
        self.finish(cluster, death)?;
        Ok(true)
    }

    fn commit_what_is_due(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let partition = self.partition;
        let Some(slot) = &mut self.slot else {
            return Ok(());
        };
        let mut all = std::iter::once((partition, &mut slot.logic));
        self.stage.between_batches(&mut all);
        if slot.logic.has_output() {
            slot.logic.begin(slot.seq + 1, cluster.now);
            self.finish(cluster, None)?;
        }
        Ok(())
    }

    /// Time passes: what the logs hold is told, and what is due is written.
    ///
    /// # Errors
    /// As [`Self::work`].
    pub(crate) fn tick(
        &mut self,
        cluster: &mut Cluster,
        death: Option<Death>,
    ) -> Result<(), String> {
        self.pass_lost_input(cluster)?;
        self.commit_what_is_due(cluster)?;
        let Some(slot) = &mut self.slot else {
            return Ok(());
        };
        let inputs = self.wiring.inputs.iter().zip(&slot.next);
        let progress: Vec<InputProgress> = inputs
            .map(|(topic, next)| {
                let waits = cluster
                    .log(topic, self.partition)
                    .from(*next)
                    .next()
                    .is_some();
                InputProgress {
                    reached: *next,
                    state: if waits {
                        InputState::Behind
                    } else {
                        InputState::Complete
                    },
                }
            })
            .collect();
        slot.logic.begin(slot.seq + 1, cluster.now);
        slot.logic.tick(cluster.now, &progress);
        if slot.logic.has_output() {
            self.finish(cluster, death)?;
        }
        Ok(())
    }

    /// Whether it runs and nothing waits.
    pub(crate) fn is_drained(&self, cluster: &Cluster) -> bool {
        self.slot.as_ref().is_some_and(|slot| {
            let mut inputs = self.wiring.inputs.iter().zip(&slot.next);
            inputs.all(|(topic, next)| {
                cluster
                    .log(topic, self.partition)
                    .from(*next)
                    .next()
                    .is_none()
            })
        })
    }

    /// When something is due by time alone.
    pub(crate) fn next_due(&self) -> Option<i64> {
        self.slot.as_ref()?.logic.next_due()
    }

    fn finish(&mut self, cluster: &mut Cluster, death: Option<Death>) -> Result<(), String> {
        let Some(slot) = &mut self.slot else {
            return Ok(());
        };
        if death == Some(Death::BeforeOutputs) {
            self.slot = None;
            return Ok(());
        }
        let mut records: Vec<OutputRecord> = Vec::new();
        let changelog = &self.wiring.changelog;
        let mut outputs = Outputs::new(&mut records, changelog, self.partition);
        slot.logic.finish(&mut outputs).map_err(text)?;
        for (next, topic) in slot.next.iter_mut().zip(&self.wiring.inputs) {
            let log = cluster.log(topic, self.partition);
            if log.from(*next).next().is_none() && !is_broken(Break::IdlePositionStays) {
                *next = log.end().max(*next);
            }
        }
        slot.seq += 1;
        records.push(OutputRecord {
            topic: changelog.clone(),
            partition: self.partition,
            key: Some(POSITION_KEY.to_vec()),
            value: Some(position_value(slot.seq, &slot.next)),
            headers: Vec::new(),
        });
        let inputs = self.wiring.inputs.iter().zip(&slot.next);
        let positions = inputs.map(|(topic, next)| (topic.clone(), self.partition, *next));
        let offsets = Offsets {
            group: &self.wiring.group,
            positions: positions.collect(),
        };
        if death == Some(Death::BeforeCommit) {
            cluster.abort(records, offsets);
            self.slot = None;
            return Ok(());
        }
        cluster.commit(records, Some(offsets));
        if death == Some(Death::AfterCommit) {
            self.slot = None;
        }
        Ok(())
    }

    fn pass_lost_input(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        for index in 0..self.wiring.inputs.len() {
            let Some(slot) = &mut self.slot else {
                return Ok(());
            };
            let topic = &self.wiring.inputs[index];
            let (from, to) = (slot.next[index], cluster.log(topic, self.partition).start());
            if from >= to {
                continue;
            }
            let lost = Unreadable {
                topic: topic.clone(),
                partition: self.partition,
                from,
                to,
                reason: "the topic's retention removed them before they were counted".to_owned(),
            };
            if !self.wiring.accept_lost_input {
                self.slot = None;
                return Err(format!("{}: {lost}", self.wiring.group));
            }
            slot.logic.begin(slot.seq + 1, cluster.now);
            slot.logic.unreadable(index, &lost).map_err(text)?;
            slot.next[index] = to;
            self.finish(cluster, None)?;
        }
        Ok(())
    }
}

fn process(
    logic: &mut impl PartitionLogic,
    topic_index: usize,
    partition: u32,
    record: &Record,
) -> Result<(), LogicError> {
    with_record(topic_index, partition, record, |record| {
        logic.process(record)
    })
}

/// A record as readers of topics take it.
pub(crate) fn with_record<T>(
    topic_index: usize,
    partition: u32,
    record: &Record,
    take: impl FnOnce(&InputRecord<'_>) -> T,
) -> T {
    let headers: Vec<(&str, &[u8])> = { record.headers.iter() }
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    take(&InputRecord {
        topic_index,
        partition,
        offset: record.offset,
        timestamp_millis: record.at,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: Headers::from_slice(&headers),
    })
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn position_value(seq: u64, next: &[i64]) -> Vec<u8> {
    let mut bytes = seq.to_be_bytes().to_vec();
    bytes.extend(next.iter().flat_map(|offset| offset.to_be_bytes()));
    bytes
}

fn position(bytes: &[u8]) -> (u64, Vec<i64>) {
    let (words, _) = bytes.as_chunks::<8>();
    let mut words = words.iter().map(|word| i64::from_be_bytes(*word));
    let seq = words.next().unwrap_or_default().cast_unsigned();
    (seq, words.collect())
}

/// Empty bytes of a key that is absent.
pub(crate) fn key_text(key: Option<&Bytes>) -> &str {
    key.and_then(|key| std::str::from_utf8(key).ok())
        .unwrap_or_default()
}
