//! What sidecars hold of budgets near a limit, as they tell each other, and by how much their calls may
//! pass it.

mod told;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use spendfuse_bus::{BusError, topics};
use spendfuse_domain::budget::{BudgetsRecord, CompiledBudget};
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Amount, LineFigures, UnixMillis};

use super::super::{Failure, kafka};
use super::records_in_force;
use crate::settings::Settings;
use told::Log;

/// Where any sidecar is there, a heartbeat comes within this in every partition.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5);

/// What all sidecars told of one budget in one scope, in the unit of its limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    reserved: i128,
    pending: i128,
    /// By how much calls may pass the limit all the same.
    bound: i128,
    /// Where nobody told anything: with so much spent, all that anybody may hold fits.
    fits_at: Option<i128>,
}

impl Held {
    fn add(&mut self, other: Self) {
        self.reserved += other.reserved;
        self.pending += other.pending;
        self.bound += other.bound;
    }

    /// The figures of `entry` with what is held; `None` where there is nothing to tell.
    pub fn figures(self, entry: &BlocklistEntry) -> Option<LineFigures> {
        let (spent, limit) = (entry.figures.spent?, entry.figures.limit?);
        let is_certain = self.fits_at.is_some_and(|fits| spent.number() <= fits);
        let figures = LineFigures::new(spent, limit, self.pending, self.reserved);
        (!is_certain).then_some(figures)
    }

    /// What is held beside what is spent of `entry`, and the bound.
    pub fn amounts(self, entry: &BlocklistEntry) -> Option<(Amount, Amount)> {
        let limit = self.figures(entry)?.limit?;
        let held = self.reserved + self.pending;
        Some((limit.with(held), limit.with(self.bound)))
    }
}

/// What is held of everything.
#[derive(Debug, Default)]
pub struct AllHeld {
    /// By `{budget}|{scope}`, where anybody has told anything lately.
    told: BTreeMap<String, Held>,
    /// Of a scope of which nobody has, by its partition and budget: what those may hold that are gone.
    untold: BTreeMap<(u32, String), Held>,
    partitions: u32,
}

impl AllHeld {
    /// What is held of `{budget}|{scope}`.
    pub fn get(&self, key: &str) -> Option<&Held> {
        self.told.get(key).or_else(|| {
            let (budget, _) = key.split_once('|')?;
            let partition = partition_of(key.as_bytes(), self.partitions.max(1));
            self.untold.get(&(partition, budget.to_owned()))
        })
    }
}

/// Reads what was told.
pub fn read(settings: &Settings, now: UnixMillis) -> Result<AllHeld, Failure> {
    let topic = settings.topics().inflight;
    let partitions = match topics::partition_count(&settings.kafka(), &topic, PATIENCE) {
        Ok(partitions) => partitions,
        // An installation of an older release has none.
        Err(BusError::TopicMissing { .. }) => return Ok(AllHeld::default()),
        Err(error) => return Err(kafka::failure(settings, &error)),
    };
    let mut log = Log::read(settings, &topic)?;
    // Clocks may differ: who is there is heard.
    if log.seems_silent(now) {
        wait(HEARD_WITHIN);
        let later = Log::read(settings, &topic)?;
        let is_silent = later.heard_at == log.heard_at;
        log = later;
        log.is_silent = is_silent;
    }
    let limits = match log.has_silent_shares() {
        true => limits(settings)?,
        false => BTreeMap::new(),
    };
    Ok(log.sums(&limits, partitions))
}

fn wait(duration: Duration) {
    let began = Instant::now();
    while let Some(rest) = duration.checked_sub(began.elapsed()) {
        thread::park_timeout(rest);
    }
}

/// At how much each budget blocks that may hold calls back, in its unit.
fn limits(settings: &Settings) -> Result<BTreeMap<String, i128>, Failure> {
    let budgets = records_in_force(settings)?.into_iter();
    let limits = budgets.filter_map(|record| match record {
        BudgetsRecord::Budget(budget) if !budget.limit_from_event => {
            let id = budget.id.to_string();
            Some((id, CompiledBudget::new(budget).until_block(0)?))
        }
        BudgetsRecord::Budget(_) | BudgetsRecord::Detector(_) => None,
    });
    Ok(limits.collect())
}
