//! Runs roles until Ctrl-C or SIGTERM. A role that gives up ends its process, for a supervisor to start
//! it again; in a process of all roles it is started again by itself, while the others go on.

mod running;

use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use spendfuse_bus::{Health, Shutdown};
use spendfuse_sidecar::background::answer_at_once;
use tokio::runtime::{self, Handle};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin;
use crate::commands::{Failure, migrate, topics};
use crate::metrics::{self, MetricsHandle};
use crate::open_files;
use crate::settings::Settings;
use running::RunningRole;

/// One role of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Counts events, adds up budgets, publishes verdicts.
    Processor,
    /// Brings rows into ClickHouse.
    Loader,
    /// Answers checks and takes events.
    Sidecar,
    /// Brings alerts to people.
    Notifier,
    /// Guards and meters calls on their way to providers.
    Proxy,
}

impl Role {
    /// Every role that an installation needs.
    pub const ALL: [Self; 4] = [Self::Processor, Self::Loader, Self::Sidecar, Self::Notifier];

    /// As the command that runs it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Loader => "loader",
            Self::Sidecar => "sidecar",
            Self::Notifier => "notifier",
            Self::Proxy => "proxy",
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

/// What becomes of the others where a role gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They are stopped, too.
    Stop,
    /// They go on, and it is started again after a pause. Where only other settings would help, they
    /// are stopped.
    Restart,
}

/// Starts `roles` on threads of their own; servers and inserts run on `runtime`.
pub fn start(
    settings: &Settings,
    roles: &Watched,
    runtime: &Handle,
    metrics: &MetricsHandle,
    on_failure: OnFailure,
    shutdown: &Shutdown,
) -> RunningRoles {
    let spawn = |(role, health): &(Role, Health)| {
        let running = RunningRole {
            role: *role,
            settings: settings.clone(),
            runtime: runtime.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        thread::Builder::new()
            .name(role.name().to_owned())
            .spawn(move || {
                let outcome = match on_failure {
                    OnFailure::Stop => running.once(),
                    OnFailure::Restart => running.again_and_again(),
                };
                running.shutdown.request();
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

/// Runs one role as this process's work.
pub fn run(settings: &Settings, role: Role) -> Result<ExitCode, Failure> {
    run_all(settings, &[role], OnFailure::Stop)
}

fn run_all(
    settings: &Settings,
    roles: &[Role],
    on_failure: OnFailure,
) -> Result<ExitCode, Failure> {
    open_files::raise_limit();
    if roles == [Role::Proxy] {
        small_pages();
    }
    let runtime = runtime::Builder::new_multi_thread()
        .on_thread_start(answer_at_once)
        .enable_all()
        .build()
        .map_err(Failure::work)?;
    let handle = metrics::install()?;
    let shutdown = Shutdown::new();
    let roles = watched(roles);
    admin::serve(settings, handle.clone(), &roles, shutdown.clone())?;
    settings.follow_keys(&shutdown);
    let stop = shutdown.clone();
    runtime.spawn(async move {
        wait_for_signal().await;
        tracing::info!("stopping");
        stop.request();
    });
    let running = start(
        settings,
        &roles,
        runtime.handle(),
        &handle,
        on_failure,
        &shutdown,
    );
    running.wait()?;
    Ok(ExitCode::SUCCESS)
}

/// The allocator asks for huge pages, of which a proxy's small and short pieces fill little: 1,000 open
/// streams took 40 MiB more.
fn small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "memory stays in huge pages");
    }
}

/// `spendfuse up`: makes what is missing in Kafka and ClickHouse, then runs every role that an
/// installation needs.
pub fn up(settings: &Settings) -> Result<ExitCode, Failure> {
    // First the database: a new set of topics asks it which epochs there were.
    migrate::prepare_database(settings)?;
    topics::create_missing(settings)?;
    run_all(settings, &Role::ALL, OnFailure::Restart)
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
