//! Runs roles until Ctrl-C or SIGTERM, or until one of them gives up.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use spendfuse_bus::Shutdown;
use spendfuse_processor::tables::Tables;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin;
use crate::commands::Failure;
use crate::settings::Settings;

/// One role of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Counts events, adds up budgets, publishes verdicts.
    Processor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 1] = [Self::Processor];
}

/// Runs `roles` in this process.
pub fn run(settings: &Settings, roles: &[Role]) -> Result<ExitCode, Failure> {
    let runtime = Runtime::new().map_err(Failure::work)?;
    let handle = admin::install_metrics()?;
    let shutdown = Shutdown::new();
    runtime.block_on(admin::serve(settings, handle, shutdown.clone()))?;
    let stop = shutdown.clone();
    runtime.spawn(async move {
        wait_for_signal().await;
        tracing::info!("stopping");
        stop.request();
    });
    let mut threads = Vec::new();
    for role in roles {
        let (role, settings, shutdown) = (*role, settings.clone(), shutdown.clone());
        let runtime = runtime.handle().clone();
        threads.push(thread::spawn(move || {
            let outcome = run_role(role, &settings, &runtime, &shutdown);
            // A role that ends takes the process with it: a supervisor starts it again.
            shutdown.request();
            outcome
        }));
    }
    let mut result = Ok(ExitCode::SUCCESS);
    for thread in threads {
        let outcome = thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result = result.and_then(|code| outcome.map(|()| code));
    }
    result
}

fn run_role(
    role: Role,
    settings: &Settings,
    runtime: &tokio::runtime::Handle,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let _ = runtime;
    match role {
        Role::Processor => {
            let config = settings.processor().map_err(Failure::usage)?;
            let policy = settings.pricing().map_err(Failure::usage)?;
            let tables = Arc::new(Tables::new(policy));
            spendfuse_processor::run(&config, &tables, shutdown).map_err(Failure::work)
        }
    }
}

async fn wait_for_signal() {
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
