//! `context_bloat` and `token_acceleration`: a step against the step before.

use minicbor::{Decode, Encode};
use spendfuse_domain::finding::{ContextBloat, RateBasis, TokenAcceleration};
use spendfuse_domain::{Nanos, Severity, UnixMillis};

use super::{Measurement, Observation, StepFacts};
use crate::codec;

/// The last step that had tokens.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PreviousStep {
    #[n(0)]
    #[cbor(with = "codec::millis")]
    pub(super) time: UnixMillis,
    #[n(1)]
    context: u64,
    #[n(2)]
    tokens: u64,
    /// Milliseconds from the step before it, at least 1000; 0 where it was the first.
    #[n(3)]
    gap: u64,
}

impl PreviousStep {
    /// What `step` leaves for the next one.
    pub fn of(step: &StepFacts<'_>, before: Option<&Self>) -> Self {
        Self {
            time: step.time,
            context: step.context,
            tokens: step.tokens,
            gap: before.map_or(0, |before| gap_millis(before, step)),
        }
    }
}

/// Gaps of a second or less (and clocks going back) count as one second.
fn gap_millis(before: &PreviousStep, step: &StepFacts<'_>) -> u64 {
    step.time.since(before.time).max(1000) as u64
}

/// Consecutive steps that met a condition make it more severe.
fn escalated(severity: Severity, in_a_row: u32) -> Severity {
    severity.max(match in_a_row {
        0 | 1 => Severity::Info,
        2 => Severity::Warning,
        _ => Severity::Critical,
    })
}

/// `context_bloat`: context(n) > (1 + growth) × context(n−1). `in_a_row` counts the steps before
/// that met it.
pub fn context_bloat(
    step: &StepFacts<'_>,
    before: Option<&PreviousStep>,
    in_a_row: u32,
    parameters: &ContextBloat,
) -> Observation {
    let Some(before) = before.filter(|before| before.context > 0) else {
        return Observation::Quiet;
    };
    let context = i128::from(step.context);
    let previous = i128::from(before.context);
    let allowed = previous * (10_000 + i128::from(parameters.growth_basis_points));
    let excess = context * 10_000 - allowed;
    if excess <= 0 || step.context < parameters.min_tokens {
        return Observation::Quiet;
    }
    let severity = if context >= 4 * previous {
        Severity::Critical
    } else if context >= 2 * previous {
        Severity::Warning
    } else {
        Severity::Info
    };
    Observation::Fires(Measurement {
        measured: (step.context as f64 / before.context as f64 - 1.0) * 100.0,
        threshold: f64::from(parameters.growth_basis_points) / 100.0,
        severity: escalated(severity, in_a_row + 1),
        wasted: Nanos::new(excess * step.input_cost.get() / (context * 10_000)),
    })
}

/// `token_acceleration`: rate(n) ≥ factor × rate(n−1).
pub fn token_acceleration(
    step: &StepFacts<'_>,
    before: Option<&PreviousStep>,
    in_a_row: u32,
    parameters: &TokenAcceleration,
) -> Observation {
    let Some(before) = before.filter(|before| before.tokens > 0) else {
        return Observation::Quiet;
    };
    // rate / previous rate = ahead / behind, without dividing.
    let (ahead, behind) = match parameters.basis {
        RateBasis::Step => (i128::from(step.tokens), i128::from(before.tokens)),
        RateBasis::Second if before.gap == 0 => return Observation::Quiet,
        RateBasis::Second => (
            i128::from(step.tokens) * i128::from(before.gap),
            i128::from(before.tokens) * i128::from(gap_millis(before, step)),
        ),
    };
    let factor = i128::from(parameters.factor_hundredths);
    let reaches = |times: i128| ahead * 100 >= times * factor * behind;
    if !reaches(1) || step.tokens < parameters.min_tokens {
        return Observation::Quiet;
    }
    let severity = if reaches(4) {
        Severity::Critical
    } else if reaches(2) {
        Severity::Warning
    } else {
        Severity::Info
    };
    Observation::Fires(Measurement {
        measured: ahead as f64 / behind as f64,
        threshold: f64::from(parameters.factor_hundredths) / 100.0,
        severity: escalated(severity, in_a_row + 1),
        wasted: Nanos::new(step.cost.get() * (ahead - behind) / ahead),
    })
}
