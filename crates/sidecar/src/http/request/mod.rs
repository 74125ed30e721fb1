//! A question about a call, from JSON, query or headers.
//!
//! [`json`], [`query`] and [`headers`] each read one form; all of them end in [`Question::put`], which
//! knows the fields. What a question lacks or has too much is told by [`faults`].

mod estimate;
mod faults;
mod headers;
mod json;
mod query;

use std::collections::BTreeMap;

use axum::http::StatusCode;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::scope::Dimension;
use spendfuse_domain::{Attribution, Nanos, UnixMillis};
use spendfuse_guard::{CheckRequest, Warning};

use super::{ApiError, Checker};
use estimate::Estimate;
use faults::Unknown;

pub(crate) use faults::shown;
pub(super) use query::Author;

/// The input of `/v1/check`, `/v1/authz` and `/v1/state`. Null is absent.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Who asks; tags included.
    values: BTreeMap<Dimension, String>,
    estimated_cost_usd: Option<String>,
    estimate: Option<Estimate>,
    unknown: Unknown,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Money,
    Count,
    Flag,
}

/// Fields of an estimate.
const ESTIMATE_FIELDS: [(&str, Kind); 4] = [
    ("model", Kind::Text),
    ("provider", Kind::Text),
    ("input_tokens", Kind::Count),
    ("max_output_tokens", Kind::Count),
];
/// Fields that limit spend in versions to come. Ignored, they would let through what their sender
/// believes to be limited.
const NOT_YET: [(&str, Kind); 2] = [("reserve", Kind::Flag), ("session_limit_usd", Kind::Money)];

/// The kind of the field with this dotted name: `customer`, `tags.team`, `estimate.input_tokens`.
fn kind_of(name: &str) -> Option<Kind> {
    let among = |fields: &[(&str, Kind)], name: &str| {
        let found = fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind)
    };
    if let Some(field) = name.strip_prefix("estimate.") {
        return among(&ESTIMATE_FIELDS, field);
    }
    if name == "estimated_cost_usd" {
        return Some(Kind::Money);
    }
    let dimension = Dimension::from_name(name).map(|_| Kind::Text);
    dimension.or_else(|| among(&NOT_YET, name))
}

impl Question {
    /// Sets a known field by its dotted name: `customer`, `tags.team`, `estimate.input_tokens`.
    ///
    /// # Errors
    /// A value that cannot be read, a field that is not supported yet.
    pub fn put(&mut self, name: &str, value: String) -> Result<(), ApiError> {
        if let Some(field) = name.strip_prefix("estimate.") {
            return self.estimate.get_or_insert_default().put(field, value);
        }
        if name == "estimated_cost_usd" {
            self.estimated_cost_usd = Some(value);
        } else if let Some(dimension) = Dimension::from_name(name) {
            self.values.insert(dimension, value);
        } else if !matches!(&*value, "" | "0" | "false") {
            let message = format!("{name} is not supported yet; leave it out");
            return Err(ApiError::bad_request(message));
        }
        Ok(())
    }

    /// Who asks, with the default workspace where none is named.
    fn attribution<'a>(&'a self, default_workspace: &'a str) -> Attribution<'a> {
        let tags = self.values.iter().filter_map(|(dimension, value)| {
            let name = dimension.fixed().err()?;
            Some((name.into(), value.as_str().into()))
        });
        let mut who = Attribution::of(tags.collect(), |dimension| {
            let value = self.values.get(&dimension.into());
            value.map_or("", String::as_str).into()
        });
        if who.workspace.is_empty() {
            who.workspace = default_workspace.into();
        }
        who.sanitized()
    }

    /// The question for the guard, and what its sender should know about it.
    ///
    /// # Errors
    /// 400 for what cannot be answered, and for every fault where the checker is strict.
    pub(super) fn to_check<'a>(
        &'a self,
        checker: &Checker<'a>,
        now: UnixMillis,
    ) -> Result<(CheckRequest<'a>, Vec<Warning>), ApiError> {
        let mut warnings = self.faults(checker);
        faults::count(&warnings, checker.endpoint);
        if checker.strict && !warnings.is_empty() {
            return Err(faults::refused(&warnings));
        }
        let attribution = self.attribution(checker.default_workspace);
        let mut estimate = Spend {
            calls: 1,
            ..Spend::default()
        };
        if self.estimate.is_some() && self.estimated_cost_usd.is_some() {
            let message = "give estimated_cost_usd or estimate, not both";
            return Err(ApiError::bad_request(message));
        }
        if let Some(announced) = &self.estimate {
            let (spend, unpriced) = announced.spend(&attribution, checker.prices, now)?;
            estimate = spend;
            warnings.extend(unpriced);
        }
        if let Some(text) = &self.estimated_cost_usd {
            estimate.cost = cost(text)?;
        }
        let request = CheckRequest {
            attribution,
            estimate,
        };
        Ok((request, warnings))
    }

    /// Whether anything is asked about: a dimension has a value.
    pub(super) fn names_a_dimension(&self) -> bool {
        self.values.values().any(|value| !value.is_empty())
    }
}

/// What a call costs by its caller's word.
fn cost(text: &str) -> Result<Nanos, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| {
        ApiError::bad_request(format!("estimated_cost_usd: {error}"))
    };
    let parsed = Nanos::parse_usd(text).map_err(|error| wrong(&error))?;
    if parsed.amount < Nanos::ZERO {
        return Err(wrong(&"it is negative"));
    }
    Ok(parsed.amount)
}

impl From<ApiError> for axum::response::Response {
    fn from(error: ApiError) -> Self {
        error.response(StatusCode::BAD_REQUEST)
    }
}
