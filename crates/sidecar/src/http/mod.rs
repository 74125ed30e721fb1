//! The HTTP API: routes, shared state, errors.

mod auth;
mod authz;
mod blocklist;
mod browsers;
mod check;
mod direct;
mod estimate;
mod health;
mod intake;
mod openapi;
mod query;
mod request;
mod reservations;
mod spending;
mod standings;
mod waiting;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;
use spendfuse_guard::{Clock, Guard};

pub use request::Question;
pub(crate) use request::shown;

use crate::background::Background;
use crate::compat::{self, Compat};
use crate::config::SidecarConfig;
use crate::delivery::Delivery;
use crate::keys::Right;
use crate::prices::Prices;
use crate::reservations::{Reservations, Reserver};
use crate::usage::{Recent, post_usage};
use auth::Demand;
pub(crate) use auth::caller;
pub(crate) use authz::refused_call;
pub use browsers::refuse_browsers;
pub use check::Checker;
pub use direct::Api;
pub(crate) use health::show_state;
use intake::{BodyRules, Intake};
pub(crate) use waiting::Waiting;

/// Larger questions than this are not questions.
const MAX_CHECK_BYTES: usize = 64 * 1024;
/// A provider's request with a long context.
const MAX_ESTIMATE_BYTES: usize = 1024 * 1024;
/// Code of the answer where no more can be reserved.
const TOO_MANY_RESERVATIONS: &str = "too_many_reservations";
/// That where no more can wait.
const TOO_MANY_WAITING: &str = "too_many_waiting";
/// Where exporters of OpenTelemetry send to over HTTP.
const OTLP: [&str; 3] = ["/v1/traces", "/v1/logs", "/v1/metrics"];
/// What a check of half a dozen budgets is answered with.
const USUAL_ANSWER_BYTES: usize = 2048;

/// Writes the process's metrics in Prometheus' text format.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What every request needs.
pub struct Sidecar {
    pub(crate) config: SidecarConfig,
    pub(crate) checker: Checker,
    pub(crate) delivery: Delivery,
    pub(crate) recent: Recent,
    pub(crate) metrics: MetricsText,
    pub(crate) compat: Compat,
    pub(crate) background: Background,
    pub(crate) waiting: Waiting,
    intake: Intake,
}

pub(crate) type Shared = State<Arc<Sidecar>>;

impl Sidecar {
    /// A sidecar that answers from `guard` and sends events through `delivery`.
    pub fn new(
        config: SidecarConfig,
        guard: Guard,
        prices: Prices,
        delivery: Delivery,
        metrics: MetricsText,
    ) -> Arc<Self> {
        let reserving = Reserver {
            reservations: Reservations::new(&config.instance),
            in_flight: None,
        };
        let clock = Clock::new();
        Self::with_clock(config, guard, prices, delivery, metrics, clock, reserving)
    }

    pub(crate) fn with_clock(
        config: SidecarConfig,
        guard: Guard,
        prices: Prices,
        delivery: Delivery,
        metrics: MetricsText,
        clock: Clock,
        reserving: Reserver,
    ) -> Arc<Self> {
        let replica = guard.clone();
        let condition = move || health::condition(&replica, &clock);
        config.health.ask("guard", condition);
        let waiting = Waiting::new(&guard, config.limits.connections / 2);
        let checker = Checker {
            guard,
            prices,
            clock,
            default_workspace: config.default_workspace.clone(),
            strict: config.strict,
            reserving: Some(reserving),
            hint: "; a body is read where its Content-Type is application/json",
        };
        let intake = Intake::new(config.max_body_memory, config.limits.body_timeout);
        Arc::new(Self {
            config,
            checker,
            delivery,
            recent: Recent::default(),
            metrics,
            compat: Compat::default(),
            background: Background::start(),
            waiting,
            intake,
        })
    }
}

/// All but what [`Api`] answers itself.
fn routes(sidecar: Arc<Sidecar>, is_tcp: bool) -> Router {
    let config = &sidecar.config;
    let rules = |at_most, demands_json| {
        let intake = sidecar.intake.clone();
        let rules = BodyRules {
            intake,
            at_most,
            demands_json,
        };
        from_fn_with_state(rules, intake::take_body)
    };
    let demands = |right| {
        let demand = Demand {
            sidecar: Arc::clone(&sidecar),
            right,
            is_tcp,
        };
        from_fn_with_state(demand, auth::demand)
    };
    let reservations = Router::new()
        .route("/v1/reservations/{id}", delete(reservations::release))
        .route("/v1/reservations/{id}/extend", post(reservations::extend))
        .layer(rules(MAX_CHECK_BYTES, true))
        .layer(demands(Right::Check));
    let figures = Router::new()
        .route("/v1/state", get(spending::get_state))
        .route("/v1/blocklist", get(blocklist::get_blocklist))
        .layer(rules(MAX_CHECK_BYTES, true))
        .layer(demands(Right::State));
    let estimates = Router::new()
        .route("/v1/estimate", post(estimate::post_estimate))
        .layer(rules(MAX_ESTIMATE_BYTES, true))
        .layer(demands(Right::Check));
    let usage = Router::new()
        .route("/v1/usage", post(post_usage))
        .route("/v1/ingest/litellm", post(compat::ingest_litellm))
        .layer(rules(config.max_usage_bytes, true))
        .layer(demands(Right::Usage));
    // Their clients have the key in other places.
    let (questions, events) = compat::routes(is_tcp);
    let others = questions
        .layer(rules(MAX_CHECK_BYTES, false))
        .merge(events.layer(rules(config.max_usage_bytes, true)));
    let api = reservations.merge(figures).merge(estimates);
    let mut all = api
        .merge(usage)
        .merge(others)
        .layer(map_response(never_stored))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .fallback(no_such_path)
        .method_not_allowed_fallback(async || method_not_allowed())
        // The intake has bounded them already.
        .layer(DefaultBodyLimit::disable());
    if is_tcp && config.listens_on_loopback() {
        all = all.layer(from_fn(refuse_browsers));
    }
    all.with_state(sidecar)
}

async fn no_such_path(uri: Uri) -> Response {
    let refused = match OTLP.contains(&uri.path()) {
        true => {
            let message = "OTLP is not supported yet; send calls as events to /v1/usage";
            ApiError::new("not_supported", message).response(StatusCode::NOT_IMPLEMENTED)
        }
        false => {
            let message = "no such path; GET /openapi.json describes them all";
            ApiError::new("not_found", message).response(StatusCode::NOT_FOUND)
        }
    };
    never_stored(refused).await
}

fn method_not_allowed() -> Response {
    let message = "this path takes another method, see the `allow` header";
    ApiError::new("method_not_allowed", message).response(StatusCode::METHOD_NOT_ALLOWED)
}

/// Answers are true for a moment: no cache may keep one, a refusal least of all.
async fn never_stored(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

/// An error in the API's own form: `{"error": {"code": …, "message": …}}`.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// What the caller must mend.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new("bad_request", message)
    }

    /// The status of an answer to a question where nothing else is said.
    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            TOO_MANY_RESERVATIONS | TOO_MANY_WAITING => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn response(self, status: StatusCode) -> Response {
        json(status, &Refused { error: &self })
    }
}

/// The body of everything that is refused.
#[derive(Debug, Serialize)]
pub(crate) struct Refused<'a, E> {
    pub(crate) error: &'a E,
}

/// An answer as JSON. axum's own `Json` asks its buffer for room at every comma, which took as long
/// as everything else about a check.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
    if let Err(error) = serde_json::to_writer(&mut text, body) {
        tracing::error!(%error, "an answer cannot be written as JSON");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    response
}
