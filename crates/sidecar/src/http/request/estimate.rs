//! What the call is going to be.

use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Attribution, UnixMillis};
use spendfuse_guard::Warning;
use spendfuse_pricing::longest_answer;

use super::super::ApiError;
use crate::prices::{Announced, Prices, is_unpriced};
use crate::reservations::USUAL_TOKENS;

/// A count beyond this is a mistake; it also keeps sums free of overflow.
const MAX_TOKENS: u64 = 1_000_000_000;

/// By what an announced call is priced.
pub(super) struct Pricing<'a> {
    pub(super) who: &'a Attribution<'a>,
    pub(super) prices: &'a Prices,
    pub(super) now: UnixMillis,
}

/// Model and tokens of an announced call.
#[derive(Clone, Debug, Default)]
pub(super) struct Estimate {
    model: Option<String>,
    provider: Option<String>,
    input_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
}

impl Estimate {
    pub(super) fn put(&mut self, field: &str, value: String) -> Result<(), ApiError> {
        let count = |value: &str| {
            let message = format!("estimate.{field} is not a whole number");
            let parsed = value.parse().map(Some);
            parsed.map_err(|_| ApiError::bad_request(message))
        };
        match field {
            "model" => self.model = Some(value),
            "provider" => self.provider = Some(value),
            "input_tokens" => self.input_tokens = count(&value)?,
            "max_output_tokens" => self.max_output_tokens = count(&value)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether it says how long the answer can be.
    pub(super) fn is_complete(&self) -> bool {
        self.max_output_tokens.is_some()
    }

    /// What the call costs as it is announced.
    pub(super) fn spend(&self, by: &Pricing<'_>) -> Result<(Spend, Option<Warning>), ApiError> {
        let model = self.model(by);
        if model.is_empty() {
            return Err(ApiError::bad_request("estimate needs a model"));
        }
        let input_tokens = self.input_tokens.unwrap_or_default();
        let output_tokens = self.max_output_tokens.unwrap_or_default();
        if input_tokens > MAX_TOKENS || output_tokens > MAX_TOKENS {
            let message = format!("estimate has more than {MAX_TOKENS} tokens");
            return Err(ApiError::bad_request(message));
        }
        self.priced(by, input_tokens, output_tokens)
    }

    /// What the call costs with an answer of usual length; `None` where its model is not said.
    pub(super) fn bound(&self, by: &Pricing<'_>) -> Result<Option<Spend>, ApiError> {
        let longest = longest_answer(self.model(by)).unwrap_or(USUAL_TOKENS);
        self.with_answer(by, longest.min(USUAL_TOKENS))
    }

    /// What it costs with the longest answer of its model; `None` where that is not known.
    pub(super) fn most(&self, by: &Pricing<'_>) -> Result<Option<Spend>, ApiError> {
        let longest = longest_answer(self.model(by));
        longest.map_or(Ok(None), |longest| self.with_answer(by, longest))
    }

    fn with_answer(&self, by: &Pricing<'_>, output_tokens: u64) -> Result<Option<Spend>, ApiError> {
        if self.model(by).is_empty() {
            return Ok(None);
        }
        let input_tokens = self.input_tokens.unwrap_or(USUAL_TOKENS).min(MAX_TOKENS);
        let (spend, _) = self.priced(by, input_tokens, output_tokens)?;
        Ok(Some(spend))
    }

    fn model<'s>(&'s self, by: &'s Pricing<'_>) -> &'s str {
        self.model.as_deref().unwrap_or(&by.who.model)
    }

    fn priced(
        &self,
        by: &Pricing<'_>,
        input_tokens: u64,
        output_tokens: u64,
    ) -> Result<(Spend, Option<Warning>), ApiError> {
        let model = self.model(by);
        let announced = Announced {
            provider: self.provider.as_deref().unwrap_or(&by.who.provider),
            account: &by.who.account,
            model,
            input_tokens,
            output_tokens,
        };
        let priced = by.prices.estimate(announced, by.now);
        let priced = priced.map_err(|error| ApiError::bad_request(format!("estimate: {error}")))?;
        let unpriced = is_unpriced(&priced).then(|| {
            let message =
                format!("no price is known for {model}; the estimate uses a ceiling price");
            Warning::new("unknown_model", "info", message)
        });
        let spend = Spend::of_call(priced.parts.total(), input_tokens + output_tokens);
        Ok((spend, unpriced))
    }
}
