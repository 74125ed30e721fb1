//! Whom a call counts against: what the caller's key says, else its headers, else its body.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use spendfuse_domain::scope::Dimension;
use spendfuse_sidecar::keys::Caller;

use crate::request::Asked;

const HEADER_PREFIX: &str = "x-spendfuse-";
/// Headers of ours that say nothing about whom a call counts against.
const CONTROLS: [&str; 2] = ["token", "source"];
/// The name, among those of body members, of the caller's own key.
const BEARER: &str = "bearer";

/// Values of dimensions by their dotted names: `customer`, `tags.team`.
pub(crate) type Who = BTreeMap<String, String>;

/// How calls are attributed.
#[derive(Clone, Debug, Default)]
pub struct Attributing {
    /// Whether `x-spendfuse-*` headers are believed.
    pub trust_headers: bool,
    /// Which member of the body (`user`, `metadata.user_id`, or `bearer`, the caller's key) is which
    /// dimension.
    pub members: BTreeMap<String, String>,
    /// Of calls that name none.
    pub workspace: String,
}

impl Attributing {
    /// Whom a call counts against.
    ///
    /// # Errors
    /// A header that cannot be understood, in words for its sender.
    pub(crate) fn of(
        &self,
        headers: &HeaderMap,
        asked: &Asked,
        caller: &Caller,
    ) -> Result<Who, String> {
        let mut who = Who::new();
        for (member, dimension) in &self.members {
            let named = asked.named.iter().find(|(name, _)| name == member);
            let value = match member.as_str() {
                BEARER => key_of(headers),
                _ => named.map(|(_, value)| value.clone()),
            };
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                who.insert(dimension.clone(), value);
            }
        }
        if self.trust_headers {
            add_headers(&mut who, headers)?;
        }
        for (name, value) in caller.imposed() {
            who.insert(name.to_owned(), value.to_owned());
        }
        let workspace = who.entry("workspace".to_owned()).or_default();
        if workspace.is_empty() {
            workspace.clone_from(&self.workspace);
        }
        Ok(who)
    }
}

/// Whether callers say a value of `dimension` themselves. What a call is charged as they do not: its
/// model, who answers it, and the account that pays.
pub(crate) fn is_callers_to_say(dimension: &str) -> bool {
    use Dimension::{Account, Model, Provider};
    let dimension = Dimension::from_name(dimension);
    dimension.is_some_and(|dimension| !matches!(dimension, Model | Provider | Account))
}

fn add_headers(who: &mut Who, headers: &HeaderMap) -> Result<(), String> {
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(HEADER_PREFIX) else {
            continue;
        };
        if CONTROLS.contains(&name) {
            continue;
        }
        let field = match name.strip_prefix("tag-") {
            Some(tag) => format!("tags.{tag}"),
            None => name.replace('-', "_"),
        };
        if !is_callers_to_say(&field) {
            return Err(format!(
                "header {HEADER_PREFIX}{name} names no dimension of callers: write customer, feature, user, \
                 session, root-session, agent, plan, project, environment, workspace or tag-NAME"
            ));
        }
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| format!("header {HEADER_PREFIX}{name} is not UTF-8"))?;
        who.insert(field, value.to_owned());
    }
    Ok(())
}

/// The caller's key as a name that does not tell it: `key-` and the first 64 bits of its SHA-256.
fn key_of(headers: &HeaderMap) -> Option<String> {
    let bearer = headers.get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let other = ["x-api-key", "api-key", "x-goog-api-key"];
    let other = || other.iter().find_map(|name| headers.get(*name));
    let key = bearer.or_else(|| other().map(|value| value.as_bytes()))?;
    let hash = Sha256::digest(key);
    let digits: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(format!("key-{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn who(
        attributing: &Attributing,
        headers: &[(&'static str, &'static str)],
        body: &str,
    ) -> Result<String, String> {
        let headers = headers.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let asked = Asked::read(body.as_bytes()).unwrap();
        let who = attributing.of(&headers.collect(), &asked, &Caller::default())?;
        let pairs: Vec<_> = who
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Ok(pairs.join(" "))
    }

    #[test]
    fn headers_win_over_the_body_where_they_are_trusted() {
        let members = [
            ("user", "customer"),
            ("metadata.user_id", "user"),
            ("bearer", "agent"),
        ];
        let mut attributing = Attributing {
            trust_headers: true,
            members: members
                .map(|(one, other)| (one.to_owned(), other.to_owned()))
                .into(),
            workspace: "acme".to_owned(),
        };
        let headers = [
            ("x-spendfuse-customer", "c-42"),
            ("x-spendfuse-tag-team", "growth"),
            ("authorization", "Bearer sk-secret"),
        ];
        let body = r#"{"user":"of the body","metadata":{"user_id":"u-7"}}"#;
        let found = who(&attributing, &headers, body).unwrap();
        assert!(
            found.contains("customer=c-42") && found.contains("user=u-7"),
            "{found}"
        );
        assert!(
            found.contains("tags.team=growth") && found.contains("workspace=acme"),
            "{found}"
        );
        assert!(
            found.contains("agent=key-") && !found.contains("sk-secret"),
            "{found}"
        );
        attributing.trust_headers = false;
        let found = who(&attributing, &headers, body).unwrap();
        assert!(
            found.contains("customer=of the body") && !found.contains("team"),
            "{found}"
        );
    }

    #[test]
    fn a_header_that_names_nothing_is_told() {
        let attributing = Attributing {
            trust_headers: true,
            ..Attributing::default()
        };
        for name in [
            "x-spendfuse-custmer",
            // What is charged is not for callers to say.
            "x-spendfuse-model",
            "x-spendfuse-provider",
            "x-spendfuse-account",
        ] {
            let error = who(&attributing, &[(name, "c")], "{}").unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
