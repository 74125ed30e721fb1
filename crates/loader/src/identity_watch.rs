//! When and by whom rows with one source and id are looked for.
//!
//! The loader that has the first partition of rows looks for all: two that looked at once would
//! both tell people of the same pair.

use std::time::{Duration, Instant};

use metrics::counter;
use spendfuse_warehouse::Warehouse;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::id_search::{LookError, Search};
use crate::metrics as names;
use crate::same_id::SameId;
use crate::{LoaderConfig, LoaderNews, NewsSink};

/// Between two looks, where they are quick.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looking takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// Looks from time to time, on the runtime.
pub(crate) struct IdentityWatch<'a> {
    config: &'a LoaderConfig,
    warehouse: &'a Warehouse,
    runtime: &'a Handle,
    alerts: &'a NewsSink,
    due: Instant,
    search: Option<Search>,
    looking: Option<JoinHandle<Look>>,
    /// Why the last look failed: told once, not every few seconds.
    told: Option<String>,
}

/// What a look leaves behind.
#[derive(Default)]
struct Look {
    search: Option<Search>,
    took: Duration,
    failure: Option<String>,
}

impl<'a> IdentityWatch<'a> {
    pub(crate) fn new(
        config: &'a LoaderConfig,
        warehouse: &'a Warehouse,
        runtime: &'a Handle,
        alerts: &'a NewsSink,
    ) -> Self {
        counter!(names::LOADER_COUNTED_TWICE_TOTAL).increment(0);
        counter!(names::LOADER_SHARED_IDS_TOTAL).increment(0);
        Self {
            config,
            warehouse,
            runtime,
            alerts,
            due: Instant::now(),
            search: None,
            looking: None,
            told: None,
        }
    }

    /// Looks where it is time, without waiting for the end. `is_ours` where this loader has the
    /// first partition.
    pub(crate) fn turn(&mut self, is_ours: bool) {
        if let Some(looking) = self.looking.take_if(|looking| looking.is_finished()) {
            let look = self.runtime.block_on(looking).unwrap_or_default();
            self.search = look.search;
            self.due = Instant::now() + LOOK_EVERY.max(look.took * SHARE);
            if let Some(error) = look.failure.as_ref().filter(|_| look.failure != self.told) {
                tracing::warn!(error, "cannot look for rows with one source and id");
            }
            self.told = look.failure;
        }
        if !is_ours {
            // Another loader looks, and what it tells is not known here.
            self.search = None;
            return;
        }
        if self.looking.is_none() && Instant::now() >= self.due {
            let look = look(
                self.search.take(),
                self.config.clone(),
                self.warehouse.clone(),
                self.alerts.clone(),
            );
            self.looking = Some(self.runtime.spawn(look));
        }
    }
}

impl Drop for IdentityWatch<'_> {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

async fn look(
    mut search: Option<Search>,
    config: LoaderConfig,
    warehouse: Warehouse,
    alerts: NewsSink,
) -> Look {
    let began = Instant::now();
    let looked = look_once(&mut search, &config, &warehouse, &alerts).await;
    let outcome = match &looked {
        Ok(()) => "done",
        Err(_) => "failed",
    };
    counter!(names::LOADER_IDENTITY_LOOKS_TOTAL, "outcome" => outcome).increment(1);
    Look {
        search,
        took: began.elapsed(),
        failure: looked.err().map(|error| error.to_string()),
    }
}

async fn look_once(
    search: &mut Option<Search>,
    config: &LoaderConfig,
    warehouse: &Warehouse,
    alerts: &NewsSink,
) -> Result<(), LookError> {
    let search = match search {
        Some(search) => search,
        none => {
            let (topic, horizon) = (&config.alerts_topic, config.dedupe_horizon_millis);
            none.insert(Search::begin(warehouse, &config.kafka, topic, horizon).await?)
        }
    };
    let found = search.look(warehouse).await?;
    for call in found.told_again {
        alerts(LoaderNews::ToldAgain(call));
    }
    let (twice, shared): (Vec<_>, Vec<_>) =
        (found.pairs.into_iter()).partition(SameId::is_counted_twice);
    // Where workspaces share a source and count their ids, or several instruments tell of every call,
    // this is every event: one line a look.
    counter!(names::LOADER_COUNTED_TWICE_TOTAL).increment(twice.len() as u64);
    if let Some(example) = twice.first() {
        let (first, later) = (&example.first, &example.later);
        let (calls, source, id) = (twice.len(), &example.source, &example.id);
        tracing::info!(calls, source, id, %first, %later, "calls were counted in several partitions");
    }
    counter!(names::LOADER_SHARED_IDS_TOTAL).increment(shared.len() as u64);
    if let Some(example) = shared.first() {
        let (ids, source, id) = (shared.len(), &example.source, &example.id);
        tracing::warn!(ids, source, id, "workspaces have sources and ids in common");
    }
    for pair in twice.into_iter().chain(shared) {
        alerts(LoaderNews::SameId(Box::new(pair)));
    }
    Ok(())
}
