//! The query of a request; one that cannot be read is answered in the API's own form.

use axum::extract::{FromRequestParts, Query};
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
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => {
                let message = format!("the query cannot be read: {}", error.body_text());
                Err(ApiError::new("bad_request", message).into())
            }
        }
    }
}
