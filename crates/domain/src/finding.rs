//! Findings: what the detectors report, and the rules that configure them.

mod parameters;
mod rules;

use serde::{Deserialize, Serialize};

use crate::money::Nanos;
use crate::scope::{Dimension, Filter};
use crate::time::UnixMillis;
use crate::verdict::EventRef;

pub use parameters::{
    ContextBloat, Parameters, RateBasis, RetryLoop, TokenAcceleration, ToolAmplification,
};
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

impl DetectorAction {
    /// The name in JSON and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Warn => "warn",
            Self::BlockSession => "block_session",
        }
    }
}

/// One entry of `detectors:`; unset parameters have the contract's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectorRule {
    /// Its name.
    pub id: String,
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
    /// Which detector, and what it measures against.
    pub parameters: Parameters,
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
            order: Self::DEFAULT_ORDER,
            filter: Filter::default(),
            action: DetectorAction::Warn,
            at: Severity::Warning,
            cooldown_millis: 15 * 60 * 1000,
            parameters: Parameters::default_for(detector),
        }
    }

    /// Which detector.
    pub fn detector(&self) -> Detector {
        self.parameters.detector()
    }
}
