//! What was spent before a count began, for the ledger: found out as the loader does it
//! (`crates/loader/src/openings`), with sums over the simulated warehouse's rows in the place of
//! ClickHouse's answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use spendfuse_domain::budget::{Budget as BudgetTerms, CountId};
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::verdict::{BlocklistKey, Heartbeat, Stage, WantedOpening};
use spendfuse_domain::{Nanos, Topics, UnixMillis};
use spendfuse_engine::account::Opening;
use spendfuse_engine::codec;
use spendfuse_engine::ledger::{OPENINGS_KEY, OpeningEntry, Openings};

use crate::broken::Habit;
use crate::budget::{Budget, Sum};
use crate::calendar::MINUTE;
use crate::cluster::Cluster;
use crate::stage::key_text;
use crate::warehouse::{SpendRow, Warehouse};

/// Scopes and windows of one record.
const TOGETHER: usize = 3;

/// The part of a loader that tells the ledger of the past.
pub(crate) struct OpeningTeller {
    group: String,
    topics: Arc<Topics>,
    epoch: u32,
    partitions: u32,
    heard: Heard,
    /// Where the rows topic ended when every meter had passed the version.
    ends: BTreeMap<WantedOpening, Vec<i64>>,
}

/// The last heartbeats.
#[derive(Default)]
struct Heard {
    /// By partition, where the blocklist was read to.
    positions: BTreeMap<u32, i64>,
    meters: BTreeMap<u32, u64>,
    ledgers: BTreeMap<u32, Vec<WantedOpening>>,
}

/// Budgets in force, each with the time since which it counts.
pub(crate) type InForce = BTreeMap<String, (Budget, i64)>;

impl OpeningTeller {
    pub(crate) fn new(group: &str, topics: &Arc<Topics>, epoch: u32, partitions: u32) -> Self {
        Self {
            group: group.to_owned(),
            topics: Arc::clone(topics),
            epoch,
            partitions,
            heard: Heard::default(),
            ends: BTreeMap::new(),
        }
    }

    /// What it knew is gone.
    pub(crate) fn die(&mut self) {
        self.heard = Heard::default();
        self.ends.clear();
    }

    /// Tells what is wanted, as far as the warehouse has it; at most `most` records. Returns how many.
    pub(crate) fn turn(
        &mut self,
        cluster: &mut Cluster,
        warehouse: &Warehouse,
        budgets: &InForce,
        most: usize,
    ) -> usize {
        self.heard.listen(cluster, &self.topics.blocklist);
        let wanted = self.heard.wanted();
        self.ends.retain(|want, _| wanted.contains_key(want));
        let passed = self.heard.passed_by_all_meters(self.partitions);
        let mut told_of = 0;
        for (want, ledgers) in wanted {
            let known = budgets.get(&want.budget);
            let Some((budget, counted_from)) = known.filter(|_| want.below_version <= passed)
            else {
                continue;
            };
            if !self.is_loaded(cluster, &want) && !Habit::OpeningToldTooEarly.is_broken() {
                continue;
            }
            let records = self.records(warehouse, &want, (budget, *counted_from));
            for (ledger, told) in records {
                if !ledgers.contains(&ledger) {
                    continue;
                }
                if told_of == most {
                    return told_of;
                }
                told_of += 1;
                let (topic, value) = (&self.topics.deltas, codec::encode(&told));
                cluster.send(topic, ledger, OPENINGS_KEY, &value);
            }
            self.heard.was_told(&want);
        }
        told_of
    }

    /// Whether the warehouse has all rows that there were when every meter had passed the version.
    fn is_loaded(&mut self, cluster: &Cluster, want: &WantedOpening) -> bool {
        let (topic, partitions) = (&self.topics.rows, self.partitions);
        let all = || (0..partitions).map(move |one| cluster.log(topic, one));
        let ends = self.ends.entry(want.clone());
        let ends = ends.or_insert_with(|| all().map(|log| log.end()).collect());
        let mut logs = (0..partitions).zip(all()).zip(ends.iter());
        logs.all(|((partition, log), end)| {
            let committed = cluster.committed(&self.group, topic, partition);
            let loaded = committed.map_or(0, |(offset, _)| offset);
            log.from(loaded)
                .next()
                .is_none_or(|next| next.offset >= *end)
        })
    }

    /// What ledger partitions are to be told, the last records for each at the end.
    fn records(
        &self,
        warehouse: &Warehouse,
        want: &WantedOpening,
        (budget, counted_from): (&Budget, i64),
    ) -> Vec<(u32, Openings)> {
        let first = budget.window_at(counted_from).0;
        let is_before = |row: &&SpendRow| match row.epoch == self.epoch {
            true => row.budget_version < want.below_version,
            false => !Habit::OpeningOfThisEpochAlone.is_broken(),
        };
        let mut sums: BTreeMap<(String, i64), Sum> = BTreeMap::new();
        for row in warehouse.spend().iter().filter(is_before) {
            let call = &row.call;
            let Some(scope) = budget.scope_of(call) else {
                continue;
            };
            let (start, _) = budget.window_at(call.time.div_euclid(MINUTE) * MINUTE);
            if start >= first {
                sums.entry((scope, start)).or_default().add(row.sum);
            }
        }
        let mut entries: BTreeMap<u32, Vec<OpeningEntry>> = BTreeMap::new();
        for ((scope, start), sum) in sums {
            let ledger = partition_of(scope.as_bytes(), self.partitions);
            let entry = OpeningEntry {
                scope,
                start: UnixMillis(start),
                opening: opening(sum),
            };
            entries.entry(ledger).or_default().push(entry);
        }
        let record = budget.record(counted_from).to_string();
        let terms = BudgetTerms::from_record(&budget.id, record.as_bytes());
        let count = CountId::of(&terms.expect("the year writes good records"));
        let told = |entries: &[OpeningEntry], is_last| Openings {
            budget: budget.id.clone(),
            terms: count.terms,
            since: count.since,
            below_version: want.below_version,
            entries: entries.to_vec(),
            is_last,
        };
        let told = &told;
        let parts = entries.iter().flat_map(|(ledger, entries)| {
            let parts = entries.chunks(TOGETHER);
            parts.map(move |some| (*ledger, told(some, false)))
        });
        let last = (0..self.partitions).map(|ledger| (ledger, told(&[], true)));
        parts.chain(last).collect()
    }
}

impl Heard {
    fn listen(&mut self, cluster: &Cluster, topic: &str) {
        for partition in 0..cluster.partitions(topic) {
            let next = self.positions.entry(partition).or_default();
            for record in cluster.log(topic, partition).from(*next) {
                *next = record.offset + 1;
                let key = BlocklistKey::parse(key_text(record.key.as_ref()));
                let Some(BlocklistKey::Heartbeat { stage, partition }) = key else {
                    continue;
                };
                let value = record.value.as_deref().unwrap_or_default();
                let Ok(beat) = serde_json::from_slice::<Heartbeat>(value) else {
                    continue;
                };
                match stage {
                    Stage::Meter => {
                        self.meters.insert(partition, beat.budget_version);
                    }
                    Stage::Ledger => {
                        self.ledgers.insert(partition, beat.openings);
                    }
                }
            }
        }
    }

    /// What ledger partitions wait for, and which.
    fn wanted(&self) -> BTreeMap<WantedOpening, Vec<u32>> {
        let mut wanted: BTreeMap<WantedOpening, Vec<u32>> = BTreeMap::new();
        for (partition, wants) in &self.ledgers {
            for want in wants {
                wanted.entry(want.clone()).or_default().push(*partition);
            }
        }
        wanted
    }

    /// Whoever wants it still says so in the next heartbeat.
    fn was_told(&mut self, want: &WantedOpening) {
        for wants in self.ledgers.values_mut() {
            wants.retain(|one| one != want);
        }
    }

    /// Every meter partition counts by this version of the budgets or a later one.
    fn passed_by_all_meters(&self, partitions: u32) -> u64 {
        let all = (0..partitions).map(|one| self.meters.get(&one).copied());
        all.map(Option::unwrap_or_default).min().unwrap_or_default()
    }
}

fn opening(sum: Sum) -> Opening {
    let number = |count: i128| i64::try_from(count).expect("a year's sums are small");
    Opening {
        cost: Nanos::new(sum.nanos),
        unpriced: Nanos::ZERO,
        tokens: number(sum.tokens),
        calls: number(sum.calls),
        is_computed: true,
    }
}
