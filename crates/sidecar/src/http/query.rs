//! The query of a request; one that cannot be read is answered in the API's own form.

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::ApiError;

/// As axum's `Query`.
#[derive(Debug)]
pub(crate) struct AskedQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for AskedQuery<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        asked_query(&parts.uri).map(Self).map_err(Response::from)
    }
}

/// The query of `uri`.
///
/// # Errors
/// 400 where it cannot be read.
pub(super) fn asked_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let query = Query::try_from_uri(uri).map(|Query(query)| query);
    query.map_err(|error| {
        let message = format!("the query cannot be read: {}", error.body_text());
        ApiError::bad_request(message)
    })
}
