//! Which run of the ClickHouse server this is.
//!
//! The server says when it started only in whole seconds of a clock that may be set, and one that is
//! restarted at once starts in the same second. A table in its memory goes with its process.

use crate::client::Warehouse;
use crate::error::WarehouseError;
use crate::query::cell;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS server_run \
    (first_asked Int64 COMMENT 'microseconds since 1970, by the server') \
    ENGINE = Memory \
    COMMENT 'which run of the server this is: only in its memory, so that the loader notices a restart'";

impl Warehouse {
    /// A number that is another one after the server was restarted: when it was first asked, in
    /// microseconds since 1970 by its clock. `None` with replicated tables, whose inserts are
    /// acknowledged by a quorum.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn server_run(&self) -> Result<Option<i64>, WarehouseError> {
        if self.config().replicated {
            return Ok(None);
        }
        match self.first_asked().await {
            Ok(Some(run)) => return Ok(Some(run)),
            Ok(None) => {}
            Err(error) if error.is_unknown_table() => {
                self.execute(TABLE, "creating table server_run").await?;
            }
            Err(error) => return Err(error),
        }
        self.execute(
            "INSERT INTO server_run SELECT toUnixTimestamp64Micro(now64(6))",
            "filling table server_run",
        )
        .await?;
        self.first_asked().await
    }

    /// Two loaders that asked at the same time have put in two; a later answer may be less than an
    /// earlier one then, which costs a comparison.
    async fn first_asked(&self) -> Result<Option<i64>, WarehouseError> {
        let table = self
            .query_table("SELECT min(first_asked) FROM server_run HAVING count() > 0")
            .await?;
        match table.rows.is_empty() {
            true => Ok(None),
            false => cell(&table, 0, 0).map(Some),
        }
    }
}
