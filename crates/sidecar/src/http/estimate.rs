//! `POST /v1/estimate`: how many tokens a call may have and what it may cost, before it is made.
//! Looked at in memory, and nothing of it is kept.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spendfuse_domain::Nanos;
use spendfuse_domain::row::PriceBasis;
use spendfuse_pricing::longest_answer;

use super::{ApiError, Shared, Sidecar, json};
use crate::prices::Announced;
use crate::reservations::USUAL_TOKENS;

/// Far above any model's context; keeps sums free of overflow.
const MAX_TOKENS: u64 = 1_000_000_000;

/// What is asked.
#[derive(Deserialize)]
struct Question<'a> {
    model: String,
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    account: Option<String>,
    /// The provider's own request.
    #[serde(borrow, default)]
    request: Option<&'a RawValue>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    max_output_tokens: Option<u64>,
}

/// What a provider's request says about its answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Limits {
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    best_of: Option<u64>,
    #[serde(alias = "generation_config")]
    #[serde(rename = "generationConfig")]
    generation: Option<Generation>,
    #[serde(rename = "inferenceConfig")]
    inference: Option<Inference>,
}

/// Gemini's part of it.
#[derive(Deserialize)]
struct Generation {
    #[serde(rename = "maxOutputTokens", alias = "max_output_tokens")]
    max_output_tokens: Option<u64>,
    #[serde(rename = "candidateCount", alias = "candidate_count")]
    candidate_count: Option<u64>,
}

/// Bedrock's part of it.
#[derive(Deserialize)]
struct Inference {
    #[serde(rename = "maxTokens")]
    max_tokens: Option<u64>,
}

/// The answer (`schemas/estimate-response`).
#[derive(Debug, Serialize)]
struct Estimate {
    input_tokens: u64,
    counted: &'static str,
    output_tokens: u64,
    cost_usd: Nanos,
    priced: &'static str,
}

pub(super) async fn post_estimate(State(sidecar): Shared, body: Bytes) -> Response {
    match estimate(&sidecar, &body) {
        Ok(estimate) => json(StatusCode::OK, &estimate),
        Err(error) => error.into(),
    }
}

fn estimate(sidecar: &Sidecar, body: &[u8]) -> Result<Estimate, ApiError> {
    let question: Question<'_> = serde_json::from_slice(body).map_err(|error| {
        let message = format!(
            "the body cannot be read ({error}); write {{\"model\": …, \"text\": …}}, or request, or input_tokens"
        );
        ApiError::bad_request(message)
    })?;
    if question.model.is_empty() {
        return Err(ApiError::bad_request("estimate needs a model"));
    }
    let (input_tokens, counted) = question.input()?;
    let output_tokens = question.output()?;
    if input_tokens > MAX_TOKENS || output_tokens > MAX_TOKENS {
        let message = format!("estimate has more than {MAX_TOKENS} tokens");
        return Err(ApiError::bad_request(message));
    }
    let announced = Announced {
        provider: question.provider.as_deref().unwrap_or_default(),
        account: question.account.as_deref().unwrap_or_default(),
        model: &question.model,
        input_tokens,
        output_tokens,
    };
    let now = sidecar.checker.clock.now().wall;
    let priced = sidecar.checker.prices.estimate(announced, now);
    let priced = priced.map_err(|error| ApiError::bad_request(format!("estimate: {error}")))?;
    Ok(Estimate {
        input_tokens,
        counted,
        output_tokens,
        cost_usd: priced.parts.total(),
        priced: PriceBasis::name(priced.basis),
    })
}

impl Question<'_> {
    /// Tokens of the input. No token of a text is shorter than a byte, and a request's own JSON is
    /// longer than what a provider puts around its messages.
    fn input(&self) -> Result<(u64, &'static str), ApiError> {
        match (self.request, &self.text, self.input_tokens) {
            (Some(request), None, None) => Ok((request.get().len() as u64, "bound")),
            (None, Some(text), None) => Ok((text.len() as u64, "bound")),
            (None, None, Some(tokens)) => Ok((tokens, "exact")),
            _ => {
                let message = "give one of request, text and input_tokens";
                Err(ApiError::bad_request(message))
            }
        }
    }

    /// Tokens of the answer: as the question or its request limits them, else the usual length.
    fn output(&self) -> Result<u64, ApiError> {
        let limits = match self.request {
            Some(request) => serde_json::from_str(request.get()).map_err(|error| {
                ApiError::bad_request(format!("request cannot be read ({error})"))
            })?,
            None => Limits::default(),
        };
        let of_gemini = limits.generation.as_ref();
        let generation = of_gemini.and_then(|part| part.max_output_tokens);
        let candidates = of_gemini.and_then(|part| part.candidate_count);
        let inference = limits.inference.and_then(|part| part.max_tokens);
        let said = self
            .max_output_tokens
            .or(limits.max_completion_tokens)
            .or(limits.max_output_tokens)
            .or(limits.max_tokens)
            .or(generation)
            .or(inference);
        let usual = || {
            let longest = longest_answer(&self.model);
            longest.unwrap_or(USUAL_TOKENS).min(USUAL_TOKENS)
        };
        // Each answer is charged, also those of which the best ones are chosen.
        let told = [limits.n, limits.best_of, candidates].into_iter().flatten();
        let answers = told.max().unwrap_or(1).max(1);
        Ok(said.unwrap_or_else(usual).saturating_mul(answers))
    }
}
