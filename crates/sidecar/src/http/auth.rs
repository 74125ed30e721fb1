//! Who may ask what: the sidecar's token, or a key with the right to it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use metrics::counter;

use super::{ApiError, Sidecar};
use crate::keys::{Caller, Denied, PREFIX, Presented, Right};
use crate::metrics::FAILED_LOGINS;
use crate::server::Connection;

/// What a route demands of its callers.
#[derive(Clone)]
pub(super) struct Demand {
    pub(super) sidecar: Arc<Sidecar>,
    pub(super) right: Right,
    /// Whether callers come over TCP: a socket's are the file system's business.
    pub(super) is_tcp: bool,
}

/// Lets requests through whose callers have the right, with their [`Caller`].
pub(super) async fn demand(
    State(demand): State<Demand>,
    mut request: Request,
    next: Next,
) -> Response {
    let connection = request.extensions().get::<Arc<Connection>>();
    let address = connection.and_then(|connection| connection.address());
    match demand.admit(request.headers(), address) {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
        }
        Ok(None) => {}
        Err(refusal) => return refusal.response(),
    }
    next.run(request).await
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotAdmitted {
    Denied(Denied),
    NoRight(Right),
}

impl NotAdmitted {
    pub(super) fn response(self) -> Response {
        match self {
            Self::Denied(denied) => unauthorized(denied),
            Self::NoRight(right) => forbidden(right),
        }
    }
}

impl Demand {
    /// Who asks with these headers from `address`; `None` where nobody has to say.
    ///
    /// # Errors
    /// [`NotAdmitted`]: no key that has the right.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> Result<Option<Caller>, NotAdmitted> {
        let presented = Presented::in_headers(headers);
        let caller = caller(&self.sidecar, &presented, self.is_tcp, address);
        let caller = caller.map_err(NotAdmitted::Denied)?;
        match caller {
            Some(caller) if !caller.may(self.right) => Err(NotAdmitted::NoRight(self.right)),
            caller => Ok(caller),
        }
    }
}

/// Who presents these; `None` where nobody has to say.
///
/// # Errors
/// [`Denied`]: no right key, where one is demanded.
pub(crate) fn caller(
    sidecar: &Sidecar,
    presented: &[Presented<'_>],
    is_tcp: bool,
    address: Option<IpAddr>,
) -> Result<Option<Caller>, Denied> {
    let config = &sidecar.config;
    let is_key = |one: &Presented<'_>| one.text.starts_with(PREFIX.as_bytes());
    let is_demanded = match is_tcp {
        true => config.token.is_some() || config.keys.is_used(),
        // A key that is presented all the same says whom the request counts against.
        false => config.keys.is_used() && presented.iter().any(is_key),
    };
    if !is_demanded {
        return Ok(None);
    }
    let (caller, _) = sidecar.login(presented, address)?;
    Ok(Some(caller))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

fn unauthorized(denied: Denied) -> Response {
    let message =
        "send a key, or the sidecar's token, in `x-spendfuse-token` or as `Authorization: Bearer`";
    let mut response = match denied {
        Denied::Missing | Denied::Wrong => {
            let mut response =
                ApiError::new("unauthorized", message).response(StatusCode::UNAUTHORIZED);
            let scheme = HeaderValue::from_static("Bearer");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, scheme);
            response
        }
        Denied::TooMany(wait) => {
            let seconds = wait.as_secs() + 1;
            let message = format!("too many wrong keys from this address; wait {seconds} s");
            let error = ApiError::new("too_many_failed_logins", message);
            let mut response = error.response(StatusCode::TOO_MANY_REQUESTS);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    };
    super::authz::forbid_retry(response.headers_mut());
    response
}

fn forbidden(right: Right) -> Response {
    counter!(FAILED_LOGINS, "reason" => "no_right").increment(1);
    let right = right.name();
    let message = format!("this key has not the right `{right}`, which this path needs");
    let mut response = ApiError::new("forbidden", message).response(StatusCode::FORBIDDEN);
    super::authz::forbid_retry(response.headers_mut());
    response
}
