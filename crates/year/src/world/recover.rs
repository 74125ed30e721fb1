//! Kafka is lost, or left for topics with other partitions. Running windows come back as openings; what
//! meters alone know is brought back from the warehouse, as `spendfuse recover` does it: here the events
//! that were counted. Sessions are not compared in a year, and begin anew.

use std::collections::BTreeMap;

use spendfuse_bus::OutputRecord;
use spendfuse_domain::recovered::{RECOVERED_KEY, RecoveredId, RecoveredRecord};
use spendfuse_domain::routing::home;
use spendfuse_domain::{Identity, UnixMillis};
use spendfuse_engine::meter::dedupe::SLACK_MINUTES;

use super::World;
use crate::broken::Habit;
use crate::calendar::MINUTE;
use crate::process::HORIZON;
use crate::warehouse::SpendRow;

/// For how long identities are remembered.
const REMEMBERED: i64 = HORIZON + SLACK_MINUTES as i64 * MINUTE;
/// Identities of one record.
const MOST_IDS: usize = 50;

impl World {
    /// All topics are gone while everybody works; what the warehouse does not have was in Kafka alone.
    pub(super) fn lose_kafka(&mut self) -> Result<(), String> {
        if !self.everybody_is_there() {
            return Ok(());
        }
        self.take_rows()?;
        self.begin_topics()
    }

    pub(super) fn everybody_is_there(&self) -> bool {
        let sidecars_are_up = self.sidecars.iter().all(|one| one.is_up);
        self.processor.is_up && self.is_loading && sidecars_are_up
    }

    /// The meters of new topics learn which events were counted before.
    pub(super) fn recover(&mut self) -> Result<(), String> {
        if Habit::IdentitiesNotRecovered.is_broken() {
            return Ok(());
        }
        let (epoch, partitions) = (self.set.epoch, self.set.partitions);
        let since = self.cluster.now - REMEMBERED;
        let mut ids: BTreeMap<u32, Vec<RecoveredId>> = BTreeMap::new();
        let rows = self.warehouse.spend().iter();
        let counted = |row: &&SpendRow| row.is_first && row.epoch < epoch;
        let mut rows: Vec<&SpendRow> = rows.filter(counted).collect();
        rows.retain(|row| row.received_at >= since);
        rows.sort_by_key(|row| row.received_at);
        self.year.recovered += rows.len() as u64;
        for row in rows {
            let call = &row.call;
            let identity = Identity::of(call.workspace, "app", &call.id, "final");
            let session = Some(call.session.as_str()).filter(|session| !session.is_empty());
            let id = RecoveredId::new(identity, UnixMillis(row.received_at));
            let partition = home(session, identity, partitions);
            ids.entry(partition).or_default().push(id);
        }
        let mut records = Vec::new();
        for (partition, ids) in &ids {
            records.extend(ids.chunks(MOST_IDS).map(|ids| {
                let record = RecoveredRecord {
                    v: 1,
                    epoch,
                    calls: Vec::new(),
                    ids: ids.to_vec(),
                };
                OutputRecord {
                    topic: self.set.topics.corrections.clone(),
                    partition: *partition,
                    key: Some(RECOVERED_KEY.to_vec()),
                    value: serde_json::to_vec(&record).ok(),
                    headers: Vec::new(),
                }
            }));
        }
        if records.is_empty() {
            return Ok(());
        }
        self.cluster.commit(records, None);
        self.settle()
    }
}
