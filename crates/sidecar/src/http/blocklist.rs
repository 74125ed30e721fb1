//! `GET /v1/blocklist`: the blocklist for those who cannot follow Kafka.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::query::AskedQuery;
use super::{ApiError, Shared, json};

/// Entries in a page, where the caller does not say.
const PAGE: usize = 5_000;

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn get_blocklist(
    State(sidecar): Shared,
    AskedQuery(page): AskedQuery<Page>,
) -> Response {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let now = sidecar.checker.clock.now().wall;
    match sidecar
        .checker
        .guard
        .blocklist(page.cursor.as_deref(), limit, now)
    {
        Ok(page) => json(StatusCode::OK, &page),
        Err(expired) => {
            ApiError::new("cursor_expired", expired.to_string()).response(StatusCode::GONE)
        }
    }
}
