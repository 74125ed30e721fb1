//! What Kafka says: heartbeats, budgets, and how far rows are loaded.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use spendfuse_bus::{
    BusError, InputRecord, KafkaConfig, PartitionRange, committed_with_metadata, read_ranges,
    topic_ranges,
};
use spendfuse_domain::budget::{Budget, BudgetsRecord};
use spendfuse_domain::verdict::{BlocklistKey, Heartbeat, Stage, WantedOpening};
use spendfuse_domain::{BudgetId, UnixMillis};

use crate::LoaderConfig;
use crate::checkpoint::is_of_another_database;

const PATIENCE: Duration = Duration::from_secs(10);
/// Heartbeats come every second, and a partition tells 2,000 figures a second at most: further back
/// there is nothing new.
const RECORDS_BACK: i64 = 5_000;

/// The last heartbeats.
#[derive(Default)]
pub(super) struct Heard {
    /// By partition, where the blocklist was read to.
    positions: BTreeMap<u32, i64>,
    meters: BTreeMap<u32, u64>,
    ledgers: BTreeMap<u32, Vec<WantedOpening>>,
    /// The latest broker time that any partition has come to.
    latest: UnixMillis,
}

impl Heard {
    /// Reads on. An older record than one that was read says nothing.
    pub(super) fn listen(&mut self, kafka: &KafkaConfig, topic: &str) -> Result<(), BusError> {
        let mut ranges = topic_ranges(kafka, topic, None, PATIENCE)?;
        for range in &mut ranges {
            let known = self.positions.insert(range.partition, range.to);
            let from = known.unwrap_or(0).min(range.to).max(range.from);
            range.from = from.max(range.to - RECORDS_BACK);
        }
        read_ranges(kafka, topic, &ranges, PATIENCE, &mut |record| {
            self.take(record);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn take(&mut self, record: &InputRecord<'_>) {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let Some(BlocklistKey::Heartbeat { stage, partition }) = key.and_then(BlocklistKey::parse)
        else {
            return;
        };
        let beat = record.value.map(serde_json::from_slice::<Heartbeat>);
        let Some(Ok(beat)) = beat else { return };
        self.latest = self.latest.max(beat.complete_to);
        match stage {
            Stage::Meter => {
                self.meters.insert(partition, beat.budget_version);
            }
            Stage::Ledger => {
                self.ledgers.insert(partition, beat.openings);
            }
        }
    }

    /// Partitions of every stage.
    pub(super) fn partitions(&self) -> u32 {
        self.positions.len() as u32
    }

    /// A ledger that wants it still says so in its next heartbeat; one that is away is not told again.
    pub(super) fn is_told(&mut self, partition: u32, want: &WantedOpening) {
        if let Some(wanted) = self.ledgers.get_mut(&partition) {
            wanted.retain(|one| one != want);
        }
    }

    /// The time, also where this machine's clock is behind the brokers'.
    pub(super) fn now(&self) -> UnixMillis {
        UnixMillis::from(jiff::Timestamp::now()).max(self.latest)
    }

    /// Whether any ledger partition waits.
    pub(super) fn wants_any(&self) -> bool {
        self.wanted().next().is_some()
    }

    /// What ledger partitions wait for.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (u32, &WantedOpening)> {
        let ledgers = self.ledgers.iter();
        ledgers.flat_map(|(partition, wanted)| wanted.iter().map(|want| (*partition, want)))
    }

    /// Every meter partition counts by this version of the budgets or a later one, as far as all were
    /// heard of.
    pub(super) fn passed_by_all_meters(&self) -> Option<u64> {
        let all = 0..self.partitions();
        let heard = all.map(|partition| self.meters.get(&partition).copied());
        heard.collect::<Option<Vec<u64>>>()?.into_iter().min()
    }
}

/// Where the meter's topic of rows ends.
pub(super) fn ends(config: &LoaderConfig) -> Result<Vec<i64>, BusError> {
    let ranges = topic_ranges(&config.kafka, &config.rows_topic, None, PATIENCE)?;
    Ok(ranges.into_iter().map(|range| range.to).collect())
}

/// Whether the warehouse, whose database is `database`, has all rows before these ends. One that was
/// restored from a backup has not, whatever is committed, until its rebuild is done.
pub(super) fn is_loaded(
    config: &LoaderConfig,
    ends: &[i64],
    database: Option<&str>,
) -> Result<bool, BusError> {
    let (kafka, topic) = (&config.kafka, &config.rows_topic);
    let loaded = committed_with_metadata(kafka, &config.group_id, topic, PATIENCE)?;
    let mut known = loaded.iter().flatten();
    if known.any(|known| is_of_another_database(&known.metadata, database)) {
        return Ok(false);
    }
    let mut missing = topic_ranges(kafka, topic, None, PATIENCE)?;
    let bounds = ends.iter().zip(loaded);
    for (range, (end, loaded)) in missing.iter_mut().zip(bounds) {
        range.from = range.from.max(loaded.map_or(0, |known| known.offset));
        range.to = range.to.min(*end);
    }
    let is_left = |range: &PartitionRange| range.from < range.to;
    missing.retain(is_left);
    // What lies beyond the last record is no record: the ends of transactions.
    let mut has_record = false;
    read_ranges(kafka, topic, &missing, PATIENCE, &mut |_| {
        has_record = true;
        ControlFlow::Break(())
    })?;
    Ok(!has_record)
}

/// The budgets in force that count by the calendar and whose opening is to be found out.
pub(super) fn budgets(config: &LoaderConfig) -> Result<BTreeMap<BudgetId, Budget>, BusError> {
    let (kafka, topic) = (&config.kafka, &config.budgets_topic);
    let ranges = topic_ranges(kafka, topic, None, PATIENCE)?;
    let mut budgets = BTreeMap::new();
    read_ranges(kafka, topic, &ranges, PATIENCE, &mut |record| {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(BudgetId::new) else {
            return ControlFlow::Continue(());
        };
        let parsed = record
            .value
            .map(|value| BudgetsRecord::parse(id.as_str(), value));
        match parsed {
            Some(Ok(BudgetsRecord::Budget(budget)))
                if !budget.window.is_session() && budget.opening.is_none() =>
            {
                budgets.insert(id, budget);
            }
            _ => {
                budgets.remove(&id);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(budgets)
}
