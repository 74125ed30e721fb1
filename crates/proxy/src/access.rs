//! Who may call which upstream, and by whose key.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use spendfuse_sidecar::keys::{Caller, Denied, PREFIX, Place, Presented, Right, TOKEN_HEADER};
use spendfuse_sidecar::server::Connection;

use crate::forward::Way;
use crate::proxy::Proxy;
use crate::refusal;
use crate::route;
use crate::unmetered;
use crate::upstream::{Shape, Upstream};

/// Where providers' clients put their keys, besides `Authorization`.
pub(crate) const KEY_HEADERS: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];
/// The name of a key in a query.
const IN_QUERY: &str = "key";

/// Whoever calls, and what they have presented for it.
#[derive(Clone, Default)]
pub(crate) struct Entrant {
    pub(crate) caller: Caller,
    /// A text that is between the caller and the proxy alone; empty where nothing was demanded.
    pub(crate) secret: Vec<u8>,
    /// Whether it stands where a provider's key would.
    in_place_of_key: bool,
}

impl Entrant {
    /// Whether a value may go upstream: nothing that is a key of ours, or has this one in it.
    pub(crate) fn lets_out(&self, value: &[u8]) -> bool {
        let secret = &self.secret[..];
        let bare = value.rsplit(|byte| *byte == b' ').next().unwrap_or(value);
        if bare.starts_with(PREFIX.as_bytes()) || !secret.is_empty() && bare == secret {
            return false;
        }
        // A token that people have chosen may be part of an innocent word.
        let is_key = secret.starts_with(PREFIX.as_bytes());
        !(is_key && value.windows(secret.len()).any(|part| part == secret))
    }

    /// The query as it may go upstream; `has_key` where the upstream's own key goes in a header.
    pub(crate) fn query(&self, uri: &Uri, has_key: bool) -> Option<String> {
        let pairs = uri.query()?.split('&');
        let kept: Vec<&str> = pairs
            .filter(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((*pair, ""));
                let is_replaced = has_key && name == IN_QUERY;
                !is_replaced && self.lets_out(value.as_bytes())
            })
            .collect();
        (!kept.is_empty()).then(|| kept.join("&"))
    }
}

/// Whose request it is; everybody's, where no keys are in use.
///
/// # Errors
/// The answer to somebody who presents no right key.
pub(crate) fn enter(proxy: &Proxy, parts: &Parts) -> Result<Entrant, Box<Response>> {
    if !proxy.sidecar.keys().is_used() {
        return Ok(Entrant::default());
    }
    let presented = presented(&parts.headers, &parts.uri);
    let connection = parts.extensions.get::<Arc<Connection>>();
    let address = connection.and_then(|connection| connection.address());
    let (name, _) = route::split(parts.uri.path());
    let shape = proxy.config.upstreams.get(name);
    let shape = shape.map_or(Shape::OpenAi, |upstream| upstream.shape);
    let (caller, index) = match proxy.sidecar.login(&presented, address) {
        Ok(found) => found,
        Err(denied) => return Err(Box::new(denied_answer(shape, denied))),
    };
    if !(caller.may(Right::Check) && caller.may(Right::Usage)) {
        let message = "this key has not the rights `check` and `usage`, which calls need";
        return Err(Box::new(forbidden(shape, message)));
    }
    Ok(Entrant {
        caller,
        secret: presented[index].text.to_vec(),
        in_place_of_key: index > 0 || !parts.headers.contains_key(TOKEN_HEADER),
    })
}

/// All that may be a key of ours; the header that nobody else uses comes first.
fn presented<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Vec<Presented<'r>> {
    let own = headers.get(TOKEN_HEADER);
    let own = own.map(|value| (Place::Header, value.as_bytes()));
    let bearer = Presented::bearer(headers).map(|text| (Place::Bearer, text));
    let others = KEY_HEADERS.iter().filter_map(|name| headers.get(*name));
    let others = others.map(|value| (Place::Header, value.as_bytes()));
    let pairs = uri.query().unwrap_or_default().split('&');
    let in_query = pairs.filter_map(|pair| pair.strip_prefix(IN_QUERY)?.strip_prefix('='));
    let in_query = in_query.map(|value| (Place::Query, value.as_bytes()));
    let has_own = own.is_some();
    let all = own.into_iter().chain(bearer).chain(others).chain(in_query);
    all.enumerate()
        .map(|(index, (place, text))| Presented {
            place,
            text,
            is_ours: has_own && index == 0 || text.starts_with(PREFIX.as_bytes()),
        })
        .collect()
}

/// The upstream that the first part of a path means for this caller: one of those that the key names,
/// or one that no key names. `None` where there is none, or it is somebody else's.
pub(crate) fn upstream_for<'p>(
    proxy: &'p Proxy,
    entrant: &Entrant,
    name: &str,
) -> Option<(&'p str, &'p Upstream)> {
    let all = &proxy.config.upstreams;
    let asked = all.get_key_value(name);
    let found = match entrant.caller.key() {
        Some(key) if !key.upstreams.is_empty() => {
            let (_, asked) = asked?;
            let mut own = key.upstreams.iter();
            let is_meant = |upstream: &Upstream| {
                upstream.shape == asked.shape && upstream.provider == asked.provider
            };
            // A path may name it, or what it stands in for: an upstream of no key with its provider.
            let named = own.clone().find(|own| *own == name);
            let alike = || {
                let is_anybodys = !proxy.sidecar.keys().is_owned(name);
                own.find(|own| is_anybodys && all.get(*own).is_some_and(is_meant))
            };
            all.get_key_value(named.or_else(alike)?)
        }
        Some(_) => asked.filter(|(name, _)| !proxy.sidecar.keys().is_owned(name)),
        None => asked,
    };
    found.map(|(name, upstream)| (name.as_str(), upstream))
}

/// The names that [`upstream_for`] finds.
pub(crate) fn names_for(proxy: &Proxy, entrant: &Entrant) -> Vec<String> {
    let names = proxy.config.upstreams.keys();
    let is_for = |name: &&String| upstream_for(proxy, entrant, name).is_some();
    names.filter(is_for).cloned().collect()
}

/// Whether a request may be made that nothing is metered of.
///
/// # Errors
/// Why not, for its sender: with a provider's key that several workspaces share, it could read what
/// others have made, and spend what nobody counts.
pub(crate) fn may_pass(proxy: &Proxy, way: &Way, method: &Method) -> Result<(), String> {
    if !shares_key(proxy, way) || unmetered::is_harmless(method, &way.path) {
        return Ok(());
    }
    Err(of_others(way, "nothing is metered of this path"))
}

/// Whether the call is made with a provider's key by which other workspaces call, too.
pub(crate) fn shares_key(proxy: &Proxy, way: &Way) -> bool {
    let keys = proxy.sidecar.keys();
    let is_anothers = |own| !keys.is_owned_by(&way.name, own) && keys.are_others_than(own);
    way.upstream.key.is_some() && way.entrant.caller.workspace().is_some_and(is_anothers)
}

/// Why a request is not made with a key that workspaces share, beside `what` is wrong with it.
pub(crate) fn of_others(way: &Way, what: &str) -> String {
    format!(
        "{what}, and other workspaces call {} by the same provider's key: ask for an upstream of your own",
        way.name
    )
}

/// Whether the provider's key is there: the caller's own, or that of the upstream.
///
/// # Errors
/// What is missing.
pub(crate) fn has_key(way: &Way, headers: &HeaderMap) -> Result<(), String> {
    let (name, entrant) = (&way.name, &way.entrant);
    if way.upstream.key.is_some() {
        return Ok(());
    }
    let signed = headers.get(header::AUTHORIZATION);
    let is_signed = signed.is_some_and(|value| value.as_bytes().starts_with(b"AWS4-"));
    if way.upstream.shape == Shape::Bedrock && is_signed {
        return Err(
            "the request is signed for this proxy's address, which Amazon does not accept: use a key \
             of Bedrock (AWS_BEARER_TOKEN_BEDROCK)"
                .to_owned(),
        );
    }
    if !entrant.in_place_of_key || entrant.secret.is_empty() {
        return Ok(());
    }
    Err(format!(
        "upstream {name} has no key of its own: send the provider's key as ever and yours in \
         {TOKEN_HEADER}, or have proxy.upstreams.{name}.key_file set"
    ))
}

fn denied_answer(shape: Shape, denied: Denied) -> Response {
    let wait = match denied {
        Denied::TooMany(wait) => wait.as_secs() + 1,
        Denied::Missing | Denied::Wrong => {
            let message = format!(
                "send a key of spendfuse as the API key, or in {TOKEN_HEADER}: `spendfuse keys new` makes one"
            );
            let status = StatusCode::UNAUTHORIZED;
            return refusal::of_request(shape, status, "unauthorized", &message);
        }
    };
    let message = format!("too many wrong keys from this address; wait {wait} s");
    let status = StatusCode::TOO_MANY_REQUESTS;
    refusal::of_request(shape, status, "too_many_failed_logins", &message)
}

pub(crate) fn forbidden(shape: Shape, message: &str) -> Response {
    refusal::of_request(shape, StatusCode::FORBIDDEN, "forbidden", message)
}
