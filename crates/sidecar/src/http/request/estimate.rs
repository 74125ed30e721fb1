//! What the call is going to be.

use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Attribution, UnixMillis};
use spendfuse_guard::Warning;

use super::super::ApiError;
use crate::prices::{Announced, Prices, is_unpriced};

/// A count beyond this is a mistake; it also keeps sums free of overflow.
const MAX_TOKENS: u64 = 1_000_000_000;

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

    pub(super) fn spend(
        &self,
        attribution: &Attribution<'_>,
        prices: &Prices,
        now: UnixMillis,
    ) -> Result<(Spend, Option<Warning>), ApiError> {
        let model = self.model.as_deref().unwrap_or(&attribution.model);
        if model.is_empty() {
            return Err(ApiError::bad_request("estimate needs a model"));
        }
        let input_tokens = self.input_tokens.unwrap_or_default();
        let output_tokens = self.max_output_tokens.unwrap_or_default();
        if input_tokens > MAX_TOKENS || output_tokens > MAX_TOKENS {
            let message = format!("estimate has more than {MAX_TOKENS} tokens");
            return Err(ApiError::bad_request(message));
        }
        let announced = Announced {
            provider: self.provider.as_deref().unwrap_or(&attribution.provider),
            account: &attribution.account,
            model,
            input_tokens,
            output_tokens,
        };
        let priced = prices.estimate(announced, now);
        let priced = priced.map_err(|error| ApiError::bad_request(format!("estimate: {error}")))?;
        let unpriced = is_unpriced(&priced).then(|| {
            let message =
                format!("no price is known for {model}; the estimate uses a ceiling price");
            Warning::new("unknown_model", "info", message)
        });
        let spend = Spend {
            cost: priced.parts.total(),
            tokens: input_tokens + output_tokens,
            calls: 1,
        };
        Ok((spend, unpriced))
    }
}
