//! The meter stage: usage events in, everything that follows from them out.

mod broken;
mod corrections;
mod partition;
mod publish;
mod recovered;
mod rejects;
mod settled;
mod tallies;

use std::sync::Arc;

use spendfuse_bus::{LogicError, StageLogic};
use spendfuse_domain::Topics;
use spendfuse_engine::meter::MeterConfig;

use crate::tables::Tables;

pub use partition::MeterPartition;
pub use rejects::BACKFILL;

/// Index of the usage topic among the stage's inputs.
pub const USAGE: usize = 0;
/// Index of the topic of events that were handed over to their home partition.
pub const REROUTED: usize = 1;

/// Index of the topic of corrections; an installation of an older release has none until `topics
/// create` is run again.
pub const CORRECTIONS: usize = 2;

/// Makes the meter's partitions.
#[derive(Debug)]
pub struct MeterStage {
    /// Parameters; `partition` is set for each.
    pub config: MeterConfig,
    /// Where outputs go.
    pub topics: Arc<Topics>,
    /// Budgets and prices.
    pub tables: Arc<Tables>,
}

impl StageLogic for MeterStage {
    type Partition = MeterPartition;

    fn open(&mut self, partition: u32) -> Result<MeterPartition, LogicError> {
        let config = MeterConfig {
            partition,
            ..self.config.clone()
        };
        Ok(MeterPartition::new(
            config,
            Arc::clone(&self.topics),
            Arc::clone(&self.tables),
        ))
    }

    fn between_batches<'p>(
        &mut self,
        partitions: &mut dyn Iterator<Item = (u32, &'p mut MeterPartition)>,
    ) where
        Self::Partition: 'p,
    {
        let budgets = self.tables.budgets.load();
        let prices = self.tables.prices.load();
        for (_, partition) in partitions {
            partition.use_tables(&budgets, &prices);
        }
    }
}
