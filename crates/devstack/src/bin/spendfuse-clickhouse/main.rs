//! ClickHouse's HTTP interface over its engine as a library, for development and tests.
//!
//! In: HTTP as the official clients send it. Out: what a ClickHouse server would answer, as far
//! as those clients need it; what is missing is refused by name. Started by
//! `spendfuse_devstack::ClickHouse`, in a process of its own so that it can be killed.

mod answer;
mod engine;
mod frames;
mod functions;
mod pool;
mod request;
mod serve;
mod sessions;
mod sql;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Serves ClickHouse's HTTP interface from the embedded engine. Development only.
///
/// Example: spendfuse-clickhouse --library .cache/libchdb-26.7.3-stable.1/libchdb.so --path data --port 8123
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// The engine, libchdb.so.
    #[arg(long)]
    library: PathBuf,
    /// Folder of the data; one process at a time.
    #[arg(long)]
    path: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on.
    #[arg(long)]
    port: u16,
    /// Password of the user `default`; without one everybody is let in.
    #[arg(long, env = "SPENDFUSE_CLICKHOUSE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Statements that may run at the same time.
    #[arg(long, default_value_t = 16)]
    connections: u16,
    /// Setting given to the engine at its start, as `name=value`; may be repeated.
    #[arg(long = "engine-setting")]
    engine_settings: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();

    std::fs::create_dir_all(&arguments.path)
        .with_context(|| format!("creating {}", arguments.path.display()))?;
    let settings: Vec<String> = arguments
        .engine_settings
        .iter()
        .map(|setting| format!("--{setting}"))
        .collect();
    let engine = engine::Engine::load(&arguments.library, &arguments.path, &settings)?;
    let pool = Arc::new(pool::Pool::start(engine)?);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Statements run on these: the engine's parser and planner recurse deeply.
        .thread_stack_size(8 * 1024 * 1024)
        .enable_all()
        .build()?;
    let front = serve::Front {
        pool: Arc::clone(&pool),
        password: arguments.password,
        connections: arguments.connections,
    };
    let address = SocketAddr::from((arguments.host, arguments.port));
    let outcome = runtime.block_on(serve::until_terminated(front, address));
    drop(runtime);
    // The engine's threads must be gone before the C++ destructors at exit run.
    drop(pool);
    engine.shut_down();
    outcome
}
