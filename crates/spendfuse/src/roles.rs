//! Runs roles until Ctrl-C or SIGTERM, or until one of them gives up.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use spendfuse_bus::{Health, Shutdown};
use spendfuse_processor::tables::Tables;
use spendfuse_sidecar::{self as sidecar, Listeners, MetricsText, SidecarTopics};
use spendfuse_warehouse::Warehouse;
use spendfuse_warehouse::loader;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin;
use crate::commands::{Failure, migrate, topics};
use crate::loader_alerts;
use crate::metrics::{self, MetricsHandle};
use crate::open_files;
use crate::settings::Settings;

/// One role of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Counts events, adds up budgets, publishes verdicts.
    Processor,
    /// Brings rows into ClickHouse.
    Loader,
    /// Answers checks and takes events.
    Sidecar,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Processor, Self::Loader, Self::Sidecar];

    /// As the command that runs it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Loader => "loader",
            Self::Sidecar => "sidecar",
        }
    }
}

/// Roles that run on threads of this process.
#[derive(Debug)]
pub struct RunningRoles {
    shutdown: Shutdown,
    threads: Vec<JoinHandle<Result<(), Failure>>>,
}

/// Roles, each with where it tells how it is.
pub type Watched = [(Role, Health)];

/// `roles`, of which nothing is known yet.
pub fn watched(roles: &[Role]) -> Vec<(Role, Health)> {
    let watched = |role: &Role| (*role, Health::default());
    roles.iter().map(watched).collect()
}

/// Starts `roles` on threads of their own; servers and inserts run on `runtime`. The first role that
/// gives up stops the others.
pub fn start(
    settings: &Settings,
    roles: &Watched,
    runtime: &Handle,
    metrics: &MetricsHandle,
    shutdown: &Shutdown,
) -> RunningRoles {
    let spawn = |(role, health): &(Role, Health)| {
        let (role, health) = (*role, health.clone());
        let (settings, runtime) = (settings.clone(), runtime.clone());
        let metrics = metrics.clone();
        let shutdown = shutdown.clone();
        thread::Builder::new()
            .name(role.name().to_owned())
            .spawn(move || {
                let outcome = run_role(role, &settings, &runtime, metrics, health, &shutdown);
                // A role that ends takes the process with it: a supervisor starts it again.
                shutdown.request();
                outcome
            })
            .expect("the system starts threads")
    };
    RunningRoles {
        shutdown: shutdown.clone(),
        threads: roles.iter().map(spawn).collect(),
    }
}

impl RunningRoles {
    /// Asks all roles to stop, then waits for them.
    ///
    /// # Errors
    /// As [`RunningRoles::wait`].
    pub fn stop(self) -> Result<(), Failure> {
        self.shutdown.request();
        self.wait()
    }

    /// Waits until all roles have ended.
    ///
    /// # Errors
    /// Why the first role gave up.
    pub fn wait(self) -> Result<(), Failure> {
        let mut result = Ok(());
        for thread in self.threads {
            let outcome = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(outcome);
        }
        result
    }
}

/// Runs `roles` as this process's work.
pub fn run(settings: &Settings, roles: &[Role]) -> Result<ExitCode, Failure> {
    open_files::raise_limit();
    let runtime = Runtime::new().map_err(Failure::work)?;
    let handle = metrics::install()?;
    let shutdown = Shutdown::new();
    let roles = watched(roles);
    admin::serve(settings, handle.clone(), &roles, shutdown.clone())?;
    let stop = shutdown.clone();
    runtime.spawn(async move {
        wait_for_signal().await;
        tracing::info!("stopping");
        stop.request();
    });
    start(settings, &roles, runtime.handle(), &handle, &shutdown).wait()?;
    Ok(ExitCode::SUCCESS)
}

/// `spendfuse up`: makes what is missing in Kafka and ClickHouse, then runs every role.
pub fn up(settings: &Settings) -> Result<ExitCode, Failure> {
    topics::create_missing(settings)?;
    migrate::prepare_database(settings)?;
    run(settings, &Role::ALL)
}

fn run_role(
    role: Role,
    settings: &Settings,
    runtime: &Handle,
    metrics: MetricsHandle,
    health: Health,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    match role {
        Role::Processor => {
            let mut config = settings.processor().map_err(Failure::usage)?;
            config.health = health;
            let policy = settings.pricing().map_err(Failure::usage)?;
            let tables = Arc::new(Tables::new(policy));
            spendfuse_processor::run(&config, &tables, shutdown).map_err(Failure::work)
        }
        Role::Loader => {
            let mut config = settings.loader().map_err(Failure::usage)?;
            config.health = health;
            let warehouse = settings.warehouse().map_err(Failure::usage)?;
            let warehouse = Warehouse::new(warehouse).map_err(Failure::usage)?;
            let alerts = loader_alerts::sink(settings).map_err(Failure::work)?;
            loader::run(&config, &warehouse, runtime, shutdown, &alerts).map_err(Failure::work)
        }
        Role::Sidecar => {
            let mut config = settings.sidecar().map_err(Failure::usage)?;
            open_files::leave_some(&mut config);
            config.health = health;
            let policy = settings.pricing().map_err(Failure::usage)?;
            let topics = SidecarTopics::new(settings.text("topic_prefix"));
            let kafka = settings.kafka();
            let metrics: MetricsText = Arc::new(move || metrics.render());
            runtime
                .block_on(async {
                    let listeners = Listeners::bind(&config).await?;
                    let shutdown = shutdown.clone();
                    sidecar::run(
                        config, listeners, &kafka, &topics, policy, metrics, shutdown,
                    )
                    .await
                })
                .map_err(Failure::work)
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn wait_for_signal() {
    let terminate = signal(SignalKind::terminate());
    let Ok(mut terminate) = terminate else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
