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
use std::time::Duration;

use spendfuse_domain::budget::{Spend, session_limit};
use spendfuse_domain::scope::Dimension;
use spendfuse_domain::{Attribution, Nanos, UnixMillis};
use spendfuse_guard::{CheckRequest, Expected, Warning};

use super::{ApiError, Checker};
use crate::keys::{Caller, Right};
use crate::reservations::{LONGEST_TIMEOUT_SECONDS, USUAL_TIMEOUT};
use estimate::{Estimate, Pricing};
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
    session_limit: Option<Nanos>,
    estimate: Option<Estimate>,
    reserve: bool,
    call_timeout: Option<Duration>,
    unknown: Unknown,
}

/// A question as the guard takes it.
pub(super) struct Asking<'a> {
    pub(super) request: CheckRequest<'a>,
    /// What is known of the call where it wants a hold.
    pub(super) expected: Expected,
    /// What its sender should know about it.
    pub(super) warnings: Vec<Warning>,
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
/// A field that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Who(Dimension),
    Cost,
    Estimate(&'static str, Kind),
    Reserve,
    CallTimeout,
    SessionLimit,
}

impl Field {
    /// The field with this dotted name: `customer`, `tags.team`, `estimate.input_tokens`.
    fn named(name: &str) -> Option<Self> {
        if let Some(field) = name.strip_prefix("estimate.") {
            let mut known = ESTIMATE_FIELDS.into_iter();
            let found = known.find(|(known, _)| *known == field)?;
            return Some(Self::Estimate(found.0, found.1));
        }
        match name {
            "estimated_cost_usd" => Some(Self::Cost),
            "reserve" => Some(Self::Reserve),
            "call_timeout_s" => Some(Self::CallTimeout),
            "session_limit_usd" => Some(Self::SessionLimit),
            name => Dimension::from_name(name).map(Self::Who),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Who(_) => Kind::Text,
            Self::Cost | Self::SessionLimit => Kind::Money,
            Self::Estimate(_, kind) => *kind,
            Self::Reserve => Kind::Flag,
            Self::CallTimeout => Kind::Count,
        }
    }
}

impl Question {
    /// Sets the field with this dotted name: `customer`, `tags.team`, `estimate.input_tokens`.
    ///
    /// # Errors
    /// A value that cannot be read, a field that is unknown.
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
            Field::Cost => self.estimated_cost = Some(money("estimated_cost_usd", &value)?),
            Field::Estimate(name, _) => self.estimate.get_or_insert_default().put(name, value)?,
            Field::Reserve => self.reserve = flag("reserve", &value)?,
            Field::CallTimeout => self.call_timeout = Some(call_timeout(&value)?),
            Field::SessionLimit if value.is_empty() => {}
            Field::SessionLimit => {
                let limit = money("session_limit_usd", &value)?;
                let too_much =
                    || ApiError::bad_request("session_limit_usd: no session costs so much");
                self.session_limit = Some(session_limit(limit).ok_or_else(too_much)?);
            }
        }
        Ok(())
    }

    /// Puts what the caller cannot choose in the place of what is asked.
    ///
    /// # Errors
    /// A session's limit by a key that gives none: what is ignored would not be limited.
    pub(in crate::http) fn impose(&mut self, caller: &Caller) -> Result<(), ApiError> {
        if self.session_limit.is_some() && !caller.may(Right::Limits) {
            let message = "session_limit_usd: this key has not the right `limits`; leave it out";
            return Err(ApiError::bad_request(message));
        }
        for (name, value) in caller.imposed() {
            self.put(name, value.to_owned())?;
        }
        Ok(())
    }

    /// For how long what the call may cost is to be held, where that is asked for.
    pub(super) fn wanted_hold(&self) -> Option<Duration> {
        let timeout = self.call_timeout.unwrap_or(USUAL_TIMEOUT);
        self.reserve.then_some(timeout)
    }

    /// The question for the guard, with the default workspace where none is named.
    ///
    /// # Errors
    /// 400 for what cannot be answered, and for every fault where the checker is strict.
    pub(super) fn into_check<'a>(
        self,
        checker: &'a Checker,
        endpoint: &'static str,
        now: UnixMillis,
    ) -> Result<Asking<'a>, ApiError> {
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
        let pricing = Pricing {
            who: &attribution,
            prices: &checker.prices,
            now,
        };
        if let Some(announced) = &self.estimate {
            let (spend, unpriced) = announced.spend(&pricing)?;
            estimate = spend;
            warnings.extend(unpriced);
        }
        if let Some(cost) = self.estimated_cost {
            estimate.cost = cost;
        }
        let is_given = self.estimate.is_some() || self.estimated_cost.is_some();
        let mut expected = Expected {
            given: is_given.then_some(estimate),
            ..Expected::default()
        };
        if self.reserve {
            let announced = self.estimate.unwrap_or_default();
            if self.estimated_cost.is_none() && !announced.is_complete() {
                expected.bound = announced.bound(&pricing)?;
            }
            if checker.guard.holds_longest_answers() {
                expected.most = announced.most(&pricing)?;
            }
        }
        let request = CheckRequest {
            attribution,
            estimate,
            session_limit: self.session_limit,
        };
        Ok(Asking {
            request,
            expected,
            warnings,
        })
    }

    /// Whether anything is asked about: a dimension has a value.
    pub(super) fn names_a_dimension(&self) -> bool {
        let has_text = |text: &&Cow<'_, str>| !text.is_empty();
        self.who.texts().iter().any(has_text) || self.tags.values().any(|value| !value.is_empty())
    }
}

/// Dollars by the caller's word.
fn money(name: &str, text: &str) -> Result<Nanos, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| ApiError::bad_request(format!("{name}: {error}"));
    let parsed = Nanos::parse_usd(text).map_err(|error| wrong(&error))?;
    if parsed.amount < Nanos::ZERO {
        return Err(wrong(&"it is negative"));
    }
    Ok(parsed.amount)
}

/// Yes or no, as queries and headers have it.
fn flag(name: &str, text: &str) -> Result<bool, ApiError> {
    match text {
        "1" | "true" => Ok(true),
        "" | "0" | "false" => Ok(false),
        _ => Err(ApiError::bad_request(format!("{name}: write 1 or 0"))),
    }
}

/// How long a call may take, in whole seconds.
pub(super) fn call_timeout(text: &str) -> Result<Duration, ApiError> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (1..=LONGEST_TIMEOUT_SECONDS).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let message = format!("call_timeout_s: write 1 to {LONGEST_TIMEOUT_SECONDS} seconds; a reservation can be extended");
        ApiError::bad_request(message)
    })
}

impl From<ApiError> for axum::response::Response {
    fn from(error: ApiError) -> Self {
        let status = error.status();
        error.response(status)
    }
}
