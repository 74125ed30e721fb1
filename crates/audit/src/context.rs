//! Where the sides are, and how they are read.

use std::cell::Cell;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spendfuse_bus::{
    InputRecord, KafkaConfig, PartitionRange, Unreadable, committed_offsets, read_ranges,
    topic_ranges,
};
use spendfuse_domain::Topics;
use spendfuse_pricing::{PriceBook, PricingPolicy};
use spendfuse_warehouse::{Warehouse, WarehouseError};
use tokio::runtime::Runtime;

use crate::error::AuditError;

const POLL: Duration = Duration::from_millis(100);
/// How long the loader may need for rows that are in its topics.
const LOADER_PATIENCE: Duration = Duration::from_secs(20);

/// Where the sides are.
pub struct Context<'a> {
    /// How to reach the brokers.
    pub kafka: KafkaConfig,
    /// How long a broker may take to answer.
    pub patience: Duration,
    /// Names of the topics.
    pub topics: Topics,
    /// Which set of topics they are.
    pub epoch: u32,
    /// Begins the names of the stages' groups.
    pub id_prefix: &'a str,
    /// The warehouse, which has answered.
    pub warehouse: &'a Warehouse,
    /// Waits for the warehouse's answers.
    pub runtime: &'a Runtime,
    /// How long identities are remembered, milliseconds.
    pub dedupe_horizon_millis: i64,
    /// For how long the warehouse keeps rows and lines, milliseconds.
    pub kept_millis: i64,
    /// What the operator decided about prices.
    pub policy: Arc<PricingPolicy>,
    /// A price book by its version; `None` where nobody has it.
    pub book: &'a dyn Fn(&str) -> Option<Arc<PriceBook>>,
    /// Told of what is left out, as it is met.
    pub warn: &'a dyn Fn(&dyn Display),
    /// Only what arrived since then, milliseconds since 1970.
    pub since: Option<i64>,
    /// How long the audit has waited for others so far.
    pub waited: Cell<Duration>,
}

impl Context<'_> {
    /// Waits for others, or for another look.
    #[allow(
        clippy::disallowed_methods,
        reason = "the pause is the point: what others do is asked, nobody tells"
    )]
    pub(crate) fn pause(&self, time: Duration) {
        std::thread::sleep(time);
        self.waited.set(self.waited.get() + time);
    }

    /// Waits for an answer of ClickHouse.
    pub(crate) fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, WarehouseError>>,
    ) -> Result<T, AuditError> {
        Ok(self.runtime.block_on(answer)?)
    }

    /// The rows of an answer of ClickHouse.
    pub(crate) fn ask(&self, question: &str) -> Result<Vec<Vec<String>>, AuditError> {
        Ok(self.wait(self.warehouse.query_table(question))?.rows)
    }

    /// What a topic holds now; with `since` only what arrived from then on.
    pub(crate) fn ranges(
        &self,
        topic: &str,
        since: Option<i64>,
    ) -> Result<Vec<PartitionRange>, AuditError> {
        Ok(topic_ranges(&self.kafka, topic, since, self.patience)?)
    }

    /// Hands the records of `ranges` to `handler`, until it breaks. Warns of those that cannot be
    /// read.
    pub(crate) fn read(
        &self,
        topic: &str,
        ranges: &[PartitionRange],
        handler: &mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), AuditError> {
        for lost in self.read_around(topic, ranges, handler)? {
            (self.warn)(&lost);
        }
        Ok(())
    }

    /// Hands the records of `ranges` to `handler`, until it breaks. Returns those that cannot be
    /// read.
    pub(crate) fn read_around(
        &self,
        topic: &str,
        ranges: &[PartitionRange],
        handler: &mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Unreadable>, AuditError> {
        let read = read_ranges(&self.kafka, topic, ranges, self.patience, handler);
        Ok(read?)
    }

    /// Hands everything that a topic holds, or got since a time, to `handler`.
    pub(crate) fn read_since(
        &self,
        topic: &str,
        since: Option<i64>,
        mut handler: impl FnMut(&InputRecord<'_>),
    ) -> Result<(), AuditError> {
        let ranges = self.ranges(topic, since)?;
        self.read(topic, &ranges, &mut |record| {
            handler(record);
            ControlFlow::Continue(())
        })
    }

    /// Per partition, the next offset of an input topic that the meter will process.
    pub(crate) fn processed(&self, topic: &str) -> Result<Vec<Option<i64>>, AuditError> {
        self.group_offsets("meter", topic)
    }

    /// Per topic of rows and partition, the offset up to which everything is in the warehouse.
    pub(crate) fn loaded(&self) -> Result<[Vec<i64>; 2], AuditError> {
        let offsets = |topic: &str| -> Result<Vec<i64>, AuditError> {
            let offsets = self.group_offsets("loader", topic)?;
            Ok(offsets
                .into_iter()
                .map(|offset| offset.unwrap_or(0))
                .collect())
        };
        let topics = &self.topics;
        Ok([offsets(&topics.rows)?, offsets(&topics.rows_ledger)?])
    }

    /// Per partition, the next offset of a topic that a role's group reads.
    fn group_offsets(&self, role: &str, topic: &str) -> Result<Vec<Option<i64>>, AuditError> {
        let group = format!("{}-{role}", self.id_prefix);
        let offsets = committed_offsets(&self.kafka, &group, topic, self.patience);
        Ok(offsets?)
    }

    /// Waits until the warehouse has all rows that are in their topics now. `false`: it does not get
    /// there in time.
    pub(crate) fn wait_until_loaded(&self) -> Result<bool, AuditError> {
        let topics = [&self.topics.rows, &self.topics.rows_ledger];
        let mut missing = Vec::new();
        for (place, topic) in topics.into_iter().enumerate() {
            let ranges = self.ranges(topic, None)?;
            missing.extend(ranges.into_iter().map(|range| (place, topic, range)));
        }
        let begin = Instant::now();
        loop {
            let loaded = self.loaded()?;
            let mut still_missing = Vec::new();
            for (place, topic, mut range) in missing {
                range.from = range.from.max(loaded[place][range.partition as usize]);
                // What lies beyond the last record is no record: the ends of transactions.
                let mut has_record = false;
                self.read(topic, &[range], &mut |_| {
                    has_record = true;
                    ControlFlow::Break(())
                })?;
                if has_record {
                    still_missing.push((place, topic, range));
                }
            }
            missing = still_missing;
            if missing.is_empty() {
                return Ok(true);
            }
            if begin.elapsed() > LOADER_PATIENCE {
                return Ok(false);
            }
            self.pause(POLL);
        }
    }
}
