//! `retry_loop`: the same prompt in consecutive steps, or the same tool call over and over.

use minicbor::{Decode, Encode};
use spendfuse_domain::finding::RetryLoop;
use spendfuse_domain::{Nanos, Severity};

use super::{Measurement, Observation, StepFacts};
use crate::codec;

/// A run of equal prompts.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct PromptRun {
    #[n(0)]
    fingerprint: Option<u64>,
    #[n(1)]
    length: u32,
    /// Cost of the run's steps after the first.
    #[n(2)]
    #[cbor(with = "codec::nanos")]
    repeated_cost: Nanos,
    /// Whether an episode that holds [`Self::repeated_cost`] is open.
    #[n(3)]
    #[cbor(default)]
    firing: bool,
}

impl PromptRun {
    /// Takes the next step. A step without a fingerprint ends the run.
    pub fn observe(&mut self, step: &StepFacts<'_>, parameters: &RetryLoop) -> Observation {
        let continues =
            step.prompt_fingerprint.is_some() && step.prompt_fingerprint == self.fingerprint;
        if !continues {
            *self = Self {
                fingerprint: step.prompt_fingerprint,
                length: 1,
                repeated_cost: Nanos::ZERO,
                firing: false,
            };
            return Observation::Quiet;
        }
        self.length += 1;
        self.repeated_cost += step.cost;
        // Rules may differ from step to step of a lane: they may name a feature.
        let was_firing = std::mem::replace(&mut self.firing, self.length >= parameters.repeats);
        if !self.firing {
            return Observation::Quiet;
        }
        Observation::Fires(Measurement {
            measured: f64::from(self.length),
            threshold: f64::from(parameters.repeats),
            severity: if self.length >= 2 * parameters.repeats {
                Severity::Critical
            } else {
                Severity::Warning
            },
            wasted: if was_firing {
                step.cost
            } else {
                self.repeated_cost
            },
        })
    }
}

/// The tool calls of the last steps.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct ToolHistory {
    /// Oldest first, at most `tool_within`.
    #[n(0)]
    steps: Vec<ToolStep>,
    /// The fingerprint of the open episode.
    #[n(1)]
    looping: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct ToolStep {
    #[n(0)]
    fingerprint: Option<u64>,
    #[n(1)]
    #[cbor(with = "codec::nanos")]
    cost: Nanos,
}

impl ToolHistory {
    /// Takes the next step. Fires while any one tool call fills `tool_repeats` of the last
    /// `tool_within` steps: real loops alternate edit and call.
    pub fn observe(&mut self, step: &StepFacts<'_>, parameters: &RetryLoop) -> Observation {
        self.steps.push(ToolStep {
            fingerprint: step.tool_fingerprint,
            cost: step.cost,
        });
        let surplus = self
            .steps
            .len()
            .saturating_sub(parameters.tool_within as usize);
        self.steps.drain(..surplus);
        // An open episode stays with its call while that one repeats often enough: where two calls
        // alternate, each of them would otherwise be counted anew at every step.
        let looping = self.looping.map(|call| (call, self.count_of(call)));
        let leading = looping
            .filter(|(_, count)| *count >= parameters.tool_repeats)
            .or_else(|| self.most_frequent());
        let Some((fingerprint, count)) = leading else {
            self.looping = None;
            return Observation::Quiet;
        };
        if count < parameters.tool_repeats {
            self.looping = None;
            return Observation::Quiet;
        }
        let wasted = if self.looping == Some(fingerprint) {
            let repeated = step.tool_fingerprint == Some(fingerprint);
            if repeated { step.cost } else { Nanos::ZERO }
        } else {
            self.cost_after_first(fingerprint)
        };
        self.looping = Some(fingerprint);
        Observation::Fires(Measurement {
            measured: f64::from(count),
            threshold: f64::from(parameters.tool_repeats),
            severity: if count >= 2 * parameters.tool_repeats {
                Severity::Warning
            } else {
                Severity::Info
            },
            wasted,
        })
    }

    /// The commonest fingerprint; the one that came first wins among equals.
    fn most_frequent(&self) -> Option<(u64, u32)> {
        let mut best: Option<(u64, u32)> = None;
        for fingerprint in self.steps.iter().filter_map(|step| step.fingerprint) {
            let count = self.count_of(fingerprint);
            if best.is_none_or(|(_, most)| count > most) {
                best = Some((fingerprint, count));
            }
        }
        best
    }

    fn count_of(&self, fingerprint: u64) -> u32 {
        self.occurrences(fingerprint).count() as u32
    }

    fn occurrences(&self, fingerprint: u64) -> impl Iterator<Item = &ToolStep> {
        self.steps
            .iter()
            .filter(move |step| step.fingerprint == Some(fingerprint))
    }

    fn cost_after_first(&self, fingerprint: u64) -> Nanos {
        self.occurrences(fingerprint)
            .skip(1)
            .map(|step| step.cost)
            .sum()
    }
}
