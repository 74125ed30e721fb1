//! `/v1/reservations/{id}`: what becomes of a hold that a check gave. Most are settled by the usage
//! event of their call instead.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use spendfuse_domain::{Nanos, UnixMillis};

use super::request::call_timeout;
use super::{ApiError, Shared, Sidecar, json};
use crate::keys::Caller;
use crate::reservations;

/// The answer to an extension.
#[derive(Debug, Serialize)]
struct Reservation {
    reservation_id: String,
    reserved_usd: Nanos,
    reserved_until: UnixMillis,
}

/// What an extension may say.
#[derive(Debug, Deserialize)]
struct Extension {
    #[serde(default)]
    call_timeout_s: Option<u64>,
}

/// The same, where nothing else may stand beside it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictExtension {
    #[serde(default)]
    call_timeout_s: Option<u64>,
}

/// `POST /v1/reservations/{id}/extend`: the call takes longer.
pub(super) async fn extend(
    State(sidecar): Shared,
    caller: Caller,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    match extended(&sidecar, &caller, name, &body) {
        Ok(Some(reservation)) => json(StatusCode::OK, &reservation),
        Ok(None) => unknown(),
        Err(error) => error.into(),
    }
}

fn extended(
    sidecar: &Sidecar,
    caller: &Caller,
    name: String,
    body: &[u8],
) -> Result<Option<Reservation>, ApiError> {
    let timeout = asked_timeout(body, sidecar.config.strict).map_err(|error| {
        let message =
            format!("the body cannot be read ({error}); write {{\"call_timeout_s\": 600}}");
        ApiError::bad_request(message)
    })?;
    let timeout = timeout.map(|seconds| call_timeout(&seconds.to_string()));
    let timeout = timeout.transpose()?;
    let timeout = timeout.map(|timeout| timeout.as_millis() as i64);
    let checker = &sidecar.checker;
    let now = checker.clock.now();
    let hold = checker
        .reservation_of(&name, caller)
        .and_then(|number| checker.guard.extend(number, timeout, now.monotonic_millis));
    Ok(hold.map(|hold| Reservation {
        reservation_id: name,
        reserved_usd: hold.cost,
        reserved_until: reservations::ends_at(&hold, now),
    }))
}

/// The seconds that a body asks for.
fn asked_timeout(body: &[u8], is_strict: bool) -> Result<Option<u64>, serde_json::Error> {
    match (body, is_strict) {
        ([], _) => Ok(None),
        (body, false) => {
            let asked = serde_json::from_slice::<Extension>(body);
            asked.map(|asked| asked.call_timeout_s)
        }
        (body, true) => {
            let asked = serde_json::from_slice::<StrictExtension>(body);
            asked.map(|asked| asked.call_timeout_s)
        }
    }
}

/// `DELETE /v1/reservations/{id}`: the call is not made.
pub(super) async fn release(
    State(sidecar): Shared,
    caller: Caller,
    Path(name): Path<String>,
) -> Response {
    let checker = &sidecar.checker;
    let number = checker.reservation_of(&name, &caller);
    match number.is_some_and(|number| reservations::release(&checker.guard, number)) {
        true => StatusCode::NO_CONTENT.into_response(),
        false => unknown(),
    }
}

/// Settled, released, over, or another sidecar's: nothing is to be done about it.
fn unknown() -> Response {
    let message = "no such reservation is open here: it was settled, released or is over, or another sidecar or an earlier start of this one gave it";
    ApiError::new("unknown_reservation", message).response(StatusCode::NOT_FOUND)
}
