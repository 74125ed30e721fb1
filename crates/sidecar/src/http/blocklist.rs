//! `GET /v1/blocklist`: the blocklist for those who cannot follow Kafka.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use spendfuse_domain::scope::{Dimension, ScopeText};

use super::check::is_of;
use super::query::AskedQuery;
use super::{ApiError, Shared, json};
use crate::keys::Caller;

/// Entries in a page, where the caller does not say.
const PAGE: usize = 5_000;

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn get_blocklist(
    State(sidecar): Shared,
    caller: Caller,
    AskedQuery(page): AskedQuery<Page>,
) -> Response {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let now = sidecar.checker.clock.now().wall;
    match sidecar
        .checker
        .guard
        .blocklist(page.cursor.as_deref(), limit, now)
    {
        Ok(mut page) => {
            if caller.key().is_some() {
                page.entries.retain(|entry| is_for(&caller, &entry.key));
            }
            json(StatusCode::OK, &page)
        }
        Err(expired) => {
            ApiError::new("cursor_expired", expired.to_string()).response(StatusCode::GONE)
        }
    }
}

/// Whether an entry tells of the caller's own spend alone: `{budget}|{scope}`, `finding|{detector}|{scope}`.
/// Those across workspaces are left out: their figures tell what others spend.
fn is_for(caller: &Caller, key: &str) -> bool {
    if key.starts_with("heartbeat|") {
        return true;
    }
    let scope = key.rsplit('|').next().unwrap_or_default();
    let is_own = caller.workspace().is_none_or(|own| is_of(scope, own));
    let parts = ScopeText::parse(scope).map(|scope| scope.parts);
    let mut parts = parts.unwrap_or_default().into_iter();
    let is_others = |(dimension, value): (Dimension, String)| {
        let mut imposed = caller.imposed();
        imposed.any(|(name, own)| name == dimension.name() && own != value)
    };
    is_own && !parts.any(is_others)
}
