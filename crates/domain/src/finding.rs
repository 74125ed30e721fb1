//! Findings: what the detectors report, and the rules that configure them.

mod rules;

use serde::{Deserialize, Serialize};

use crate::money::Nanos;
use crate::scope::{Dimension, Filter};
use crate::time::UnixMillis;
use crate::verdict::EventRef;

pub use rules::DetectorRules;

/// One of the five anomaly detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Detector {
    BudgetExceeded,
    RetryLoop,
    ContextBloat,
    TokenAcceleration,
    ToolAmplification,
}

impl Detector {
    /// Every detector.
    pub const ALL: [Self; 5] = [
        Self::BudgetExceeded,
        Self::RetryLoop,
        Self::ContextBloat,
        Self::TokenAcceleration,
        Self::ToolAmplification,
    ];

    /// The name in JSON, tables and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::BudgetExceeded => "budget_exceeded",
            Self::RetryLoop => "retry_loop",
            Self::ContextBloat => "context_bloat",
            Self::TokenAcceleration => "token_acceleration",
            Self::ToolAmplification => "tool_amplification",
        }
    }

    /// The detector with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|detector| detector.name() == name)
    }
}

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Severity {
    #[default]
    Info = 0,
    Warning = 1,
    Critical = 2,
}

impl Severity {
    /// The severity with this number in records; the highest for later ones.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Info,
            1 => Self::Warning,
            _ => Self::Critical,
        }
    }

    /// The name in JSON, tables and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Whether an episode goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FindingState {
    Open,
    Closed,
}

/// The value of topic `spendfuse.findings`; the key is `{scope}|{detector}|{rule or budget}|{agent}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Finding {
    pub v: u32,
    pub detector: Detector,
    pub scope: String,
    pub agent: String,
    /// The model whose lane it is; empty for `budget_exceeded`.
    pub model: String,
    pub customer: String,
    pub feature: String,
    /// Id of the detector entry or budget that it was judged by; `default` where none is configured.
    pub rule: String,
    pub state: FindingState,
    pub severity: Severity,
    pub opened_at: UnixMillis,
    pub last_at: UnixMillis,
    /// What was measured, in the detector's own unit (repeats, growth in percent, factor, USD).
    pub measured: f64,
    /// The parameter that it was measured against, in the same unit.
    pub threshold: f64,
    pub wasted_usd: Nanos,
    /// At most 20 events.
    pub evidence: Vec<EventRef>,
    pub message: String,
}

/// The most events that a finding names.
pub const MAX_EVIDENCE: usize = 20;

/// What a detector does beyond reporting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorAction {
    /// Publish the finding only.
    Observe,
    /// Also raise an alert, from severity [`DetectorRule::at`].
    #[default]
    Warn,
    /// Also refuse the session's further calls for `cooldown`.
    BlockSession,
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

/// One entry of `detectors:`; unset parameters have the contract's defaults.
///
/// Ratios are integers in percent (`growth_pct: 20`, `factor: 2` = 200) so that state machines and
/// the reference agree to the last bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectorRule {
    /// Its name.
    pub id: String,
    /// Which detector.
    pub detector: Detector,
    /// Its place in the budgets file: among equally specific rules the lowest wins.
    pub order: u32,
    /// For whom; only `workspace`, `feature` and `agent` may be named.
    pub filter: Filter,
    /// What happens beyond the report.
    pub action: DetectorAction,
    /// Severity from which alerts and `block_session` act.
    pub at: Severity,
    /// How long a session block lasts, milliseconds.
    pub cooldown_millis: i64,
    /// `retry_loop`: consecutive equal prompts.
    pub repeats: u32,
    /// `retry_loop`, tool rule: equal tool calls …
    pub tool_repeats: u32,
    /// … among this many last steps.
    pub tool_within: u32,
    /// `context_bloat`: growth that is too much, hundredths of a percent (20 % = 2000).
    pub growth_basis_points: u32,
    /// `token_acceleration`, `tool_amplification`: factor in hundredths (2× = 200).
    pub factor_hundredths: u32,
    /// `tool_amplification`: how many chain steps back the smallest is looked for.
    pub within: u32,
    /// Steps with fewer tokens never fire.
    pub min_tokens: u64,
    /// `token_acceleration`: per step or per second.
    pub basis: RateBasis,
}

impl DetectorRule {
    /// The dimensions that `where` may name: the ones that every step of a lane has in common, and
    /// the feature.
    pub const DIMENSIONS: [Dimension; 3] =
        [Dimension::Workspace, Dimension::Feature, Dimension::Agent];
    /// The order of a default rule: after every configured one.
    pub const DEFAULT_ORDER: u32 = u32::MAX;

    /// The rule that holds where nothing is configured, with the contract's defaults.
    pub fn default_for(detector: Detector) -> Self {
        Self {
            id: "default".to_owned(),
            detector,
            order: Self::DEFAULT_ORDER,
            filter: Filter::default(),
            action: DetectorAction::Warn,
            at: Severity::Warning,
            cooldown_millis: 15 * 60 * 1000,
            repeats: 3,
            tool_repeats: 5,
            tool_within: 20,
            growth_basis_points: 2000,
            factor_hundredths: if detector == Detector::ToolAmplification {
                500
            } else {
                200
            },
            within: 5,
            min_tokens: 1000,
            basis: RateBasis::Step,
        }
    }
}
