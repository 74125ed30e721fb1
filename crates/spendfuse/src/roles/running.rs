//! One role on its thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrics::counter;
use spendfuse_bus::{Backoff, BusError, Health, Shutdown};
use spendfuse_domain::Installation;
use spendfuse_loader::{self as loader, LoaderError};
use spendfuse_notify::{self as notify, NotifierError};
use spendfuse_processor::ProcessorError;
use spendfuse_processor::tables::Tables;
use spendfuse_proxy::{self as proxy, Proxy};
use spendfuse_sidecar::{self as sidecar, Listeners, MetricsText, Running};
use spendfuse_warehouse::{RowFormat, Warehouse};
use tokio::runtime::Handle;

use super::Role;
use crate::commands::topics::topic_set;
use crate::commands::{Failure, correct, prices};
use crate::installation::{Known, Seen, Watch, tell_of_strangers, wait_for};
use crate::loader_alerts;
use crate::metrics::{MetricsHandle, ROLE_RESTARTS};
use crate::open_files;
use crate::settings::Settings;

const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// A role, and what it needs.
pub(super) struct RunningRole {
    pub(super) role: Role,
    pub(super) settings: Settings,
    pub(super) runtime: Handle,
    pub(super) metrics: MetricsHandle,
    pub(super) health: Health,
    /// Of the process.
    pub(super) shutdown: Shutdown,
}

impl RunningRole {
    /// Runs until the process stops, or the role gives up. Where another epoch or format is recorded
    /// meanwhile, it begins again with that.
    pub(super) fn once(&self) -> Result<(), Failure> {
        if matches!(self.role, Role::Sidecar | Role::Proxy) {
            let shutdown = self.shutdown.child();
            tell_of_strangers(&self.settings, &self.health, &shutdown);
            let ended = match self.role {
                Role::Proxy => self.proxy(&shutdown),
                _ => self.sidecar(&shutdown),
            };
            shutdown.request();
            return ended;
        }
        while let Some(known) = wait_for(&self.settings, &self.health, &self.shutdown)? {
            // A role asks its parts to stop where one of them fails: the process goes on.
            let shutdown = self.shutdown.child();
            let watch = Watch::start(&self.settings, known.installation.clone(), shutdown.clone());
            let ended = match self.role {
                Role::Processor => self.processor(&known.installation, &shutdown),
                Role::Notifier => self.notifier(&shutdown),
                _ => self.loader(&known, &shutdown),
            };
            match watch.stop() {
                Seen::Strangers(complaint) => return Err(Failure::work(complaint)),
                Seen::Changed if ended.is_ok() && !self.shutdown.is_requested() => {
                    tracing::info!(
                        role = self.role.name(),
                        "another epoch or format is recorded, beginning again"
                    );
                }
                _ => return ended,
            }
        }
        Ok(())
    }

    /// Runs until the process stops; after a failure again, unless only other settings would help.
    pub(super) fn again_and_again(&self) -> Result<(), Failure> {
        let mut backoff = PAUSES;
        loop {
            let began = Instant::now();
            self.health.clear();
            // Unwind safety: an attempt has everything of its own but health and metrics.
            let ended = catch_unwind(AssertUnwindSafe(|| self.once()))
                .unwrap_or_else(|_| Err(Failure::work("it panicked, see the log before")));
            let Err(failure) = ended else {
                return Ok(());
            };
            if failure.is_misuse() || self.shutdown.is_requested() {
                return Err(failure);
            }
            backoff.reset_after(began.elapsed());
            let pause = backoff.pause();
            let role = self.role.name();
            counter!(ROLE_RESTARTS, "role" => role).increment(1);
            tracing::error!(role, error = %failure, "role failed, starting it again in {pause:?}; the others go on");
            self.health.clear();
            self.health.part("role").not_ready(failure.to_string());
            if self.shutdown.wait(pause) {
                return Ok(());
            }
        }
    }

    fn processor(&self, installation: &Installation, shutdown: &Shutdown) -> Result<(), Failure> {
        let mut config = self.settings.processor();
        config.health = self.health.clone();
        let policy = self.settings.pricing();
        let mut tables = Tables::new(policy);
        if installation.is_finalized() {
            let epoch = installation.epoch();
            tables.row_format = RowFormat::Schema2 { epoch };
            tables.computes_openings = true;
        }
        let tables = Arc::new(tables);
        let ended = spendfuse_processor::run(&config, &tables, shutdown);
        ended.map_err(|error| match &error {
            ProcessorError::Worker { error: cause, .. } => of_member(cause, &error),
            _ => Failure::work(error),
        })
    }

    fn loader(&self, known: &Known, shutdown: &Shutdown) -> Result<(), Failure> {
        let mut config = self.settings.loader();
        let topics = topic_set(&self.settings, known);
        config.epoch = topics.epoch;
        config.topic_set = Some(topics);
        config.content_tokens = known.installation.is_finalized();
        config.computes_openings = known.installation.is_finalized();
        config.health = self.health.clone();
        let warehouse = self.settings.warehouse();
        let warehouse = Warehouse::new(warehouse).map_err(Failure::warehouse)?;
        let mut alerts = loader_alerts::sink(&self.settings).map_err(Failure::work)?;
        self.keep_prices_up(shutdown);
        // Programs of before do not know rows that amend others.
        if self.settings.values.loader.settle_counted_twice && known.installation.is_finalized() {
            alerts = correct::twice::settling(&self.settings, config.epoch, alerts, shutdown);
        }
        let ended = loader::run(&config, &warehouse, &self.runtime, shutdown, &alerts);
        ended.map_err(|error| match &error {
            LoaderError::Bus(cause) => of_member(cause, &error),
            LoaderError::Warehouse(_) | LoaderError::OtherDatabase => Failure::work(error),
        })
    }

    /// Prices are read beside the role: what becomes of them never stops it.
    fn keep_prices_up(&self, shutdown: &Shutdown) {
        let (settings, shutdown) = (self.settings.clone(), shutdown.clone());
        let reading = move || prices::sync::keep_up(&settings, &shutdown);
        let spawned = thread::Builder::new().name("prices".to_owned());
        if let Err(error) = spawned.spawn(reading) {
            tracing::warn!(%error, "prices are not kept up");
        }
    }

    fn notifier(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        let mut config = self.settings.notifier();
        config.health = self.health.clone();
        let channels = self.settings.channels().map_err(Failure::usage)?;
        let ended = notify::run(&config, channels, &self.runtime, shutdown);
        ended.map_err(|error| match &error {
            NotifierError::Bus(cause) => of_member(cause, &error),
            NotifierError::Channel(_) => Failure::usage(error),
        })
    }

    fn proxy(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        let (config, mut inner) = self.settings.proxy();
        inner.health = self.health.clone();
        let policy = self.settings.pricing();
        let topics = self.settings.topics();
        let kafka = self.settings.kafka();
        let metrics = self.metrics.clone();
        let metrics: MetricsText = Arc::new(move || metrics.render());
        let stop = sidecar::requested(shutdown.clone());
        self.runtime.block_on(async {
            let bound = proxy::bind(&config, &inner.keys).await;
            let listener = bound.map_err(Failure::work)?;
            let running = Running::start(inner, &kafka, &topics, policy, metrics);
            let running = running.map_err(Failure::work)?;
            let proxy = Proxy::new(config, running.sidecar()).map_err(Failure::usage)?;
            proxy.serve(listener, stop).await;
            running.stop().await;
            Ok(())
        })
    }

    fn sidecar(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        let mut config = self.settings.sidecar();
        open_files::leave_some(&mut config);
        config.health = self.health.clone();
        let policy = self.settings.pricing();
        let topics = self.settings.topics();
        let kafka = self.settings.kafka();
        let metrics = self.metrics.clone();
        let metrics: MetricsText = Arc::new(move || metrics.render());
        let shutdown = shutdown.clone();
        self.runtime
            .block_on(async {
                let listeners = Listeners::bind(&config).await?;
                sidecar::run(
                    config, listeners, &kafka, &topics, policy, metrics, shutdown,
                )
                .await
            })
            .map_err(Failure::work)
    }
}

/// Of two processes with one name the second is refused, whatever it waits for.
fn of_member(cause: &BusError, error: &dyn std::fmt::Display) -> Failure {
    match cause {
        BusError::PlaceTaken { .. } => Failure::usage(error),
        _ => Failure::work(error),
    }
}
