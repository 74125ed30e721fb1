//! Kafka and ClickHouse together.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::clickhouse::{ClickHouse, ClickHouseOptions};
use crate::error::{DevStackError, while_doing};
use crate::kafka::{Kafka, KafkaOptions};
use crate::ports::{CLICKHOUSE_PORT, KAFKA_PORT};

/// Name of the line with the bootstrap servers in the file that [`DevStack::write_env`] writes.
pub const ENV_KAFKA_BROKERS: &str = "SPENDFUSE_KAFKA_BROKERS";
/// Name of the line with ClickHouse's address in the file that [`DevStack::write_env`] writes.
pub const ENV_CLICKHOUSE_URL: &str = "SPENDFUSE_CLICKHOUSE_URL";

/// How to start both.
#[derive(Debug, Clone, Default)]
pub struct DevStackOptions {
    /// Kafka's part.
    pub kafka: KafkaOptions,
    /// ClickHouse's part.
    pub clickhouse: ClickHouseOptions,
}

impl DevStackOptions {
    /// Keeps data and logs in `folder/kafka` and `folder/clickhouse`.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        let part = |name: &str| -> Option<PathBuf> { Some(folder.join(name)) };
        self.kafka.folder = part("kafka");
        self.clickhouse.folder = part("clickhouse");
        self
    }

    /// Asks for the ports that documentation names; see [`KafkaOptions::port`].
    #[must_use]
    pub fn on_usual_ports(mut self) -> Self {
        self.kafka.port = Some(KAFKA_PORT);
        self.clickhouse.port = Some(CLICKHOUSE_PORT);
        self
    }
}

/// A running Kafka and ClickHouse. Dropped, both are killed.
#[derive(Debug)]
pub struct DevStack {
    /// The broker.
    pub kafka: Kafka,
    /// The warehouse.
    pub clickhouse: ClickHouse,
}

impl DevStack {
    /// Starts both at the same time and waits until both are ready.
    ///
    /// # Errors
    /// The first part's error; the other part is stopped then.
    pub fn start(options: DevStackOptions) -> Result<Self, DevStackError> {
        let (kafka, clickhouse) = thread::scope(|scope| {
            let clickhouse = scope.spawn(|| ClickHouse::start(options.clickhouse));
            let kafka = Kafka::start(options.kafka);
            let clickhouse = clickhouse
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (kafka, clickhouse)
        });
        Ok(Self {
            kafka: kafka?,
            clickhouse: clickhouse?,
        })
    }

    /// The lines `NAME=value` that tell other programs where both are.
    pub fn env_lines(&self) -> String {
        format!(
            "{ENV_KAFKA_BROKERS}={}\n{ENV_CLICKHOUSE_URL}={}\n",
            self.kafka.brokers(),
            self.clickhouse.url()
        )
    }

    /// A line for each part that is not on its usual port.
    pub fn moved(&self) -> Vec<String> {
        let parts = [
            ("Kafka", KAFKA_PORT, self.kafka.brokers()),
            ("ClickHouse", CLICKHOUSE_PORT, self.clickhouse.url()),
        ];
        let moved = parts
            .iter()
            .filter(|(_, usual, address)| !address.contains(&format!(":{usual}")));
        moved
            .map(|(part, usual, address)| format!("port {usual} is taken: {part} is at {address}"))
            .collect()
    }

    /// Writes [`DevStack::env_lines`] to a file, at once or not at all.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write_env(&self, path: &Path) -> Result<(), DevStackError> {
        let unfinished = path.with_extension("unfinished");
        fs::write(&unfinished, self.env_lines())
            .and_then(|()| fs::rename(&unfinished, path))
            .map_err(while_doing(format!("writing {}", path.display())))
    }

    /// Stops both in order and keeps the data of named folders.
    pub fn shut_down(self) {
        self.clickhouse.shut_down();
        self.kafka.shut_down();
    }
}
