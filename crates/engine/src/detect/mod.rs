//! Four of the five detectors: state machines over the steps of one lane.
//!
//! A lane is (workspace, session, agent, model). In: a [`StepFacts`] per generation step, in the
//! order of the log. Out: what each detector measured, as an [`Observation`], which
//! [`episode`] turns into findings. `budget_exceeded` lives with the accounts.
//!
//! All ratios are compared in integers, so that every implementation agrees to the last bit.

pub mod episode;
pub mod lane;
mod ratio;
mod retry_loop;
mod tool_amplification;

use spendfuse_domain::verdict::EventRef;
use spendfuse_domain::{Nanos, Severity, UnixMillis};

/// One generation step, as the detectors see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepFacts<'a> {
    /// The event's `source`.
    pub source: &'a str,
    /// The event's `id`.
    pub id: &'a str,
    /// When it happened.
    pub time: UnixMillis,
    /// All input tokens.
    pub context: u64,
    /// Context and output.
    pub tokens: u64,
    /// Tool calls that the model asked for.
    pub tool_calls: u32,
    /// Keyed fingerprint of the prompt.
    pub prompt_fingerprint: Option<u64>,
    /// Keyed fingerprint of the tool call.
    pub tool_fingerprint: Option<u64>,
    /// What the step cost.
    pub cost: Nanos,
    /// The part of the cost that its context caused.
    pub input_cost: Nanos,
}

impl StepFacts<'_> {
    /// The reference to the event, for evidence.
    pub(crate) fn event_ref(&self) -> EventRef {
        EventRef {
            source: self.source.to_owned(),
            id: self.id.to_owned(),
            time: Some(self.time),
        }
    }
}

/// What a detector saw in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// The step says nothing about it (no tokens, no step before): an episode stays as it is.
    Silent,
    /// The condition does not hold: an open episode ends.
    Quiet,
    /// The condition holds.
    Fires(Measurement),
}

/// A detector's condition, met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// The measured value, in the detector's unit.
    pub measured: f64,
    /// The parameter that it was held against, in the same unit.
    pub threshold: f64,
    /// Severity of this step alone.
    pub severity: Severity,
    /// Money wasted by this step (at opening: by the steps that led to it, too).
    pub wasted: Nanos,
}

/// `operation`s that are generation steps; an absent operation is a chat.
pub fn is_generation(operation: &str) -> bool {
    matches!(
        operation,
        "" | "chat" | "completion" | "responses" | "generate_content"
    )
}
