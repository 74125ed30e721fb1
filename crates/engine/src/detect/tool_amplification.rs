//! `tool_amplification`: a tool's answer floods the context of a chain of tool steps.

use minicbor::{Decode, Encode};
use spendfuse_domain::finding::ToolAmplification;
use spendfuse_domain::{Nanos, Severity};

use super::{Measurement, Observation, StepFacts};
use crate::codec;

/// The last steps of a chain in which every step asked for tools. The step that starts the chain
/// belongs to it: a flood after the very first tool call counts.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct ToolChain {
    /// Oldest first, at most `within`.
    #[n(0)]
    steps: Vec<ChainStep>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct ChainStep {
    #[n(0)]
    tokens: u64,
    #[n(1)]
    #[cbor(with = "codec::nanos")]
    cost: Nanos,
}

impl ToolChain {
    /// Takes the next step with tokens.
    pub fn observe(&mut self, step: &StepFacts<'_>, parameters: &ToolAmplification) -> Observation {
        let observation = self.measure(step, parameters);
        if step.tool_calls == 0 {
            self.steps.clear();
            return observation;
        }
        self.steps.push(ChainStep {
            tokens: step.tokens,
            cost: step.cost,
        });
        let surplus = self.steps.len().saturating_sub(parameters.within as usize);
        self.steps.drain(..surplus);
        observation
    }

    fn measure(&self, step: &StepFacts<'_>, parameters: &ToolAmplification) -> Observation {
        let Some(smallest) = self.steps.iter().min_by_key(|earlier| earlier.tokens) else {
            return Observation::Quiet;
        };
        let factor = u128::from(parameters.factor_hundredths);
        let tokens = u128::from(step.tokens) * 100;
        let reaches = |times: u128| tokens >= times * factor * u128::from(smallest.tokens);
        if !reaches(1) || step.tokens < parameters.min_tokens {
            return Observation::Quiet;
        }
        Observation::Fires(Measurement {
            measured: step.tokens as f64 / smallest.tokens as f64,
            threshold: f64::from(parameters.factor_hundredths) / 100.0,
            severity: if reaches(2) {
                Severity::Critical
            } else {
                Severity::Warning
            },
            wasted: (step.cost - smallest.cost).or_zero(),
        })
    }
}
