//! The ledger stage: deltas in, states and verdicts of budgets out.

use std::sync::Arc;

use metrics::{counter, gauge};
use spendfuse_bus::{
    InputProgress, InputRecord, LogicError, Outputs, PartitionLogic, RestoreSource, StageLogic,
    Unreadable,
};
use spendfuse_domain::verdict::{Stage, WantedOpening};
use spendfuse_domain::{Topics, UnixMillis};
use spendfuse_engine::codec;
use spendfuse_engine::delta::Deltas;
use spendfuse_engine::ledger::{Ledger, LedgerConfig, OPENINGS_KEY, Openings};
use spendfuse_warehouse::block::{BudgetWindowRow, BudgetWindows};

use crate::heartbeat::Watermark;
use crate::metrics::{ACCOUNTS, BROKEN_LINKS, OPENINGS_WANTED, WITHOUT_ACCOUNT};
use crate::publish::{LINKS_KEY, Publisher, RowLinks};
use crate::tables::Tables;
use crate::unreadable;

/// Counts that a heartbeat names as waiting for their openings, at most.
const MOST_WANTED: usize = 100;

/// Makes the ledger's partitions.
#[derive(Debug)]
pub struct LedgerStage {
    /// Parameters; `partition` is set for each.
    pub config: LedgerConfig,
    /// Where outputs go.
    pub topics: Arc<Topics>,
    /// Budgets.
    pub tables: Arc<Tables>,
}

/// One partition of the ledger stage.
pub struct LedgerPartition {
    partition: u32,
    partitions: u32,
    topics: Arc<Topics>,
    tables: Arc<Tables>,
    ledger: Ledger,
    seq: u64,
    watermark: Watermark,
    links: RowLinks,
}

impl StageLogic for LedgerStage {
    type Partition = LedgerPartition;

    fn open(&mut self, partition: u32) -> Result<LedgerPartition, LogicError> {
        let config = LedgerConfig {
            partition,
            ..self.config.clone()
        };
        let budgets = self.tables.budgets.load_full();
        Ok(LedgerPartition {
            partition,
            partitions: self.config.partitions,
            topics: Arc::clone(&self.topics),
            tables: Arc::clone(&self.tables),
            ledger: match self.tables.computes_openings {
                true => Ledger::new(config, budgets).with_computed_openings(),
                false => Ledger::new(config, budgets),
            },
            seq: 0,
            watermark: Watermark::new(Stage::Ledger, partition, &[&self.topics.deltas]),
            links: RowLinks::default(),
        })
    }

    fn between_batches<'p>(
        &mut self,
        partitions: &mut dyn Iterator<Item = (u32, &'p mut LedgerPartition)>,
    ) where
        Self::Partition: 'p,
    {
        let budgets = self.tables.budgets.load();
        for (_, partition) in partitions {
            // Not by version: those of a topic that was made anew begin again.
            if !Arc::ptr_eq(&budgets, partition.ledger.book()) {
                partition.ledger.set_book(Arc::clone(&budgets));
                // Whoever waits for the budgets to be in force learns it.
                partition.watermark.announce();
            }
            // Changed budgets are judged at once, not at the next tick.
            let now = partition.ledger.now();
            partition.ledger.advance(now);
        }
    }
}

impl LedgerPartition {
    /// The state machine, for audits and tests.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What was spent before a count began. What cannot be read is asked for again.
    fn take_openings(&mut self, record: &InputRecord<'_>) {
        match codec::decode::<Openings>(record.value.unwrap_or_default()) {
            Ok(told) => self.ledger.take_openings(&told),
            Err(error) => {
                let (partition, offset) = (record.partition, record.offset);
                tracing::error!(partition, offset, %error, "openings cannot be read and are passed by");
            }
        }
    }

    /// Whether the budgets in use are those that the meter counted by, or later ones: deltas of a
    /// series that is not known yet would be dropped.
    fn knows_budgets(&self, version: u64) -> bool {
        let used = self.ledger.budget_version();
        used >= version
            || (self.tables.need_budgets(version)
                && Arc::ptr_eq(&self.tables.budgets.load(), self.ledger.book()))
    }
}

impl PartitionLogic for LedgerPartition {
    fn restore(
        &mut self,
        _source: RestoreSource,
        key: &[u8],
        value: Option<&[u8]>,
        _timestamp_millis: i64,
    ) -> Result<(), LogicError> {
        if key == LINKS_KEY {
            return value.map_or(Ok(()), |value| self.links.restore(value));
        }
        self.ledger
            .restore(key, value)
            .map_err(|error| LogicError::Fatal(error.to_string()))
    }

    fn restored_time(&self) -> Option<i64> {
        Some(self.ledger.now().0).filter(|time| *time > 0)
    }

    fn restored(&mut self, _seq: u64) -> Result<(), LogicError> {
        self.ledger.restored();
        Ok(())
    }

    /// Nothing is judged before the budgets are known that the restored state was made with.
    fn ready(&mut self) -> Result<bool, LogicError> {
        Ok(self
            .tables
            .need_budgets(self.ledger.required_budget_version()))
    }

    fn begin(&mut self, seq: u64, now_millis: i64) {
        self.seq = seq;
        self.watermark.begin(now_millis);
        self.ledger.begin(seq);
        self.ledger.set_present(UnixMillis(now_millis));
    }

    fn process(&mut self, record: &InputRecord<'_>) -> Result<(), LogicError> {
        let arrival = UnixMillis(record.timestamp_millis);
        if record.key == Some(OPENINGS_KEY) {
            self.take_openings(record);
            self.watermark.processed(0, record.offset, arrival);
            return Ok(());
        }
        let deltas: Deltas = codec::decode(record.value.unwrap_or_default()).map_err(|error| {
            LogicError::Input(format!("deltas at offset {}: {error}", record.offset))
        })?;
        if !self.knows_budgets(deltas.budget_version) {
            return Err(LogicError::NotYet(format!(
                "deltas were counted by version {} of the budgets, but version {} is the newest seen",
                deltas.budget_version,
                self.ledger.budget_version()
            )));
        }
        self.ledger.apply(&deltas, arrival);
        self.watermark.processed(0, record.offset, arrival);
        Ok(())
    }

    /// Deltas are our own: one that cannot be read is spend that would go missing, so the partition
    /// stops instead of going on without it.
    fn reject(&mut self, record: &InputRecord<'_>, reason: &str) -> Result<(), LogicError> {
        Err(LogicError::Fatal(format!(
            "deltas at partition {} offset {} cannot be applied ({reason}); the ledger stops rather than lose spend",
            record.partition, record.offset
        )))
    }

    /// Nothing that could be mended holds these deltas: the partition goes on, and the chain says at
    /// the next delta which commits are missing.
    fn unreadable(&mut self, _topic_index: usize, lost: &Unreadable) -> Result<(), LogicError> {
        let alert = unreadable::alert(lost, self.ledger.now());
        self.ledger.tell(alert);
        Ok(())
    }

    fn tick(&mut self, now_millis: i64, inputs: &[InputProgress]) {
        self.watermark.tick(now_millis, inputs);
        for alert in self.watermark.take_alerts() {
            self.ledger.tell(alert);
        }
        self.ledger.advance(self.watermark.complete_to());
    }

    fn next_due(&self) -> Option<i64> {
        self.ledger.next_due().map(|time| time.0)
    }

    fn has_output(&self) -> bool {
        self.watermark.is_due() || self.ledger.has_output()
    }

    fn finish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        let published = self.ledger.finish();
        let mut publisher = Publisher {
            outputs,
            topics: &self.topics,
            rows_topic: &self.topics.rows_ledger,
            stage: Stage::Ledger,
            partition: self.partition,
            partitions: self.partitions,
            seq: self.seq,
            format: self.tables.row_format,
            links: &mut self.links,
        };
        let mut heartbeat = self.watermark.take(self.seq, self.ledger.budget_version());
        if let Some((_, heartbeat)) = &mut heartbeat {
            let mut wanted: Vec<WantedOpening> = self.ledger.wanted_openings().collect();
            show_wanted(self.partition, wanted.len());
            wanted.truncate(MOST_WANTED);
            heartbeat.openings = wanted;
        }
        publisher.publish(&published.told, heartbeat)?;
        publisher.rows::<BudgetWindows, _>(&published.window_lines, |line, address| {
            BudgetWindowRow { line, address }
        })?;
        self.links.finish(outputs)?;
        counter!(BROKEN_LINKS).increment(published.broken_links);
        counter!(WITHOUT_ACCOUNT).increment(published.without_account);
        show_accounts(self.partition, self.ledger.len());
        Ok(())
    }

    fn clear_metrics(&self) {
        self.watermark.clear_metrics();
        show_wanted(self.partition, 0);
        show_accounts(self.partition, 0);
    }
}

fn show_wanted(partition: u32, openings: usize) {
    gauge!(OPENINGS_WANTED, "partition" => partition.to_string()).set(openings as f64);
}

fn show_accounts(partition: u32, accounts: usize) {
    gauge!(ACCOUNTS, "partition" => partition.to_string()).set(accounts as f64);
}
