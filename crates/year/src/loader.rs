//! The loader's protocol for one rows partition, carried out against the simulated Kafka and
//! ClickHouse, and killed between any two of its steps.

use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::UnixMillis;
use spendfuse_loader::batch::{BatchLimits, RowsRecord};
use spendfuse_loader::checkpoint::{Checkpoint, Links};
use spendfuse_loader::protocol::{Action, PartitionProtocol, ProtocolRules};
use spendfuse_loader::recovery::starting_point;
use spendfuse_loader::region::Region;
use spendfuse_warehouse::migrations::{DEDUPLICATION_SECONDS, DEDUPLICATION_WINDOW};

use crate::cluster::Cluster;
use crate::random::Random;
use crate::warehouse::{Extent, Warehouse};

fn rules(epoch: u32) -> ProtocolRules {
    ProtocolRules {
        limits: BatchLimits {
            rows: 200,
            bytes: 1 << 20,
        },
        flush_interval: 200,
        deduplication_window: DEDUPLICATION_WINDOW,
        deduplication_millis: DEDUPLICATION_SECONDS as i64 * 1000,
        epoch,
        content_tokens: true,
        completes_parts: true,
    }
}

/// One rows partition.
pub(crate) struct Lane {
    group: String,
    topic: String,
    stage: &'static str,
    partition: u32,
    epoch: u32,
    running: Option<Running>,
}

struct Running {
    protocol: PartitionProtocol,
    read_to: i64,
}

/// After how many steps of the protocol the loader dies, if it does.
pub(crate) type Fuse = Option<usize>;

impl Lane {
    pub(crate) fn new(
        group: &str,
        topic: &str,
        stage: &'static str,
        partition: u32,
        epoch: u32,
    ) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            stage,
            partition,
            epoch,
            running: None,
        }
    }

    pub(crate) fn die(&mut self) {
        self.running = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// # Errors
    /// Why the partition stops and waits for a person.
    pub(crate) fn start(&mut self, cluster: &Cluster, warehouse: &Warehouse) -> Result<(), String> {
        let log = cluster.log(&self.topic, self.partition);
        let first = log.start();
        let (topic, partition) = (&self.topic, self.partition);
        let (protocol, read_to) = match cluster.committed(&self.group, topic, partition) {
            Some(committed) => {
                let stopped = |reason| format!("{topic} {partition}: {reason}");
                let begun = starting_point(committed, first).map_err(stopped)?;
                if let Some(lost) = begun.lost {
                    return Err(stopped(lost));
                }
                let (position, checkpoint) = (begun.position, begun.checkpoint);
                let start = PartitionProtocol::start;
                (
                    start(topic, partition, rules(self.epoch), position, checkpoint),
                    position,
                )
            }
            None => {
                // What the warehouse has is told by the warehouse, as `open_without_offset` does.
                let ends = warehouse.chain_ends(self.stage, self.epoch, partition);
                let nothing = Checkpoint::default();
                let ends_at = log.end();
                let protocol = if ends == Links::default()
                    || is_broken(Break::LoaderTrustsOffsetsOnly)
                {
                    PartitionProtocol::start(topic, partition, rules(self.epoch), first, nothing)
                } else {
                    let region = Region::without_offsets(first, ends_at, ends, false);
                    PartitionProtocol::start_with(
                        topic,
                        partition,
                        rules(self.epoch),
                        first,
                        region,
                        nothing,
                    )
                };
                (protocol, first)
            }
        };
        self.running = Some(Running { protocol, read_to });
        Ok(())
    }

    /// Reads what waits and carries out what the protocol says, until it has nothing to do.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn work(
        &mut self,
        cluster: &mut Cluster,
        warehouse: &mut Warehouse,
        random: &mut Random,
        mut fuse: Fuse,
    ) -> Result<(), String> {
        let now = UnixMillis(cluster.now);
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let log = cluster.log(&self.topic, self.partition);
        for record in log.from(running.read_to) {
            let value = record.value.clone().unwrap_or_default();
            let read = RowsRecord::read(record.offset, now, value);
            if let Some(broken) = running.protocol.received(record.offset, read) {
                return Err(format!(
                    "{} {}: broken chain {broken:?}",
                    self.topic, self.partition
                ));
            }
        }
        running.read_to = log.end().max(running.read_to);
        let counters = warehouse.counters();
        let mut next = running.protocol.next(now, running.read_to, &counters);
        while let Some(action) = next {
            let dies = fuse == Some(0);
            fuse = fuse.map(|steps| steps.saturating_sub(1));
            next = match action {
                Action::Commit { offset, metadata } => {
                    if !dies || random.one_in(2) {
                        cluster.commit_offset(
                            &self.group,
                            &self.topic,
                            self.partition,
                            offset,
                            metadata,
                        );
                    }
                    running.protocol.committed()
                }
                Action::Insert(batch) => {
                    let parts = random.below(batch.tables.len() + 2);
                    let extent = if dies {
                        Extent::Parts(parts)
                    } else {
                        Extent::All
                    };
                    warehouse.insert(&batch, now.0, extent);
                    running.protocol.inserted()
                }
                Action::InsertAgain(batch) => {
                    if !dies || random.one_in(2) {
                        warehouse.insert_again(&batch, now.0);
                    }
                    running.protocol.inserted()
                }
                Action::Restore(batch) => {
                    if !dies || random.one_in(2) {
                        warehouse.complete(&batch);
                    }
                    running.protocol.inserted()
                }
                Action::Inspect(batch) | Action::Compare(batch) => {
                    running.protocol.inspected(now, &warehouse.facts(&batch))
                }
                Action::Stop(reason) => {
                    self.running = None;
                    return Err(format!("{} {}: {reason}", self.topic, self.partition));
                }
            };
            if dies {
                self.running = None;
                return Ok(());
            }
            if next.is_none() {
                next = running.protocol.next(now, running.read_to, &counters);
            }
        }
        Ok(())
    }

    /// Whether everything in the log is in the warehouse, as the group's offset says.
    pub(crate) fn is_done(&self, cluster: &Cluster) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let log = cluster.log(&self.topic, self.partition);
            log.from(running.protocol.position()).next().is_none()
        })
    }
}
