//! What ClickHouse has of the topics before.

use spendfuse_domain::UnixMillis;

use super::super::Failure;
use super::super::correct::rows::{ask, number};
use super::super::warehouse::Connection;

/// The topics before these, and what was loaded of them.
pub struct Before {
    /// Their epoch; there may be earlier ones.
    pub epoch: u32,
    /// Of these topics.
    pub own_epoch: u32,
    /// By partition.
    pub partitions: Vec<Loaded>,
    /// When the newest of all entries was counted.
    pub newest: UnixMillis,
}

/// What was loaded of a partition of the meter.
pub struct Loaded {
    pub partition: u32,
    pub rows: u64,
    /// Number of the last commit.
    pub last_seq: u64,
    /// When the last event arrived that it counted.
    pub last_at: UnixMillis,
}

impl Before {
    /// `None` where these topics are the first.
    pub fn ask(connection: &Connection, own_epoch: u32) -> Result<Option<Self>, Failure> {
        let question = format!(
            "SELECT toString(epoch), toString(meter_partition), toString(count()), \
                    toString(max(meter_seq)), toString(toUnixTimestamp64Milli(max(received_at))) \
             FROM spend WHERE epoch = (SELECT max(epoch) FROM spend WHERE epoch < {own_epoch}) \
               AND epoch < {own_epoch} \
             GROUP BY epoch, meter_partition ORDER BY meter_partition"
        );
        let mut found: Option<Self> = None;
        for cells in ask(connection, &question)? {
            let [epoch, partition, rows, seq, at] = &cells[..] else {
                continue;
            };
            let loaded = Loaded {
                partition: number(partition)?,
                rows: number(rows)?,
                last_seq: number(seq)?,
                last_at: UnixMillis(number(at)?),
            };
            let epoch = number(epoch)?;
            let before = found.get_or_insert_with(|| Self {
                epoch,
                own_epoch,
                partitions: Vec::new(),
                newest: UnixMillis::default(),
            });
            before.newest = before.newest.max(loaded.last_at);
            before.partitions.push(loaded);
        }
        Ok(found)
    }
}
