//! From an assignment by the group to partitions that are restored, compared and being read.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::batch::Slot;
use super::config::StageConfig;
use super::kept::Kept;
use super::logic::{PartitionLogic, StageLogic};
use super::position::Position;
use super::restore::{Probe, Restoring, restore};
use crate::error::{BusError, LogicError};
use crate::native::{Poller, TopicPartition, request};

/// Why the way to an assignment was not gone to its end.
pub(super) enum Interrupt {
    /// The group assigned something else, which was not answered yet.
    Assigned(Vec<TopicPartition>),
    /// The group took everything back, which was answered.
    Revoked,
    /// An error, or the request to stop.
    Failed(BusError),
}

impl From<BusError> for Interrupt {
    fn from(error: BusError) -> Self {
        Self::Failed(error)
    }
}

impl From<LogicError> for Interrupt {
    fn from(error: LogicError) -> Self {
        Self::Failed(error.into())
    }
}

type KeepAlive<'k> = dyn FnMut(Duration) -> Result<(), Interrupt> + 'k;

/// How long one request for committed offsets may wait for open transactions before the group's
/// consumer is polled again.
const COMMITTED_SLICE: Duration = Duration::from_secs(1);
const BEFORE_COMPARING_AGAIN: Duration = Duration::from_millis(200);
const BEFORE_ASKING_READY_AGAIN: Duration = Duration::from_millis(20);

/// The partitions of an assignment, once it is known to hold each of every input.
pub(super) fn co_partitioned(
    config: &StageConfig,
    assigned: &[TopicPartition],
) -> Result<Vec<u32>, BusError> {
    let mut partitions: Vec<u32> = assigned
        .iter()
        .map(|at| at.partition.cast_unsigned())
        .collect();
    partitions.sort_unstable();
    partitions.dedup();
    for &partition in &partitions {
        for topic in config.subscribed() {
            let has = |at: &TopicPartition| {
                at.topic == *topic && at.partition.cast_unsigned() == partition
            };
            if !assigned.iter().any(has) {
                return Err(BusError::NotCoPartitioned {
                    group: config.group_id.clone(),
                    partition,
                    topic: topic.clone(),
                });
            }
        }
        if partition >= config.partitions {
            return Err(BusError::PartitionCount {
                topic: config.inputs.join(", "),
                found: partition + 1,
                expected: config.partitions,
            });
        }
    }
    Ok(partitions)
}

/// Restores the partitions, but for those whose state was `kept` and still holds, and starts reading
/// their inputs. Until then nothing is read: the assignment was answered with an empty list.
pub(super) fn take_over<L: StageLogic>(
    config: &StageConfig,
    stage: &mut L,
    poller: &Poller,
    partitions: &[u32],
    mut kept: Vec<Kept<L::Partition>>,
    now_millis: i64,
    keep_alive: &mut KeepAlive<'_>,
) -> Result<Vec<Slot<L::Partition>>, Interrupt> {
    poller.assign(&[])?;
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let began = Instant::now();
    let probe = Probe::open(config)?;
    let deadline = Instant::now() + config.transaction_timeout * 2;
    let mut known: Vec<Slot<L::Partition>> = Vec::new();
    let mut slots = loop {
        let committed = committed_positions(config, poller, partitions, deadline, keep_alive)?;
        tracing::debug!(stage = config.stage, elapsed = ?began.elapsed(), "committed offsets known");
        for one in std::mem::take(&mut kept) {
            if partitions.contains(&one.partition()) {
                known.extend(one.if_unchanged(config, &probe, &committed)?);
            }
        }
        let is_known = |partition: &u32| known.iter().any(|slot| slot.partition == *partition);
        let missing = partitions
            .iter()
            .copied()
            .filter(|partition| !is_known(partition));
        let mut restoring = Vec::with_capacity(partitions.len());
        for partition in missing {
            restoring.push(Restoring {
                partition,
                logic: stage.open(partition)?,
                position: None,
            });
        }
        restore(config, &probe, &mut restoring, now_millis, keep_alive)?;
        tracing::debug!(stage = config.stage, elapsed = ?began.elapsed(), "changelog read");
        let has_waited = Instant::now() >= deadline;
        match compare(config, &probe, restoring, &committed, has_waited)? {
            Compared::Equal(slots) => break slots,
            Compared::Different(error) if has_waited => return Err(error.into()),
            // Another worker's last transaction may have become visible in one place only.
            Compared::Different(error) => {
                tracing::info!(stage = config.stage, error = %error, "comparing again");
                keep_alive(BEFORE_COMPARING_AGAIN)?;
            }
        }
    };
    probe.close();
    for slot in &mut slots {
        slot.logic.restored(slot.seq)?;
    }
    slots.extend(known);
    slots.sort_by_key(|slot| slot.partition);
    tracing::debug!(stage = config.stage, elapsed = ?began.elapsed(), "state rebuilt");
    for slot in &mut slots {
        while !slot.logic.ready()? {
            keep_alive(BEFORE_ASKING_READY_AGAIN)?;
        }
    }
    poller.assign(&starts(config, &slots))?;
    Ok(slots)
}

pub(super) fn starts<'c, P>(
    config: &'c StageConfig,
    slots: &[Slot<P>],
) -> Vec<(&'c str, i32, Offset)> {
    let read = slots.iter().filter(|slot| slot.lost.is_none());
    let each = read.flat_map(|slot| {
        let inputs = config.inputs.iter().zip(&slot.next);
        inputs.map(|(topic, next)| {
            let partition = slot.partition.cast_signed();
            (topic.as_str(), partition, Offset::Offset(*next))
        })
    });
    each.collect()
}

/// The group's offsets, once no transaction is open that would change them. Asked for before the
/// changelog's end: whatever was committed up to here is below that end.
fn committed_positions(
    config: &StageConfig,
    poller: &Poller,
    partitions: &[u32],
    deadline: Instant,
    keep_alive: &mut KeepAlive<'_>,
) -> Result<TopicPartitionList, Interrupt> {
    let mut wanted = TopicPartitionList::new();
    for &partition in partitions {
        for topic in &config.inputs {
            wanted.add_partition(topic, partition.cast_signed());
        }
    }
    loop {
        let doing = "asking for committed offsets";
        let asked = poller
            .consumer()
            .committed_offsets(wanted.clone(), COMMITTED_SLICE)
            .and_then(|list| {
                let errors = list.elements().into_iter().map(|element| element.error());
                errors.collect::<Result<Vec<()>, _>>()?;
                Ok(list)
            });
        match asked {
            Ok(list) => return Ok(list),
            Err(error) if Instant::now() >= deadline => return Err(request(doing)(error).into()),
            Err(_) => keep_alive(BEFORE_ASKING_READY_AGAIN)?,
        }
    }
}

/// The offset in an answer to [`committed_positions`]; `None` where the group never committed one.
pub(super) fn committed_offset(
    committed: &TopicPartitionList,
    topic: &str,
    partition: u32,
) -> Option<i64> {
    let found = committed.find_partition(topic, partition.cast_signed())?;
    match found.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

enum Compared<P> {
    Equal(Vec<Slot<P>>),
    Different(BusError),
}

/// Where each partition goes on: where group and changelog say the same, and, once the other worker's
/// last transaction was waited for (`has_waited`), where the group has lost what it had committed.
fn compare<P: PartitionLogic>(
    config: &StageConfig,
    probe: &Probe,
    restored: Vec<Restoring<P>>,
    committed: &TopicPartitionList,
    has_waited: bool,
) -> Result<Compared<P>, BusError> {
    let mut slots = Vec::with_capacity(restored.len());
    for restoring in restored {
        let partition = restoring.partition;
        let committed = Position {
            seq: 0,
            inputs: config
                .inputs
                .iter()
                .filter_map(|topic| {
                    let offset = committed_offset(committed, topic, partition)?;
                    Some((topic.clone(), offset))
                })
                .collect(),
            group: None,
        };
        let stored = restoring.position.unwrap_or_default();
        // Under another group's name whoever wrote it may still be running: both would count.
        let group_has_lost_it =
            committed.inputs.is_empty() && stored.group.as_ref() == Some(&config.group_id);
        if group_has_lost_it && has_waited {
            tracing::warn!(
                stage = config.stage,
                partition,
                position = %stored,
                "the group's offsets are gone; going on at the position of the changelog"
            );
        }
        let known = Known {
            config,
            stored: &stored,
            committed: &committed,
            group_has_lost_it: group_has_lost_it && has_waited,
        };
        let mut next = Vec::with_capacity(config.inputs.len());
        for topic in &config.inputs {
            next.push(match known.next_of(topic) {
                Some(Next::At(offset)) => offset,
                Some(Next::Beginning) => probe.bounds(topic, partition)?.0,
                None => {
                    return Ok(Compared::Different(BusError::PositionMismatch {
                        group: config.group_id.clone(),
                        partition,
                        changelog: config.changelog.clone(),
                        stored: stored.to_string(),
                        committed: committed.to_string(),
                    }));
                }
            });
        }
        slots.push(Slot {
            partition,
            logic: restoring.logic,
            seq: stored.seq,
            ends: vec![None; next.len()],
            next,
            lost: None,
            begun: false,
            records: 0,
        });
    }
    Ok(Compared::Equal(slots))
}

/// What changelog and group say of a partition.
struct Known<'k> {
    config: &'k StageConfig,
    stored: &'k Position,
    committed: &'k Position,
    /// Whether the group has nothing of what it wrote into the changelog.
    group_has_lost_it: bool,
}

/// Where an input goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    At(i64),
    /// Never read by this group: at the log's start.
    Beginning,
}

impl Known<'_> {
    /// `None` where changelog and group differ.
    fn next_of(&self, topic: &str) -> Option<Next> {
        let Self {
            config,
            stored,
            committed,
            ..
        } = self;
        let is_attached = config.attached.iter().any(|attached| attached == topic);
        let is_own = stored.group.as_ref() == Some(&config.group_id);
        match (stored.offset_of(topic), committed.offset_of(topic)) {
            (Some(stored), Some(committed)) if stored == committed => Some(Next::At(stored)),
            (Some(stored), None) if self.group_has_lost_it => Some(Next::At(stored)),
            // Kafka forgets what a group commits for a topic that it does not subscribe to, also while
            // its members live, where nothing is committed for as long as it keeps offsets: a partition
            // that stands still. The other inputs, which must agree, say whether it is the last commit.
            (Some(stored), None) if is_attached && is_own => Some(Next::At(stored)),
            // A program that does not read it had the partition since then.
            (None, Some(committed)) if is_attached => Some(Next::At(committed)),
            (None, None) => Some(Next::Beginning),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KafkaConfig;

    fn position(group: Option<&str>, inputs: &[(&str, i64)]) -> Position {
        let inputs = inputs
            .iter()
            .map(|(topic, next)| ((*topic).to_owned(), *next));
        Position {
            seq: 7,
            inputs: inputs.collect(),
            group: group.map(str::to_owned),
        }
    }

    /// A partition stood still for a week, because its input was lost, while its group had members.
    #[test]
    fn an_expired_offset_of_an_input_that_is_not_subscribed_to_stops_nobody() {
        let kafka = KafkaConfig::new("localhost:9092", "test");
        let mut config = StageConfig::new(kafka, "meter", "meter", "meter-1");
        config.attached = vec!["corrections".to_owned()];
        let all = [("usage", 40), ("corrections", 3)];
        let next = |stored: &Position, committed: &[(&str, i64)]| {
            let committed = position(None, committed);
            let known = Known {
                config: &config,
                stored,
                committed: &committed,
                group_has_lost_it: false,
            };
            ["usage", "corrections"].map(|topic| known.next_of(topic))
        };
        let own = position(Some("meter"), &all);
        let both = [Some(Next::At(40)), Some(Next::At(3))];
        assert_eq!(next(&own, &all), both);
        assert_eq!(next(&own, &[("usage", 40)]), both);
        // The others still have to agree, and nobody else may have written the state.
        assert_eq!(next(&own, &[("corrections", 3)])[0], None);
        assert_eq!(next(&own, &[("usage", 41)])[0], None);
        assert_eq!(
            next(&position(Some("other"), &all), &[("usage", 40)])[1],
            None
        );
        assert_eq!(next(&own, &[("usage", 40), ("corrections", 2)])[1], None);
    }
}
