//! What was spent before a budget's count began, for the ledger: found out in the warehouse, once it
//! has every row of before.
//!
//! In: heartbeats, in which ledger partitions name counts whose past they want and meters say by which
//! budgets they count; the rows topic's ends; rows. Out: records among the deltas, which the ledger
//! *sets*: whatever is told twice changes nothing. The loader that has the first partition of rows
//! does it for all.

mod asking;
mod heard;
mod telling;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use metrics::counter;
use spendfuse_bus::BusError;
use spendfuse_domain::BudgetId;
use spendfuse_domain::verdict::WantedOpening;
use spendfuse_warehouse::{Warehouse, WarehouseError};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::LoaderConfig;
use crate::metrics as names;
use asking::{Asked, Question};
use heard::Heard;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// The same while an opening is wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Asking the warehouse takes at most one part in so many of the time.
const SHARE: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A ledger that still wants what it was told is told again after this time.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// What cannot be found out is looked for again after this time.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a look could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningsError {
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("an answer of ClickHouse has no number in column {column}")]
    NotANumber { column: usize },
}

/// Looks from time to time, on a thread of its own.
pub(crate) struct OpeningWatch<'a> {
    config: &'a LoaderConfig,
    warehouse: &'a Warehouse,
    runtime: &'a Handle,
    due: Instant,
    state: Option<State>,
    looking: Option<JoinHandle<Look>>,
    /// Why the last look failed: told once, not every few seconds.
    told: Option<String>,
}

/// What a look leaves behind.
struct Look {
    state: State,
    failure: Option<String>,
}

/// What is known from one look to the next.
#[derive(Default)]
struct State {
    heard: Heard,
    /// Where the rows topic ended when every meter had passed the version.
    ends: HashMap<WantedOpening, Vec<i64>>,
    /// What ledger partitions were told, and when they may be told again.
    told: HashMap<(u32, WantedOpening), Instant>,
    /// How long the warehouse was asked in this look.
    asked: Duration,
}

impl<'a> OpeningWatch<'a> {
    pub(crate) fn new(
        config: &'a LoaderConfig,
        warehouse: &'a Warehouse,
        runtime: &'a Handle,
    ) -> Self {
        counter!(names::LOADER_OPENINGS_TOTAL, "outcome" => "failed").increment(0);
        Self {
            config,
            warehouse,
            runtime,
            due: Instant::now(),
            state: None,
            looking: None,
            told: None,
        }
    }

    /// Looks where it is time, without waiting for the end. `is_ours` where this loader has the
    /// first partition.
    pub(crate) fn turn(&mut self, is_ours: bool) {
        if let Some(looking) = self.looking.take_if(|looking| looking.is_finished()) {
            // A look that panicked is begun anew.
            if let Ok(look) = self.runtime.block_on(looking) {
                let pause = match look.state.heard.wants_any() {
                    true => LOOK_AGAIN,
                    false => LOOK_EVERY,
                };
                // What Kafka lets wait costs nobody anything.
                let share = (look.state.asked * SHARE).min(LONGEST_PAUSE);
                self.due = Instant::now() + pause.max(share);
                self.state = Some(look.state);
                self.note(look.failure);
            }
        }
        if !is_ours || !self.config.computes_openings {
            // Another loader looks, and what it tells is not known here.
            self.state = None;
            return;
        }
        if self.looking.is_none() && Instant::now() >= self.due {
            let state = self.state.take().unwrap_or_default();
            let (config, warehouse) = (self.config.clone(), self.warehouse.clone());
            let runtime = self.runtime.clone();
            let look = move || look(state, &config, &warehouse, &runtime);
            self.looking = Some(self.runtime.spawn_blocking(look));
        }
    }

    fn note(&mut self, failure: Option<String>) {
        if let Some(error) = failure.as_ref().filter(|_| failure != self.told) {
            tracing::warn!(
                error,
                "cannot find out what was spent before budgets counted"
            );
        }
        self.told = failure;
    }
}

fn look(mut state: State, config: &LoaderConfig, warehouse: &Warehouse, runtime: &Handle) -> Look {
    state.asked = Duration::ZERO;
    let looked = state.look(config, warehouse, runtime);
    if looked.is_err() {
        counter!(names::LOADER_OPENINGS_TOTAL, "outcome" => "failed").increment(1);
    }
    Look {
        state,
        failure: looked.err().map(|error| error.to_string()),
    }
}

impl State {
    fn look(
        &mut self,
        config: &LoaderConfig,
        warehouse: &Warehouse,
        runtime: &Handle,
    ) -> Result<(), OpeningsError> {
        self.heard.listen(&config.kafka, &config.blocklist_topic)?;
        self.told.retain(|_, again| *again > Instant::now());
        let wanted = self.wanted();
        self.ends.retain(|want, _| wanted.contains_key(want));
        if wanted.is_empty() {
            return Ok(());
        }
        let Some(passed) = self.heard.passed_by_all_meters() else {
            return Ok(());
        };
        let ready: Vec<&WantedOpening> = wanted
            .keys()
            .filter(|want| want.below_version <= passed)
            .collect();
        if ready.iter().any(|want| !self.ends.contains_key(*want)) {
            let ends = heard::ends(config)?;
            for want in &ready {
                let known = self.ends.entry((*want).clone());
                known.or_insert_with(|| ends.clone());
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        let database = runtime.block_on(warehouse.database_id())?;
        let mut loaded = Vec::new();
        for want in ready {
            if heard::is_loaded(config, &self.ends[want], database.as_deref())? {
                loaded.push(want);
            }
        }
        if loaded.is_empty() {
            return Ok(());
        }
        let budgets = heard::budgets(config)?;
        for want in loaded {
            let id = BudgetId::new(&want.budget);
            let Some(budget) = id.and_then(|id| budgets.get(&id)) else {
                continue;
            };
            let now = self.heard.now();
            let question = Question::new(config, budget, want.below_version, now);
            let partitions = &wanted[want];
            let telling = telling::Telling {
                config,
                question: &question,
                partitions,
                of_all: self.heard.partitions(),
            };
            let began = Instant::now();
            let asked = runtime.block_on(telling.tell(warehouse));
            self.asked += began.elapsed();
            let (outcome, again) = match asked? {
                Asked::Told { scopes } => {
                    let (budget, version) = (&want.budget, want.below_version);
                    tracing::info!(
                        budget,
                        version,
                        scopes,
                        "what was spent before the budget counted is told to the ledger"
                    );
                    ("told", TOLD_AGAIN)
                }
                Asked::VersionsBeganAgain => {
                    tracing::warn!(
                        budget = want.budget,
                        "what was spent before the budget counted cannot be found out: the budgets topic \
                         was made anew, and rows of before name versions of the one that is gone; \
                         `opening` in the budgets file says it"
                    );
                    ("unknown", UNKNOWN_AGAIN)
                }
            };
            counter!(names::LOADER_OPENINGS_TOTAL, "outcome" => outcome).increment(1);
            for partition in partitions {
                let again = Instant::now() + again;
                self.told.insert((*partition, want.clone()), again);
                self.heard.is_told(*partition, want);
            }
        }
        Ok(())
    }

    /// What is wanted and was not told lately, and by which ledger partitions.
    fn wanted(&self) -> BTreeMap<WantedOpening, Vec<u32>> {
        let mut wanted: BTreeMap<WantedOpening, Vec<u32>> = BTreeMap::new();
        for (partition, want) in self.heard.wanted() {
            if !self.told.contains_key(&(partition, want.clone())) {
                wanted.entry(want.clone()).or_default().push(partition);
            }
        }
        wanted
    }
}
