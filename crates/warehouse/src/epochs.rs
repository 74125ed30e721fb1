//! Which topics each epoch has, as the warehouse knows it: a second set of topics on one database must
//! not give its rows addresses that others have.

use std::collections::BTreeSet;

use crate::client::{Warehouse, quoted};
use crate::error::WarehouseError;
use crate::query::cell;

/// A set of topics, by those whose rows come here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSet {
    /// Its number.
    pub epoch: u32,
    /// Kafka's id of the meter's topic of rows.
    pub rows: String,
    /// Kafka's id of the ledger's.
    pub ledger_rows: String,
}

impl Warehouse {
    /// Writes down that the epoch has these topics.
    ///
    /// # Errors
    /// [`WarehouseError::EpochTaken`] where it has others.
    pub async fn claim_epoch(&self, topics: &TopicSet) -> Result<(), WarehouseError> {
        if self.epoch_is_taken(topics).await? {
            return Err(WarehouseError::EpochTaken {
                database: self.config().database.clone(),
                epoch: topics.epoch,
            });
        }
        let TopicSet {
            epoch,
            rows,
            ledger_rows,
        } = topics;
        let (rows, ledger_rows) = (quoted(rows), quoted(ledger_rows));
        let claim = format!(
            "INSERT INTO epochs (epoch, rows, ledger_rows) SELECT {epoch}, {rows}, {ledger_rows} \
             WHERE (SELECT count() FROM epochs WHERE epoch = {epoch}) = 0"
        );
        self.execute(&claim, "recording the epoch").await
    }

    /// The epochs whose rows may lie in these topics: topics stay where others of the set were made anew.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn epochs_of(&self, topics: &TopicSet) -> Result<BTreeSet<u32>, WarehouseError> {
        let of_rows = format!(
            "SELECT epoch FROM epochs WHERE rows = {} OR ledger_rows = {}",
            quoted(&topics.rows),
            quoted(&topics.ledger_rows)
        );
        let found = self.query_table(&of_rows).await?;
        let rows = 0..found.rows.len();
        rows.map(|row| cell(&found, row, 0)).collect()
    }

    /// Whether the epoch has other topics, as far as anybody has loaded from them.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn epoch_is_taken(&self, topics: &TopicSet) -> Result<bool, WarehouseError> {
        if !self.has_table("epochs").await? {
            return Ok(false);
        }
        let others = format!(
            "SELECT count() FROM epochs WHERE epoch = {} AND (rows, ledger_rows) != ({}, {})",
            topics.epoch,
            quoted(&topics.rows),
            quoted(&topics.ledger_rows)
        );
        Ok(cell::<u64>(&self.query_table(&others).await?, 0, 0)? > 0)
    }

    /// The first epoch that no rows have yet.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn next_epoch(&self) -> Result<u32, WarehouseError> {
        let mut next = 0;
        for table in ["epochs", "spend_audit"] {
            if !self.has_table(table).await? {
                continue;
            }
            // Rows of schema 1 are those of epoch 0.
            let column = match self.has_column(table, "epoch").await? {
                true => "epoch",
                false => "0",
            };
            let last =
                format!("SELECT if(count() = 0, 0, toUInt32(max({column})) + 1) FROM {table}");
            next = next.max(cell(&self.query_table(&last).await?, 0, 0)?);
        }
        Ok(next)
    }

    async fn has_table(&self, table: &str) -> Result<bool, WarehouseError> {
        let found = self
            .query_without_database(&format!(
                "SELECT count() FROM system.tables WHERE database = {} AND name = {}",
                quoted(&self.config().database),
                quoted(table)
            ))
            .await?;
        Ok(cell::<u64>(&found, 0, 0)? > 0)
    }
}
