//! A question about a call, from JSON, query or headers.
//!
//! [`json`], [`query`] and [`headers`] each read one form; all of them end in [`Question::set`]. What a question lacks or has too much is told by [`faults`].

mod estimate;
mod faults;
mod headers;
mod json;
mod misplaced;
mod query;

use std::borrow::Cow;
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
pub(super) use misplaced::Misplaced;
pub(super) use query::Author;

/// The input of `/v1/check`, `/v1/authz` and `/v1/state`. Null is absent.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Without tags.
    who: Attribution<'static>,
    /// A body of 64 KiB holds thousands, and of those with one name the last counts.
    tags: BTreeMap<String, String>,
    estimated_cost: Option<Nanos>,
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

const ESTIMATE_FIELDS: [(&str, Kind); 4] = [
    ("model", Kind::Text),
    ("provider", Kind::Text),
    ("input_tokens", Kind::Count),
    ("max_output_tokens", Kind::Count),
];
/// Fields that limit spend in versions to come. Ignored, they would let through what their sender
/// believes to be limited.
const NOT_YET: [(&str, Kind); 2] = [("reserve", Kind::Flag), ("session_limit_usd", Kind::Money)];

/// A field that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Who(Dimension),
    Cost,
    Estimate(&'static str, Kind),
    NotYet(&'static str, Kind),
}

impl Field {
    /// The field with this dotted name: `customer`, `tags.team`, `estimate.input_tokens`.
    fn named(name: &str) -> Option<Self> {
        let among = |fields: &'static [(&'static str, Kind)], name: &str| {
            let found = fields.iter().find(|(known, _)| *known == name);
            found.copied()
        };
        if let Some(field) = name.strip_prefix("estimate.") {
            return among(&ESTIMATE_FIELDS, field).map(|(name, kind)| Self::Estimate(name, kind));
        }
        if name == "estimated_cost_usd" {
            return Some(Self::Cost);
        }
        let who = Dimension::from_name(name).map(Self::Who);
        who.or_else(|| among(&NOT_YET, name).map(|(name, kind)| Self::NotYet(name, kind)))
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Who(_) => Kind::Text,
            Self::Cost => Kind::Money,
            Self::Estimate(_, kind) | Self::NotYet(_, kind) => *kind,
        }
    }
}

impl Question {
    /// Sets the field with this dotted name: `customer`, `tags.team`, `estimate.input_tokens`.
    ///
    /// # Errors
    /// A value that cannot be read, a field that is unknown or not supported yet.
    pub fn put(&mut self, name: &str, value: String) -> Result<(), ApiError> {
        let unknown = || ApiError::bad_request(format!("{} is unknown", shown(name)));
        self.set(Field::named(name).ok_or_else(unknown)?, value)
    }

    fn set(&mut self, field: Field, value: String) -> Result<(), ApiError> {
        match field {
            Field::Who(Dimension::Tag(name)) => {
                self.tags.insert(name, value);
            }
            Field::Who(dimension) => {
                if let Ok(fixed) = dimension.fixed() {
                    *self.who.text_mut(fixed) = value.into();
                }
            }
            Field::Cost => self.estimated_cost = Some(cost(&value)?),
            Field::Estimate(name, _) => self.estimate.get_or_insert_default().put(name, value)?,
            Field::NotYet(..) if matches!(&*value, "" | "0" | "false") => {}
            Field::NotYet(name, _) => {
                let message = format!("{name} is not supported yet; leave it out");
                return Err(ApiError::bad_request(message));
            }
        }
        Ok(())
    }

    /// The question for the guard, with the default workspace where none is named, and what its
    /// sender should know about it.
    ///
    /// # Errors
    /// 400 for what cannot be answered, and for every fault where the checker is strict.
    pub(super) fn into_check<'a>(
        self,
        checker: &'a Checker,
        endpoint: &'static str,
        now: UnixMillis,
    ) -> Result<(CheckRequest<'a>, Vec<Warning>), ApiError> {
        let mut warnings = self.faults(checker);
        faults::count(&warnings, endpoint);
        if checker.strict && !warnings.is_empty() {
            return Err(faults::refused(&warnings));
        }
        let mut attribution: Attribution<'a> = self.who;
        let tags = self.tags.into_iter();
        attribution.tags = tags
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        if attribution.workspace.is_empty() {
            attribution.workspace = checker.default_workspace.as_str().into();
        }
        let attribution = attribution.sanitized();
        let mut estimate = Spend {
            calls: 1,
            ..Spend::default()
        };
        if self.estimate.is_some() && self.estimated_cost.is_some() {
            let message = "give estimated_cost_usd or estimate, not both";
            return Err(ApiError::bad_request(message));
        }
        if let Some(announced) = &self.estimate {
            let (spend, unpriced) = announced.spend(&attribution, &checker.prices, now)?;
            estimate = spend;
            warnings.extend(unpriced);
        }
        if let Some(cost) = self.estimated_cost {
            estimate.cost = cost;
        }
        let request = CheckRequest {
            attribution,
            estimate,
        };
        Ok((request, warnings))
    }

    /// Whether anything is asked about: a dimension has a value.
    pub(super) fn names_a_dimension(&self) -> bool {
        let has_text = |text: &&Cow<'_, str>| !text.is_empty();
        self.who.texts().iter().any(has_text) || self.tags.values().any(|value| !value.is_empty())
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
