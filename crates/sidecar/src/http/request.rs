//! A question about a call, from JSON, query or headers.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::scope::{Dimension, Dimensions as _};
use spendfuse_domain::{Attribution, Nanos, UnixMillis};
use spendfuse_guard::{CheckRequest, Warning};

use super::{ApiError, Sidecar};
use crate::prices::{Announced, is_unpriced};

/// The input of `/v1/check`, `/v1/authz` and `/v1/state`. Unknown fields are ignored, null is
/// absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Question {
    workspace: Option<String>,
    customer: Option<String>,
    feature: Option<String>,
    user: Option<String>,
    agent: Option<String>,
    model: Option<String>,
    provider: Option<String>,
    environment: Option<String>,
    account: Option<String>,
    plan: Option<String>,
    session: Option<String>,
    root_session: Option<String>,
    tags: Option<BTreeMap<String, Option<String>>>,
    estimated_cost_usd: Option<String>,
    estimate: Option<Estimate>,
}

/// What the call is going to be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Estimate {
    model: Option<String>,
    provider: Option<String>,
    input_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
}

/// A count beyond this is a mistake; it also keeps sums free of overflow.
const MAX_TOKENS: u64 = 1_000_000_000;

impl Question {
    /// Reads a JSON body.
    pub(super) fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| {
            ApiError::new("bad_request", format!("the body cannot be read: {error}"))
        })
    }

    /// Adds what a query says: `customer=c-42&tags.team=growth&estimate.input_tokens=1200`.
    pub(super) fn add_query(&mut self, query: &[(String, String)]) -> Result<(), ApiError> {
        query
            .iter()
            .try_for_each(|(name, value)| self.add(name, value))
    }

    /// Adds what `x-spendfuse-*` headers say: `x-spendfuse-root-session`, `x-spendfuse-tag-team`.
    pub(super) fn add_headers(&mut self, headers: &HeaderMap) -> Result<(), ApiError> {
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix("x-spendfuse-") else {
                continue;
            };
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
                let message = format!("header x-spendfuse-{name} is not UTF-8");
                ApiError::new("bad_request", message)
            })?;
            let name = match name.strip_prefix("tag-") {
                Some(tag) => format!("tags.{tag}"),
                None => match name.strip_prefix("estimate-") {
                    Some(field) => format!("estimate.{}", field.replace('-', "_")),
                    None => name.replace('-', "_"),
                },
            };
            self.add(&name, value)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let text = || Some(value.to_owned());
        let count = || {
            value
                .parse()
                .map(Some)
                .map_err(|_| ApiError::new("bad_request", format!("{name} is not a whole number")))
        };
        if let Some(tag) = name.strip_prefix("tags.") {
            let tags = self.tags.get_or_insert_default();
            tags.insert(tag.to_owned(), text());
        } else if let Some(field) = name.strip_prefix("estimate.") {
            let estimate = self.estimate.get_or_insert_default();
            match field {
                "model" => estimate.model = text(),
                "provider" => estimate.provider = text(),
                "input_tokens" => estimate.input_tokens = count()?,
                "max_output_tokens" => estimate.max_output_tokens = count()?,
                _ => {}
            }
        } else if let Some(field) = self.field(name) {
            *field = text();
        }
        Ok(())
    }

    fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "workspace" => &mut self.workspace,
            "customer" => &mut self.customer,
            "feature" => &mut self.feature,
            "user" => &mut self.user,
            "agent" => &mut self.agent,
            "model" => &mut self.model,
            "provider" => &mut self.provider,
            "environment" => &mut self.environment,
            "account" => &mut self.account,
            "plan" => &mut self.plan,
            "session" => &mut self.session,
            "root_session" => &mut self.root_session,
            "estimated_cost_usd" => &mut self.estimated_cost_usd,
            _ => return None,
        })
    }

    /// Who asks, with the default workspace where none is named.
    fn attribution<'a>(&'a self, default_workspace: &'a str) -> Attribution<'a> {
        let text = |field: &'a Option<String>| field.as_deref().unwrap_or_default().into();
        let tags = self.tags.iter().flatten();
        let workspace = self.workspace.as_deref().filter(|name| !name.is_empty());
        Attribution {
            workspace: workspace.unwrap_or(default_workspace).into(),
            customer: text(&self.customer),
            feature: text(&self.feature),
            user: text(&self.user),
            agent: text(&self.agent),
            plan: text(&self.plan),
            session: text(&self.session),
            root_session: text(&self.root_session),
            environment: text(&self.environment),
            account: text(&self.account),
            model: text(&self.model),
            provider: text(&self.provider),
            tags: tags
                .map(|(name, value)| (name.as_str().into(), text(value)))
                .collect(),
        }
        .mended()
    }

    /// The question for the guard, and what the caller should know about its estimate.
    pub(super) fn to_check<'a>(
        &'a self,
        sidecar: &'a Sidecar,
        now: UnixMillis,
    ) -> Result<(CheckRequest<'a>, Option<Warning>), ApiError> {
        let attribution = self.attribution(&sidecar.config.default_workspace);
        let mut estimate = Spend {
            calls: 1,
            ..Spend::default()
        };
        let mut warning = None;
        if self.estimate.is_some() && self.estimated_cost_usd.is_some() {
            let message = "give estimated_cost_usd or estimate, not both";
            return Err(ApiError::new("bad_request", message));
        }
        if let Some(announced) = &self.estimate {
            let (spend, unpriced) = announced.spend(&attribution, sidecar, now)?;
            estimate = spend;
            warning = unpriced;
        }
        if let Some(text) = &self.estimated_cost_usd {
            let parsed = Nanos::parse_usd(text).map_err(|error| {
                ApiError::new("bad_request", format!("estimated_cost_usd: {error}"))
            })?;
            if parsed.amount < Nanos::ZERO {
                return Err(ApiError::new(
                    "bad_request",
                    "estimated_cost_usd is negative",
                ));
            }
            estimate.cost = parsed.amount;
        }
        let request = CheckRequest {
            attribution,
            estimate,
        };
        Ok((request, warning))
    }

    /// Whether anything is asked about: a dimension has a value.
    pub(super) fn names_a_dimension(&self) -> bool {
        let attribution = self.attribution("");
        let fixed = Dimension::FIXED.iter();
        let named = |dimension: &Dimension| !attribution.value(dimension).is_empty();
        fixed.clone().any(named) || !attribution.tags.is_empty()
    }
}

impl Estimate {
    fn spend(
        &self,
        attribution: &Attribution<'_>,
        sidecar: &Sidecar,
        now: UnixMillis,
    ) -> Result<(Spend, Option<Warning>), ApiError> {
        let model = self.model.as_deref().unwrap_or(&attribution.model);
        if model.is_empty() {
            return Err(ApiError::new("bad_request", "estimate needs a model"));
        }
        let input_tokens = self.input_tokens.unwrap_or_default();
        let output_tokens = self.max_output_tokens.unwrap_or_default();
        if input_tokens > MAX_TOKENS || output_tokens > MAX_TOKENS {
            let message = format!("estimate has more than {MAX_TOKENS} tokens");
            return Err(ApiError::new("bad_request", message));
        }
        let announced = Announced {
            provider: self.provider.as_deref().unwrap_or(&attribution.provider),
            account: &attribution.account,
            model,
            input_tokens,
            output_tokens,
        };
        let priced = sidecar
            .prices
            .estimate(announced, now)
            .map_err(|error| ApiError::new("bad_request", format!("estimate: {error}")))?;
        let unpriced = is_unpriced(&priced).then(|| Warning {
            kind: "unknown_model",
            severity: "info",
            message: format!("no price is known for {model}; the estimate uses a ceiling price"),
            wasted_usd: None,
            budget: None,
        });
        let spend = Spend {
            cost: priced.parts.total(),
            tokens: input_tokens + output_tokens,
            calls: 1,
        };
        Ok((spend, unpriced))
    }
}

impl From<ApiError> for axum::response::Response {
    fn from(error: ApiError) -> Self {
        error.response(StatusCode::BAD_REQUEST)
    }
}
