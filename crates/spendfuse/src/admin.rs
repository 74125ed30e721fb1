//! The admin address of every role: `/healthz`, `/readyz`, `/metrics`.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use spendfuse_bus::Shutdown;
use spendfuse_sidecar::refuse_browsers;
use spendfuse_sidecar::server::{ServerLimits, serve_http};
use tokio::runtime;
use tokio::sync::watch;

use crate::commands::Failure;
use crate::settings::Settings;

/// Buckets of every histogram in seconds: from 1 ms to a minute.
const BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0,
];

/// Installs the recorder of all metrics.
pub fn install_metrics() -> Result<PrometheusHandle, Failure> {
    PrometheusBuilder::new()
        .set_buckets(&BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(Failure::work)
}

/// Clients of the admin address: an orchestrator, Prometheus, a few people.
const LIMITS: ServerLimits = ServerLimits {
    connections: 64,
    ..ServerLimits::DEFAULT
};

/// Serves the admin address until the process ends, on a thread of its own: it answers whatever the
/// process is busy with.
pub fn serve(
    settings: &Settings,
    handle: PrometheusHandle,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let listen = settings.text("admin.listen");
    if listen.is_empty() {
        return Ok(());
    }
    let address: SocketAddr = listen.parse().map_err(|_| {
        Failure::usage(settings.wrong("admin.listen", "write an address such as 127.0.0.1:4118"))
    })?;
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| {
            Failure::work(format!(
                "cannot listen on {address} (admin.listen): {error}"
            ))
        })?;
    let mut router = router(handle, shutdown);
    if address.ip().is_loopback() {
        router = router.layer(from_fn(refuse_browsers));
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::work)?;
    tracing::info!(%address, "admin address");
    let serving = move || {
        runtime.block_on(async {
            let (_never, stopped) = watch::channel(false);
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => serve_http(listener, router, LIMITS, stopped).await,
                Err(error) => tracing::error!(%error, "admin address stopped"),
            }
        });
    };
    let spawned = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(serving);
    spawned.map(|_| ()).map_err(Failure::work)
}

fn router(handle: PrometheusHandle, shutdown: Shutdown) -> Router {
    let ready = move |State(shutdown): State<Shutdown>| async move {
        if shutdown.is_requested() {
            (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        } else {
            (StatusCode::OK, "ready\n")
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { handle.render() }))
        .with_state(shutdown)
}
