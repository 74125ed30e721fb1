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
use axum::http::{HeaderMap, Uri, header};
use axum::routing::{get, post};
use axum::{Extension, Router};
use metrics::counter;

use crate::config::Token;
use crate::http::Sidecar;
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

/// Who may ask. Keys stand in queries and bodies here, because these clients put them there.
#[derive(Clone, Debug)]
struct Keys(Option<Token>);

impl Keys {
    /// Whether a caller with this key is one of ours. An unknown one is counted, never logged.
    fn know(&self, key: Option<&str>) -> bool {
        let Some(token) = &self.0 else { return true };
        let is_known = key.is_some_and(|key| token.is(key.as_bytes()));
        if !is_known {
            counter!(COMPAT_UNKNOWN_KEYS).increment(1);
        }
        is_known
    }
}

/// The routes with small bodies, and those with events.
pub(crate) fn routes(token: Option<Token>) -> (Router<Arc<Sidecar>>, Router<Arc<Sidecar>>) {
    let (margint, margindash) = ("/compat/margint", "/compat/margindash/api/v1");
    let questions = Router::new()
        .route("/api/budgets/check", get(margint::check))
        .route(&format!("{margint}/api/budgets/check"), get(margint::check))
        .route(
            &format!("{margindash}/budgets/blocklist"),
            get(margindash::blocklist),
        )
        .route(&format!("{margindash}/models"), get(margindash::models))
        .layer(Extension(Keys(token.clone())));
    let events = Router::new()
        .route("/api/ingest/events", post(margint::ingest))
        .route(
            &format!("{margint}/api/ingest/events"),
            post(margint::ingest),
        )
        .route(&format!("{margindash}/events"), post(margindash::events))
        .layer(Extension(Keys(token)));
    (questions, events)
}

/// The connection of a request, where it came over one.
struct Caller(Option<Arc<Connection>>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get().cloned()))
    }
}

impl Caller {
    /// Ends the connection without an answer, which tells these clients to send their events again.
    async fn hang_up(&self) {
        if let Some(connection) = &self.0 {
            connection.end();
            std::future::pending::<()>().await;
        }
    }
}

/// What the query says; nothing where it cannot be read.
fn parameters(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map_or_else(|_| Vec::new(), |Query(all)| all)
}

/// The key in `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
