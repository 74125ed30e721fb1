//! A set of topics and whoever works on it. A year sees several: partitions grow by a new set, as
//! `docs/operations.md` says, or somebody deletes all topics and makes them again under their names.

use std::sync::Arc;

use spendfuse_domain::Topics;

use super::{LOADER_GROUP, SIDECARS, World};
use crate::budget::Budget;
use crate::loader::Lane;
use crate::openings::OpeningTeller;
use crate::process::{HORIZON, Processor};
use crate::sidecar::Sidecar;

pub(super) struct TopicSet {
    /// Counts the sets.
    pub(super) epoch: u32,
    pub(super) partitions: u32,
    pub(super) prefix: String,
    pub(super) topics: Arc<Topics>,
}

impl TopicSet {
    pub(super) fn new(epoch: u32, prefix: &str, partitions: u32) -> Self {
        Self {
            epoch,
            partitions,
            prefix: prefix.to_owned(),
            topics: Arc::new(Topics::new(&format!("{prefix}."))),
        }
    }

    pub(super) fn group(&self, stage: &str) -> String {
        format!("{}-{stage}", self.prefix)
    }

    pub(super) fn processor(&self) -> Processor {
        Processor::new(&self.topics, self.partitions, &self.prefix, self.epoch)
    }

    pub(super) fn lanes(&self) -> Vec<Lane> {
        let rows = [
            (&self.topics.rows, "meter"),
            (&self.topics.rows_ledger, "ledger"),
        ];
        let lanes = rows.into_iter().flat_map(|(topic, stage)| {
            let lane = move |one| Lane::new(LOADER_GROUP, topic, stage, one, self.epoch);
            (0..self.partitions).map(lane)
        });
        lanes.collect()
    }

    pub(super) fn openings(&self) -> OpeningTeller {
        OpeningTeller::new(LOADER_GROUP, &self.topics, self.epoch, self.partitions)
    }

    pub(super) fn sidecars(&self) -> Vec<Sidecar> {
        let sidecar = |_| Sidecar::new(&self.topics, self.partitions);
        (0..SIDECARS).map(sidecar).collect()
    }
}

impl World {
    /// Senders stop, what is in flight arrives, and everybody goes on with a new set.
    pub(super) fn change_topics(&mut self) -> Result<(), String> {
        if !self.everybody_is_there() {
            return Ok(());
        }
        self.look()?;
        self.begin_topics()
    }

    /// Everybody goes on with a new set: under another prefix with other partitions, or under the same
    /// names.
    pub(super) fn begin_topics(&mut self) -> Result<(), String> {
        let budgets: Vec<Budget> = { self.reference.budgets().into_values() }
            .map(|(budget, _)| budget)
            .collect();
        let epoch = self.set.epoch + 1;
        let next = match self.random.one_in(2) {
            true => TopicSet::new(epoch, &self.set.prefix, self.set.partitions),
            false => {
                let partitions = self.random.pick(&[1, 2, 3]);
                TopicSet::new(epoch, &format!("spendfuse{epoch}"), partitions)
            }
        };
        self.cluster.delete(&self.set.topics);
        self.cluster.create(&next.topics, next.partitions, HORIZON);
        self.processor = next.processor();
        self.lanes = next.lanes();
        self.openings = next.openings();
        self.sidecars = next.sidecars();
        self.looked_at_dlq = vec![0; next.partitions as usize];
        self.set = next;
        self.reference.begin_anew(epoch);
        self.change_prices();
        self.processor.start(&mut self.cluster)?;
        self.start_loader()?;
        let cluster = &self.cluster;
        self.sidecars.iter_mut().for_each(|one| one.start(cluster));
        self.settle()?;
        self.recover()?;
        self.apply(budgets)
    }
}
