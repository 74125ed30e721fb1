//! The admin address of every role: `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use spendfuse_bus::Shutdown;
use tokio::net::TcpListener;

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

/// Serves the admin address until the process ends.
pub async fn serve(
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
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::work(format!(
            "cannot listen on {address} (admin.listen): {error}"
        ))
    })?;
    let ready = move |State(shutdown): State<Shutdown>| async move {
        if shutdown.is_requested() {
            (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        } else {
            (StatusCode::OK, "ready\n")
        }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { handle.render() }))
        .with_state(shutdown);
    tracing::info!(%address, "admin address");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(error = %error, "admin address stopped");
        }
    });
    Ok(())
}
