//! Interfaces of other products' clients, as those clients want them: a new address guards and
//! meters an app, and nothing else of it changes.
//!
//! What their servers answer is known from the clients' sources and by trying them. None of these
//! answers may be an error: the clients take one for a lost batch or an exception of the app's.

mod events;
mod litellm;
mod margindash;
mod margint;
mod resent;
mod scopes;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use metrics::counter;

use crate::delivery::Unsafe;
use crate::http::{ApiError, Sidecar, caller};
use crate::keys::{Caller, Place, Presented, Right};
use crate::metrics::COMPAT_UNKNOWN_KEYS;
use crate::server::Connection;
use resent::Resent;
use scopes::BlockedScopes;

pub(crate) use litellm::ingest as ingest_litellm;
pub use margint::OnDowngrade as MargintDowngrade;

/// How verdicts are told that another product has no word for.
#[derive(Clone, Copy, Debug)]
pub struct CompatConfig {
    /// What Margint's clients are told of calls that a cheaper model should answer.
    pub margint_downgrade: MargintDowngrade,
    /// How often MarginDash's clients ask for what is blocked.
    pub margindash_poll: Duration,
    /// Whether a block of a customer's feature blocks all of that customer for MarginDash's clients.
    pub margindash_widen: bool,
}

impl Default for CompatConfig {
    fn default() -> Self {
        Self {
            margint_downgrade: MargintDowngrade::Allow,
            margindash_poll: Duration::from_secs(1),
            margindash_widen: false,
        }
    }
}

/// What these interfaces remember between requests.
#[derive(Debug, Default)]
pub(crate) struct Compat {
    resent: Resent,
    blocked: BlockedScopes,
}

/// Whether requests come over TCP, where keys are demanded once there are any.
#[derive(Clone, Copy, Debug)]
struct IsTcp(bool);

/// The routes with small bodies, and those with events.
pub(crate) fn routes(is_tcp: bool) -> (Router<Arc<Sidecar>>, Router<Arc<Sidecar>>) {
    let (margint, margindash) = ("/compat/margint", "/compat/margindash/api/v1");
    let questions = Router::new()
        .route("/api/budgets/check", get(margint::check))
        .route(&format!("{margint}/api/budgets/check"), get(margint::check))
        .route(
            &format!("{margindash}/budgets/blocklist"),
            get(margindash::blocklist),
        )
        .route(&format!("{margindash}/models"), get(margindash::models))
        .layer(Extension(IsTcp(is_tcp)));
    let events = Router::new()
        .route("/api/ingest/events", post(margint::ingest))
        .route(
            &format!("{margint}/api/ingest/events"),
            post(margint::ingest),
        )
        .route(&format!("{margindash}/events"), post(margindash::events))
        .layer(Extension(IsTcp(is_tcp)));
    (questions, events)
}

/// How a request came.
struct Line {
    connection: Option<Arc<Connection>>,
    is_tcp: bool,
}

impl<S: Sync> FromRequestParts<S> for Line {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let is_tcp = parts.extensions.get::<IsTcp>();
        Ok(Self {
            connection: parts.extensions.get().cloned(),
            is_tcp: is_tcp.is_none_or(|IsTcp(is_tcp)| *is_tcp),
        })
    }
}

impl Line {
    /// Whose request it is that has `key` there; `None` where it is nobody's who may use these
    /// interfaces. That is counted, and logged without the key.
    fn caller(&self, sidecar: &Sidecar, place: Place, key: Option<&[u8]>) -> Option<Caller> {
        let presented = key.map(|text| Presented {
            place,
            text,
            is_ours: true,
        });
        let connection = self.connection.as_ref();
        let address = connection.and_then(|connection| connection.address());
        let known = caller(sidecar, presented.as_slice(), self.is_tcp, address);
        let known = known.ok().map(Option::unwrap_or_default);
        let known = known.filter(|caller| caller.may(Right::Compat));
        if known.is_none() {
            counter!(COMPAT_UNKNOWN_KEYS).increment(1);
        }
        known
    }

    /// Ends the connection without an answer, which tells these clients to send their events again.
    async fn hang_up(&self) {
        if let Some(connection) = &self.connection {
            connection.end();
            std::future::pending::<()>().await;
        }
    }
}

/// What the query says; nothing where it cannot be read.
fn parameters(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map_or_else(|_| Vec::new(), |Query(all)| all)
}

/// Nothing takes the events: to be sent again.
fn unavailable(error: &Unsafe) -> Response {
    let error = ApiError::new("unavailable", error.to_string());
    error.response(StatusCode::SERVICE_UNAVAILABLE)
}

/// The workspace that a caller's events and questions are of.
fn workspace<'s>(sidecar: &'s Sidecar, caller: &'s Caller) -> &'s str {
    let default = &sidecar.config.default_workspace;
    caller.workspace().unwrap_or(default)
}
