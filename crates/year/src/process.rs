//! A processor: the tables that it follows, and the workers of all partitions.

use std::sync::Arc;

use spendfuse_bus::{FollowerEvent, Health, HistoryTopic};
use spendfuse_domain::{BudgetId, Topics, UnixMillis};
use spendfuse_engine::ledger::{AccountKey, LedgerConfig, PUBLISH_RATE};
use spendfuse_engine::meter::MeterConfig;
use spendfuse_pricing::PricingPolicy;
use spendfuse_processor::tables::Tables;
use spendfuse_processor::topics::ids_retention_millis;
use spendfuse_processor::{LedgerStage, MeterStage, TableFeed};

use spendfuse_warehouse::RowFormat;

use crate::budget::Sum;
use crate::calendar::{DAY, HOUR};
use crate::cluster::Cluster;
use crate::growth::{Size, Sizes};
use crate::stage::{Wiring, Worker, with_record};

/// How long identities are remembered.
pub(crate) const HORIZON: i64 = DAY;
/// A session without events for this long has ended.
pub(crate) const IDLE: i64 = HOUR;
/// How long ended windows take late spend.
pub(crate) const GRACE: i64 = HORIZON + DAY;

pub(crate) struct Processor {
    topics: Arc<Topics>,
    partitions: u32,
    prefix: String,
    epoch: u32,
    tables: Arc<Tables>,
    feed: Option<TableFeed>,
    /// Next offsets of both.
    followed: [i64; 2],
    pub(crate) meters: Vec<Worker<MeterStage>>,
    pub(crate) ledgers: Vec<Worker<LedgerStage>>,
    pub(crate) is_up: bool,
    pub(crate) accept_lost_input: bool,
}

impl Processor {
    /// A processor that was not started yet.
    pub(crate) fn new(topics: &Arc<Topics>, partitions: u32, prefix: &str, epoch: u32) -> Self {
        Self {
            topics: Arc::clone(topics),
            partitions,
            prefix: prefix.to_owned(),
            epoch,
            tables: tables(epoch),
            feed: None,
            followed: [0; 2],
            meters: Vec::new(),
            ledgers: Vec::new(),
            is_up: false,
            accept_lost_input: false,
        }
    }

    /// # Errors
    /// Why a partition would stop.
    pub(crate) fn start(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        self.tables = tables(self.epoch);
        let health = Health::default().part("tables");
        self.feed = Some(TableFeed::new(Arc::clone(&self.tables), health));
        self.followed = [0; 2];
        self.follow(cluster);
        if let Some(feed) = &mut self.feed {
            feed.handle(FollowerEvent::CaughtUp);
        }
        self.meters = (0..self.partitions).map(|one| self.meter(one)).collect();
        self.ledgers = (0..self.partitions).map(|one| self.ledger(one)).collect();
        self.is_up = true;
        self.restart_workers(cluster)
    }

    /// Starts what has died of it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn restart_workers(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        for worker in self.meters.iter_mut().filter(|one| one.logic().is_none()) {
            worker.start(cluster)?;
        }
        for worker in self.ledgers.iter_mut().filter(|one| one.logic().is_none()) {
            worker.start(cluster)?;
        }
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        self.is_up = false;
        self.meters.clear();
        self.ledgers.clear();
    }

    /// Says to the groups that somebody is there.
    pub(crate) fn attend(&self, cluster: &mut Cluster) {
        for stage in ["meter", "ledger"] {
            cluster.attend(&format!("{}-{stage}", self.prefix));
        }
    }

    /// Takes what came in the topics of budgets and prices.
    pub(crate) fn follow(&mut self, cluster: &Cluster) {
        let Some(feed) = &mut self.feed else { return };
        for (index, topic) in [&self.topics.budgets, &self.topics.prices]
            .into_iter()
            .enumerate()
        {
            let log = cluster.log(topic, 0);
            if self.followed[index] == log.end() {
                continue;
            }
            for record in log.from(self.followed[index]) {
                with_record(index, 0, record, |record| {
                    feed.handle(FollowerEvent::Record(*record))
                });
            }
            self.followed[index] = log.end();
            feed.handle(FollowerEvent::EndOfPartition {
                topic_index: index,
                partition: 0,
                offset: log.end(),
            });
        }
    }

    fn meter(&self, partition: u32) -> Worker<MeterStage> {
        let topics = &self.topics;
        let stage = MeterStage {
            config: MeterConfig {
                partition,
                partitions: self.partitions,
                dedupe_horizon_millis: HORIZON,
                dedupe_capacity: 1_000_000,
                session_idle_millis: IDLE,
                session_capacity: 10_000,
            },
            topics: Arc::clone(topics),
            tables: Arc::clone(&self.tables),
        };
        let wiring = Wiring {
            group: format!("{}-meter", self.prefix),
            inputs: vec![
                topics.usage.clone(),
                topics.rerouted.clone(),
                topics.corrections.clone(),
            ],
            changelog: topics.meter_changelog.clone(),
            history: Some(HistoryTopic {
                topic: topics.meter_ids.clone(),
                since_millis: HORIZON + HOUR,
                retention_millis: ids_retention_millis(HORIZON),
            }),
            accept_lost_input: self.accept_lost_input,
        };
        Worker::new(wiring, stage, partition)
    }

    fn ledger(&self, partition: u32) -> Worker<LedgerStage> {
        let topics = &self.topics;
        let stage = LedgerStage {
            config: LedgerConfig {
                partition,
                partitions: self.partitions,
                grace_millis: GRACE,
                publish_rate: PUBLISH_RATE,
                account_capacity: 100_000,
            },
            topics: Arc::clone(topics),
            tables: Arc::clone(&self.tables),
        };
        let wiring = Wiring {
            group: format!("{}-ledger", self.prefix),
            inputs: vec![topics.deltas.clone()],
            changelog: topics.ledger_changelog.clone(),
            history: None,
            accept_lost_input: self.accept_lost_input,
        };
        Worker::new(wiring, stage, partition)
    }

    /// When something is due by time alone.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let meters = self.meters.iter().filter_map(Worker::next_due);
        meters
            .chain(self.ledgers.iter().filter_map(Worker::next_due))
            .min()
    }

    /// Lowest engine time of the ledgers.
    pub(crate) fn ledger_time(&self) -> UnixMillis {
        let times = self.ledgers.iter().filter_map(Worker::logic);
        times
            .map(|one| one.ledger().now())
            .min()
            .unwrap_or_default()
    }

    /// What an account of the ledger holds.
    pub(crate) fn account(&self, budget: &str, scope: &str, start: i64) -> Option<Sum> {
        let key = AccountKey {
            budget: BudgetId::new(budget)?,
            scope: scope.to_owned(),
            start: UnixMillis(start),
        };
        let ledgers = self.ledgers.iter().filter_map(Worker::logic);
        let account = ledgers
            .filter_map(|one| one.ledger().account(&key))
            .next()?;
        let spend = account.spend();
        Some(Sum {
            nanos: spend.cost.get(),
            tokens: i128::from(spend.tokens),
            calls: i128::from(spend.calls),
        })
    }

    /// Whether a ledger waits to be told what was spent before a count.
    pub(crate) fn wants_openings(&self) -> bool {
        let mut ledgers = self.ledgers.iter().filter_map(Worker::logic);
        ledgers.any(|one| one.ledger().wanted_openings().next().is_some())
    }

    /// Accounts of all ledgers.
    pub(crate) fn accounts(&self) -> usize {
        let ledgers = self.ledgers.iter().filter_map(Worker::logic);
        ledgers.map(|one| one.ledger().len()).sum()
    }

    pub(crate) fn restart_workers_if_up(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        if self.is_up {
            self.restart_workers(cluster)
        } else {
            Ok(())
        }
    }

    /// Whether nothing waits for any worker.
    pub(crate) fn is_drained(&self, cluster: &Cluster) -> bool {
        let meters = self.meters.iter().all(|one| one.is_drained(cluster));
        meters && self.ledgers.iter().all(|one| one.is_drained(cluster))
    }

    pub(crate) fn note_sizes(&self, sizes: &mut Sizes) {
        let (mut sessions, mut ids) = (0, 0);
        for meter in self.meters.iter().filter_map(Worker::logic) {
            let (more_sessions, more_ids) = meter.meter().sizes();
            sessions += more_sessions;
            ids += more_ids;
        }
        let mut note = |name: &str, all| {
            let size = Size {
                all,
                needed: Some(0),
            };
            sizes.insert(name.to_owned(), size);
        };
        note("meter.sessions", sessions);
        note("meter.identities", ids);
    }
}

/// Nothing read yet; rows name their epoch and openings are computed, as after `spendfuse finalize`.
fn tables(epoch: u32) -> Arc<Tables> {
    let mut tables = Tables::new(PricingPolicy::default());
    tables.row_format = RowFormat::Schema2 { epoch };
    tables.computes_openings = true;
    Arc::new(tables)
}
