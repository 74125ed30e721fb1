//! A real Kafka and a real ClickHouse engine on this machine, for the demo and for tests.
//!
//! In: the cache folder that `make setup` fills. Out: running servers with their addresses,
//! which can be killed, stopped, paused and restarted on the same ports and data. Whatever is
//! started here ends with the process that started it, however that process ends.
//! Called by end-to-end tests, by the demo and by `spendfuse-devstack up`. Never in production.
//!
//! ```no_run
//! use spendfuse_devstack::{DevStack, DevStackOptions};
//!
//! let stack = DevStack::start(DevStackOptions::default())?;
//! println!("{} {}", stack.kafka.brokers(), stack.clickhouse.url());
//! # Ok::<(), spendfuse_devstack::DevStackError>(())
//! ```

mod child;
mod clickhouse;
mod error;
mod folder;
mod kafka;
mod locate;
mod poll;
mod ports;
mod stack;

pub use child::ServerProcess;
pub use clickhouse::{ClickHouse, ClickHouseOptions};
pub use error::DevStackError;
pub use folder::DataFolder;
pub use kafka::{Damage, Kafka, KafkaOptions, Purpose, Segment, StoredBatch};
pub use poll::wait_until;
pub use ports::{CLICKHOUSE_PORT, KAFKA_PORT, free_port};
pub use stack::{DevStack, DevStackOptions, ENV_CLICKHOUSE_URL, ENV_KAFKA_BROKERS};
