//! Where ClickHouse is and how it is used.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of section `clickhouse`.
#[derive(Clone)]
pub struct WarehouseConfig {
    /// Address of the HTTP interface, `http://host:8123` or `https://host:8443`.
    pub url: String,
    /// A CA whose certificates are believed besides those of the system's store; PEM.
    pub ca_file: Option<PathBuf>,
    /// User name; empty = `default`.
    pub user: String,
    /// Password; empty = none. Never printed.
    pub password: String,
    /// Database, created where it does not exist.
    pub database: String,
    /// Whether tables use `Replicated…` engines (the database then needs engine `Replicated`, or a
    /// server with default replica paths).
    pub replicated: bool,
    /// How long rows of `spend` are kept, months of the events' own time. Rollups stay.
    pub spend_retention_months: u32,
    /// How long states of findings, verdicts and window lines are kept, months.
    pub history_retention_months: u32,
    /// How long a query may take.
    pub query_timeout: Duration,
    /// How long sending and carrying out one insert may take, each.
    pub insert_timeout: Duration,
}

impl Default for WarehouseConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8123".to_owned(),
            ca_file: None,
            user: String::new(),
            password: String::new(),
            database: "spendfuse".to_owned(),
            replicated: false,
            spend_retention_months: 13,
            history_retention_months: 13,
            query_timeout: Duration::from_secs(60),
            insert_timeout: Duration::from_secs(60),
        }
    }
}

/// Everything but the password.
impl fmt::Debug for WarehouseConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WarehouseConfig")
            .field("url", &crate::error::without_secrets(&self.url))
            .field("user", &self.user)
            .field("database", &self.database)
            .field("replicated", &self.replicated)
            .field("spend_retention_months", &self.spend_retention_months)
            .finish_non_exhaustive()
    }
}
