//! On loopback, no web page may ask: any page that a person opens can send requests to 127.0.0.1,
//! and by a name that it lets point there (DNS rebinding) even read the answers.
//!
//! Pages cannot send a request without its marks: `Origin` on whatever is not a plain GET,
//! `Sec-Fetch-Site` on the rest, and their own `Host` where they came by a name of theirs.
//! Gateways pass their callers' headers on to `/v1/authz`, marks included; a page cannot add a
//! header such as `x-spendfuse-customer` without asking first, which nobody here allows.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri, header, uri::Authority};
use axum::middleware::Next;
use axum::response::Response;
use metrics::counter;

use super::ApiError;
use super::authz::is_asked_at;
use crate::metrics::REQUESTS_REFUSED;

const GATEWAY_HEADERS: [&str; 4] = ["x-spendfuse-", "x-forwarded-", "x-original-", "x-envoy-"];

/// Middleware for addresses on loopback.
pub async fn refuse_browsers(request: Request, next: Next) -> Response {
    match refusal(request.uri(), request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// The answer to what looks like a web page's request; `None` where it does not.
pub(super) fn refusal(uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let mark = browser_mark(uri, headers)?;
    if is_asked_at(uri.path()) && came_through_gateway(headers) {
        return None;
    }
    counter!(REQUESTS_REFUSED, "reason" => "browser").increment(1);
    let message = format!(
        "this address is for programs on this machine, and {mark} looks like a web page's request; \
         ask from a server, by localhost or 127.0.0.1"
    );
    Some(ApiError::new("browser", message).response(StatusCode::FORBIDDEN))
}

fn browser_mark(uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Some("`Origin`");
    }
    // `none`: a person typed the address.
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "none" && site != "same-origin") {
        return Some("`Sec-Fetch-Site`");
    }
    let host = headers.get(header::HOST).map(|host| host.to_str());
    let names = [uri.authority().map(|name| Ok(name.as_str())), host];
    let is_foreign = |name: Result<&str, _>| !name.is_ok_and(is_local);
    let is_foreign = names.into_iter().flatten().any(is_foreign);
    is_foreign.then_some("`Host`")
}

/// Whether a `Host` names this machine's loopback.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

fn came_through_gateway(headers: &HeaderMap) -> bool {
    let is_gateways = |name: &str| {
        GATEWAY_HEADERS
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    headers.keys().any(|name| is_gateways(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_of_loopback_are_local() {
        for local in [
            "localhost",
            "LOCALHOST:4117",
            "127.0.0.1:4117",
            "127.8.0.1",
            "[::1]:4117",
        ] {
            assert!(is_local(local), "{local}");
        }
        for foreign in [
            "",
            "example.com",
            "localhost.example.com:4117",
            "10.0.0.1",
            "0.0.0.0",
            "a b",
        ] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }
}
