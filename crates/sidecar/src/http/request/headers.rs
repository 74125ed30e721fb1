//! A question as `x-spendfuse-*` headers.

use axum::http::HeaderMap;
use spendfuse_domain::spelling::closest;

use super::Question;
use crate::http::ApiError;

/// What the headers that are ours begin with.
pub(super) const HEADER_PREFIX: &str = "x-spendfuse-";

/// Names of ours that are no part of a question: how to answer, and what other answers of ours
/// carry, which a gateway may send along.
const CONTROLS: [&str; 11] = [
    "budget",
    "cost-usd",
    "decision",
    "deny-status",
    "downgrade-to",
    "downgraded-from",
    "refusal",
    "reservation",
    "source",
    "token",
    "warnings",
];

/// Whether a header (without its prefix) is ours but no part of a question.
pub(super) fn is_control(name: &str) -> bool {
    CONTROLS.contains(&name)
}

/// The field that a header (without its prefix) names: `root-session`, `tag-team`,
/// `estimate-input-tokens`.
pub(super) fn field_of_header(name: &str) -> String {
    if let Some(tag) = name.strip_prefix("tag-") {
        return format!("tags.{tag}");
    }
    match name.strip_prefix("estimate-") {
        Some(field) => format!("estimate.{}", field.replace('-', "_")),
        None => name.replace('-', "_"),
    }
}

/// What follows a prefix that was probably meant to be ours: `customer` of `x-spenfuse-customer`,
/// `spendfuse-customer` and `x-spend-fuse-customer`.
fn after_misspelt_prefix(name: &str) -> Option<&str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST || !(name.contains("spend") || name.contains("fuse")) {
        return None;
    }
    let ours = [HEADER_PREFIX.trim_end_matches('-')];
    let mut ends = name.match_indices(['-', '_']).take(3);
    ends.find_map(|(end, _)| closest(&name[..end], &ours).map(|_| &name[end + 1..]))
}

impl Question {
    /// Adds what `x-spendfuse-*` headers say: `x-spendfuse-root-session`, `x-spendfuse-tag-team`.
    ///
    /// # Errors
    /// 400 for a known field that cannot be read.
    pub(in crate::http) fn add_headers(&mut self, headers: &HeaderMap) -> Result<(), ApiError> {
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix(HEADER_PREFIX) else {
                if let Some(rest) = after_misspelt_prefix(name.as_str()) {
                    self.add_misspelt_header(name.as_str(), rest);
                }
                continue;
            };
            if is_control(name) {
                continue;
            }
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
                ApiError::bad_request(format!("header {HEADER_PREFIX}{name} is not UTF-8"))
            })?;
            self.add_header(name, value)?;
        }
        Ok(())
    }
}
