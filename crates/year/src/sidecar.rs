//! A guard's replica, fed from the simulated topics.

use std::collections::HashMap;
use std::sync::Arc;

use spendfuse_domain::topics::TOMBSTONE_MILLIS;
use spendfuse_domain::{Topics, UnixMillis};
use spendfuse_guard::{CheckRequest, Guard, GuardConfig, GuardWriter, Now, State};

use crate::cluster::Cluster;
use crate::stage::key_text;

/// What an error says of a record of [`UNREADABLE_VERSION`].
const UNREADABLE: &str = "version 1000";
/// The version of records that no program knows yet.
pub(crate) const UNREADABLE_VERSION: u32 = 1000;

pub(crate) struct Sidecar {
    topics: Arc<Topics>,
    partitions: u32,
    replica: Option<(GuardWriter, Guard)>,
    next: HashMap<(String, u32), i64>,
    /// Records that could not be taken, and promises that were taken back.
    pub(crate) bad: Vec<String>,
    complete_to: Option<UnixMillis>,
    heard_at: i64,
    pub(crate) is_up: bool,
}

impl Sidecar {
    pub(crate) fn new(topics: &Arc<Topics>, partitions: u32) -> Self {
        Self {
            topics: Arc::clone(topics),
            partitions,
            replica: None,
            next: HashMap::new(),
            bad: Vec::new(),
            complete_to: None,
            heard_at: 0,
            is_up: false,
        }
    }

    /// Begins with nothing.
    pub(crate) fn start(&mut self, cluster: &Cluster) {
        self.replica = Some(Guard::new(GuardConfig::new(self.partitions)));
        self.complete_to = None;
        self.is_up = true;
        self.read_all(cluster);
    }

    /// From the beginning to what is there now.
    fn read_all(&mut self, cluster: &Cluster) {
        self.next.clear();
        self.heard_at = cluster.now;
        self.follow(cluster);
        if let Some((writer, _)) = &mut self.replica {
            writer.caught_up();
            writer.publish(UnixMillis(cluster.now));
        }
    }

    /// The process ends.
    pub(crate) fn stop(&mut self) {
        self.is_up = false;
        self.replica = None;
    }

    /// Cut off from Kafka, but alive: it goes on answering.
    pub(crate) fn cut_off(&mut self) {
        self.is_up = false;
    }

    /// Kafka is there again.
    pub(crate) fn come_back(&mut self, cluster: &Cluster) {
        if self.replica.is_none() {
            return self.start(cluster);
        }
        self.is_up = true;
        // The rule of the bus's follower: deletions may have been missed.
        if cluster.now - self.heard_at >= TOMBSTONE_MILLIS / 2 {
            if let Some((writer, _)) = &mut self.replica {
                writer.begin_again(UnixMillis(cluster.now));
            }
            return self.read_all(cluster);
        }
        self.follow(cluster);
    }

    /// Takes what came.
    pub(crate) fn follow(&mut self, cluster: &Cluster) {
        let Some((writer, guard)) = &mut self.replica else {
            return;
        };
        self.heard_at = cluster.now;
        let now = now(cluster);
        let topics = [
            &self.topics.blocklist,
            &self.topics.budgets,
            &self.topics.findings,
        ];
        for (index, topic) in topics.into_iter().enumerate() {
            for partition in 0..cluster.partitions(topic) {
                let next = self.next.entry((topic.clone(), partition)).or_insert(0);
                for record in cluster.log(topic, partition).from(*next) {
                    let key = key_text(record.key.as_ref());
                    let value = record.value.as_deref();
                    let taken = match index {
                        0 => writer.apply(key, value, UnixMillis(record.at), now),
                        1 => writer.apply_budget(key, value, record.offset.unsigned_abs() + 1),
                        _ => writer.apply_finding(key, value),
                    };
                    match taken {
                        // Written on purpose.
                        Err(error) if error.to_string().contains(UNREADABLE) => {}
                        Err(error) => self.bad.push(error.to_string()),
                        Ok(()) => {}
                    }
                    *next = record.offset + 1;
                }
                match index {
                    0 => writer.reached_end(partition, now.monotonic_millis),
                    1 => {
                        let end = cluster.log(topic, partition).end();
                        writer.reached_end_of_budgets(end.unsigned_abs());
                    }
                    _ => {}
                }
            }
        }
        writer.publish(now.wall);
        let complete_to = guard
            .check(&CheckRequest::default(), now)
            .state()
            .complete_to;
        if complete_to < self.complete_to {
            let before = self.complete_to;
            self.bad.push(format!(
                "complete_to went back from {before:?} to {complete_to:?}"
            ));
        }
        self.complete_to = complete_to;
    }

    pub(crate) fn state(&self, cluster: &Cluster) -> Option<State> {
        let (_, guard) = self.replica.as_ref()?;
        let decision = guard.check(&CheckRequest::default(), now(cluster));
        Some(decision.state().state)
    }

    /// What the budget says of a call of these dimensions: its verdict, and nano-dollars, tokens or
    /// calls spent; `None` where the budget does not meet it.
    pub(crate) fn ask(
        &self,
        cluster: &Cluster,
        budget: &str,
        request: &CheckRequest<'_>,
    ) -> Option<(&'static str, i128)> {
        let (_, guard) = self.replica.as_ref()?;
        let now = now(cluster);
        let quick = guard.check(request, now);
        let quick = quick.budgets().find(|(id, _)| id.as_str() == budget)?.1;
        let reasoned = guard.check_with_reasons(request, now).explain();
        let line = reasoned.budgets.iter().find(|line| line.budget == budget)?;
        // Both ways of the check must agree.
        if line.verdict != quick {
            return Some(("two answers", 0));
        }
        let spent = line.figures.spent.map_or(0, |amount| amount.number());
        Some((quick.name(), spent))
    }
}

fn now(cluster: &Cluster) -> Now {
    Now {
        wall: UnixMillis(cluster.now),
        monotonic_millis: cluster.now,
    }
}
