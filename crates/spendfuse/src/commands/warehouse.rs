//! ClickHouse, for commands that ask it something.

use std::future::Future;

use spendfuse_warehouse::{Warehouse, WarehouseConfig, WarehouseError};
use tokio::runtime::{self, Runtime};

use super::Failure;
use crate::settings::Settings;

/// A connection that calls block on.
pub struct Connection {
    runtime: Runtime,
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
        let config = WarehouseConfig {
            url: settings.text("clickhouse.url").to_owned(),
            user: settings.text("clickhouse.user").to_owned(),
            password: settings.text("clickhouse.password").to_owned(),
            database: settings.text("clickhouse.database").to_owned(),
            replicated: settings.flag("clickhouse.replicated").map_err(Failure::usage)?,
            ..WarehouseConfig::default()
        };
        let warehouse = runtime
            .block_on(Warehouse::connect(config))
            .map_err(Failure::work)?;
        Ok(Self { runtime, warehouse })
    }

    /// Waits for an answer.
    pub fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, WarehouseError>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(answer).map_err(Failure::work)
    }
}
