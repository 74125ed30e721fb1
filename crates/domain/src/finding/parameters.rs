//! What each detector measures a step against.
//!
//! Ratios are integers in percent (`growth_pct: 20`, `factor: 2` = 200) so that state machines and
//! the reference agree to the last bit.

use serde::{Deserialize, Serialize};

use super::Detector;

/// The parameters of a rule, by its detector. The defaults are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Parameters {
    RetryLoop(RetryLoop),
    ContextBloat(ContextBloat),
    TokenAcceleration(TokenAcceleration),
    ToolAmplification(ToolAmplification),
    /// The budget is all it needs.
    BudgetExceeded,
}

/// Of `retry_loop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLoop {
    /// Consecutive equal prompts.
    pub repeats: u32,
    /// Tool rule: equal tool calls …
    pub tool_repeats: u32,
    /// … among this many last steps.
    pub tool_within: u32,
}

/// Of `context_bloat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextBloat {
    /// Growth that is too much, hundredths of a percent (20 % = 2000).
    pub growth_basis_points: u32,
    /// Steps with fewer tokens never fire.
    pub min_tokens: u64,
}

/// Of `token_acceleration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenAcceleration {
    /// In hundredths (2× = 200).
    pub factor_hundredths: u32,
    /// Steps with fewer tokens never fire.
    pub min_tokens: u64,
    /// Per step or per second.
    pub basis: RateBasis,
}

/// Of `tool_amplification`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolAmplification {
    /// In hundredths (5× = 500).
    pub factor_hundredths: u32,
    /// How many chain steps back the smallest is looked for.
    pub within: u32,
    /// Steps with fewer tokens never fire.
    pub min_tokens: u64,
}

/// How `token_acceleration` measures a step's rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateBasis {
    /// Tokens of the step.
    #[default]
    Step,
    /// Tokens per second since the step before; gaps of at most a second count as one.
    Second,
}

impl Parameters {
    /// The defaults of `detector`.
    pub fn default_for(detector: Detector) -> Self {
        match detector {
            Detector::RetryLoop => Self::RetryLoop(RetryLoop::default()),
            Detector::ContextBloat => Self::ContextBloat(ContextBloat::default()),
            Detector::TokenAcceleration => Self::TokenAcceleration(TokenAcceleration::default()),
            Detector::ToolAmplification => Self::ToolAmplification(ToolAmplification::default()),
            Detector::BudgetExceeded => Self::BudgetExceeded,
        }
    }

    /// Whose they are.
    pub fn detector(&self) -> Detector {
        match self {
            Self::RetryLoop(_) => Detector::RetryLoop,
            Self::ContextBloat(_) => Detector::ContextBloat,
            Self::TokenAcceleration(_) => Detector::TokenAcceleration,
            Self::ToolAmplification(_) => Detector::ToolAmplification,
            Self::BudgetExceeded => Detector::BudgetExceeded,
        }
    }
}

impl Default for RetryLoop {
    fn default() -> Self {
        Self {
            repeats: 3,
            tool_repeats: 5,
            tool_within: 20,
        }
    }
}

impl Default for ContextBloat {
    fn default() -> Self {
        Self {
            growth_basis_points: 2000,
            min_tokens: 1000,
        }
    }
}

impl Default for TokenAcceleration {
    fn default() -> Self {
        Self {
            factor_hundredths: 200,
            min_tokens: 1000,
            basis: RateBasis::Step,
        }
    }
}

impl Default for ToolAmplification {
    fn default() -> Self {
        Self {
            factor_hundredths: 500,
            within: 5,
            min_tokens: 1000,
        }
    }
}
