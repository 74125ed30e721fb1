//! The admin address of every role: `/healthz`, `/readyz`, `/metrics`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;
use spendfuse_bus::{Health, Shutdown};
use spendfuse_sidecar::background::{Share, let_others_go_first};
use spendfuse_sidecar::refuse_browsers;
use spendfuse_sidecar::server::{ServerLimits, serve_http};
use tokio::runtime;
use tokio::sync::watch;

use crate::commands::Failure;
use crate::metrics::MetricsHandle;
use crate::roles::{Role, Watched};
use crate::settings::Settings;

/// Clients of the admin address: an orchestrator, Prometheus, a few people.
const LIMITS: ServerLimits = ServerLimits {
    connections: 64,
    ..ServerLimits::DEFAULT
};

/// Serves the admin address until the process ends, on a thread of its own: it answers whatever the
/// process is busy with.
pub fn serve(
    settings: &Settings,
    handle: MetricsHandle,
    roles: &Watched,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let listen = &settings.values.admin.listen;
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
    let mut router = router(handle, roles.to_vec(), shutdown);
    if address.ip().is_loopback() {
        router = router.layer(from_fn(refuse_browsers));
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::work)?;
    tracing::info!(%address, "admin address");
    let serving = move || {
        // To write the metrics takes as long as ten checks.
        let_others_go_first(Share::Tenth);
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

fn router(handle: MetricsHandle, roles: Vec<(Role, Health)>, shutdown: Shutdown) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || async move { handle.render() }))
        .with_state(Arc::new((roles, shutdown)))
}

/// What is asked whether it is ready.
type Process = Arc<(Vec<(Role, Health)>, Shutdown)>;

/// Each role, whether it does its work, and if not, why.
async fn readyz(State(process): State<Process>) -> Response {
    let (roles, shutdown) = &*process;
    let is_stopping = shutdown.is_requested();
    let mut is_ready = !is_stopping;
    let roles: Vec<_> = roles
        .iter()
        .map(|(role, health)| {
            let report = health.report();
            is_ready &= report.is_ready;
            json!({
                "role": role.name(),
                "ready": report.is_ready,
                "reasons": report.reasons,
            })
        })
        .collect();
    let status = match is_ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "ready": is_ready, "stopping": is_stopping, "roles": roles });
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(roles: &Watched, shutdown: &Shutdown) -> (StatusCode, serde_json::Value) {
        let process = Arc::new((roles.to_vec(), shutdown.clone()));
        let (parts, body) = readyz(State(process)).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn ready_are_processes_whose_roles_all_are_and_that_do_not_stop() {
        let schema = include_str!("../../../schemas/readiness.schema.json");
        let schema = serde_json::from_str(schema).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        let roles = crate::roles::watched(&[Role::Processor, Role::Loader]);
        let shutdown = Shutdown::new();
        let worker = roles[0].1.part("meter worker 0");
        let clickhouse = roles[1].1.part("ClickHouse");
        worker.ready();
        clickhouse.not_ready("no answer");
        let (status, body) = answer(&roles, &shutdown).await;
        assert!(schema.is_valid(&body), "{body}");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["roles"][0]["ready"], true);
        assert_eq!(
            body["roles"][1]["reasons"],
            json!(["ClickHouse: no answer"])
        );
        clickhouse.ready();
        assert_eq!(answer(&roles, &shutdown).await.0, StatusCode::OK);
        shutdown.request();
        assert_eq!(
            answer(&roles, &shutdown).await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
}
