//! Losses that somebody has accepted, table `gaps`.

use spendfuse_domain::UnixMillis;

use crate::client::{Warehouse, quoted};
use crate::error::WarehouseError;
use crate::query::cell;

/// A loss that somebody has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapRow {
    /// When.
    pub accepted_at: UnixMillis,
    /// The consumer group that goes on behind it.
    pub group: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// What the group had committed.
    pub from: i64,
    /// Where it goes on.
    pub to: i64,
}

impl Warehouse {
    /// Records a loss; the same again changes nothing.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn record_gap(&self, gap: &GapRow) -> Result<(), WarehouseError> {
        let GapRow {
            accepted_at: UnixMillis(at),
            group,
            topic,
            partition,
            from,
            to,
        } = gap;
        let insert = format!(
            "INSERT INTO gaps SETTINGS async_insert = 0 SELECT fromUnixTimestamp64Milli({at}, 'UTC'), \
             {}, {}, {partition}, {from}, {to} WHERE ({}, {}, {partition}, {from}, {to}) NOT IN \
             (SELECT consumer_group, topic, partition, from_offset, to_offset FROM gaps)",
            quoted(group),
            quoted(topic),
            quoted(group),
            quoted(topic),
        );
        self.execute(&insert, "recording an accepted gap").await
    }

    /// Every loss that was ever accepted, the latest first.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn gaps(&self) -> Result<Vec<GapRow>, WarehouseError> {
        let asked = self
            .query_table(
                "SELECT toUnixTimestamp64Milli(accepted_at), consumer_group, topic, partition, \
                 from_offset, to_offset FROM gaps FINAL ORDER BY accepted_at DESC, topic, partition",
            )
            .await;
        let table = match asked {
            Err(error) if error.is_unknown_table() => return Ok(Vec::new()),
            asked => asked?,
        };
        let gap = |row| {
            Ok(GapRow {
                accepted_at: UnixMillis(cell(&table, row, 0)?),
                group: cell(&table, row, 1)?,
                topic: cell(&table, row, 2)?,
                partition: cell(&table, row, 3)?,
                from: cell(&table, row, 4)?,
                to: cell(&table, row, 5)?,
            })
        };
        (0..table.rows.len()).map(gap).collect()
    }
}
