//! ClickHouse, for commands that ask it something.

use std::future::Future;

use spendfuse_warehouse::Warehouse;
use tokio::runtime::{self, Runtime};

use super::Failure;
use crate::settings::Settings;

/// A connection that calls block on.
pub struct Connection {
    /// Waits for its answers.
    pub runtime: Runtime,
    /// The warehouse, which has answered.
    pub warehouse: Warehouse,
}

impl Connection {
    /// Connects as `clickhouse.…` says.
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::work)?;
        let config = settings.warehouse();
        let warehouse = runtime
            .block_on(Warehouse::connect(config))
            .map_err(Failure::warehouse)?;
        Ok(Self { runtime, warehouse })
    }

    /// Waits for an answer.
    pub fn wait<T, E: Into<Failure>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(answer).map_err(Into::into)
    }
}
