//! A lane: the detectors' memory of one agent's steps on one model in one session.

use minicbor::{Decode, Encode};
use spendfuse_domain::finding::{DetectorRule, DetectorRules, Parameters};
use spendfuse_domain::{Detector, UnixMillis};

use super::episode::{self, Change, Episode, Owner};
use super::ratio::{self, PreviousStep};
use super::retry_loop::{PromptRun, ToolHistory};
use super::tool_amplification::ToolChain;
use super::{Observation, StepFacts};

/// The rules that detectors follow within a lane: `retry_loop` has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum LaneRule {
    PromptLoop,
    ToolLoop,
    ContextBloat,
    TokenAcceleration,
    ToolAmplification,
}

impl LaneRule {
    /// Every rule, in the order in which a step is judged.
    pub const ALL: [Self; 5] = [
        Self::PromptLoop,
        Self::ToolLoop,
        Self::ContextBloat,
        Self::TokenAcceleration,
        Self::ToolAmplification,
    ];

    /// The detector that it belongs to.
    pub fn detector(self) -> Detector {
        match self {
            Self::PromptLoop | Self::ToolLoop => Detector::RetryLoop,
            Self::ContextBloat => Detector::ContextBloat,
            Self::TokenAcceleration => Detector::TokenAcceleration,
            Self::ToolAmplification => Detector::ToolAmplification,
        }
    }

    /// The rule part of a finding's key: the tool rule of `retry_loop` is a finding of its own.
    pub fn key_part(self, rule: &str) -> String {
        match self {
            Self::ToolLoop => format!("{rule}.tools"),
            _ => rule.to_owned(),
        }
    }

    /// One sentence about an episode, for people.
    pub fn message(self, episode: &Episode) -> String {
        let measured = episode.measured;
        match self {
            Self::PromptLoop => format!("the same prompt ran {measured} times in a row"),
            Self::ToolLoop => {
                format!("the same tool call was made {measured} times within the last steps")
            }
            Self::ContextBloat => format!("the context grew by {measured:.0} % in one step"),
            Self::TokenAcceleration => {
                format!("token use rose to {measured:.1} times that of the step before")
            }
            Self::ToolAmplification => {
                format!(
                    "a tool's answer took {measured:.1} times the tokens of the step it came from"
                )
            }
        }
    }
}

/// The detectors' memory of one lane. Few lanes have an open episode, so those are apart.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Lane {
    /// The agent, empty = none named.
    #[n(0)]
    pub agent: String,
    /// The model.
    #[n(1)]
    pub model: String,
    #[n(2)]
    prompts: PromptRun,
    #[n(3)]
    tools: ToolHistory,
    #[n(4)]
    previous: Option<PreviousStep>,
    #[n(5)]
    chain: ToolChain,
    // Boxed, since few lanes have an open episode: else a lane would be several times as large.
    #[n(6)]
    prompt_loop: Option<Box<Episode>>,
    #[n(7)]
    tool_loop: Option<Box<Episode>>,
    #[n(8)]
    context_bloat: Option<Box<Episode>>,
    #[n(9)]
    token_acceleration: Option<Box<Episode>>,
    #[n(10)]
    tool_amplification: Option<Box<Episode>>,
}

impl Lane {
    /// A lane without steps.
    pub fn new(agent: &str, model: &str) -> Self {
        Self {
            agent: agent.to_owned(),
            model: model.to_owned(),
            ..Self::default()
        }
    }

    /// Whether no episode is open.
    pub fn is_quiet(&self) -> bool {
        LaneRule::ALL
            .iter()
            .all(|rule| self.episode(*rule).is_none())
    }

    /// Time of the last step that had tokens.
    pub fn last_step(&self) -> Option<UnixMillis> {
        self.previous.as_ref().map(|step| step.time)
    }

    /// The open episode of `rule`.
    pub fn episode(&self, rule: LaneRule) -> Option<&Episode> {
        let episode = match rule {
            LaneRule::PromptLoop => &self.prompt_loop,
            LaneRule::ToolLoop => &self.tool_loop,
            LaneRule::ContextBloat => &self.context_bloat,
            LaneRule::TokenAcceleration => &self.token_acceleration,
            LaneRule::ToolAmplification => &self.tool_amplification,
        };
        episode.as_deref()
    }

    /// As [`Self::episode`], to change it.
    pub fn episode_mut(&mut self, rule: LaneRule) -> &mut Option<Box<Episode>> {
        match rule {
            LaneRule::PromptLoop => &mut self.prompt_loop,
            LaneRule::ToolLoop => &mut self.tool_loop,
            LaneRule::ContextBloat => &mut self.context_bloat,
            LaneRule::TokenAcceleration => &mut self.token_acceleration,
            LaneRule::ToolAmplification => &mut self.tool_amplification,
        }
    }

    /// Takes the next step; tells `changed` of every episode that opened, grew or closed.
    pub fn step(
        &mut self,
        step: &StepFacts<'_>,
        rules: LaneRules<'_>,
        customer: &str,
        feature: &str,
        mut changed: impl FnMut(LaneRule, Change),
    ) {
        for rule in LaneRule::ALL {
            let in_force = rules.of(rule);
            let observation = self.observe(rule, step, &in_force.parameters);
            let owner = Owner {
                customer,
                feature,
                rule: &in_force.id,
            };
            match episode::apply(self.episode_mut(rule), observation, step, owner) {
                Change::None => {}
                change => changed(rule, change),
            }
        }
        if step.tokens > 0 {
            self.previous = Some(PreviousStep::of(step, self.previous.as_ref()));
        }
    }

    fn observe(
        &mut self,
        rule: LaneRule,
        step: &StepFacts<'_>,
        parameters: &Parameters,
    ) -> Observation {
        let in_a_row =
            |episode: &Option<Box<Episode>>| episode.as_ref().map_or(0, |open| open.in_a_row);
        let before = self.previous.as_ref();
        match parameters {
            Parameters::RetryLoop(own) if rule == LaneRule::ToolLoop => {
                self.tools.observe(step, own)
            }
            Parameters::RetryLoop(own) => self.prompts.observe(step, own),
            _ if step.tokens == 0 => Observation::Silent,
            Parameters::ContextBloat(own) => {
                ratio::context_bloat(step, before, in_a_row(&self.context_bloat), own)
            }
            Parameters::TokenAcceleration(own) => {
                ratio::token_acceleration(step, before, in_a_row(&self.token_acceleration), own)
            }
            Parameters::ToolAmplification(own) => self.chain.observe(step, own),
            // Judged where the accounts are.
            Parameters::BudgetExceeded => Observation::Silent,
        }
    }
}

/// The four rules in force for one lane's step.
#[derive(Clone, Copy, Debug)]
pub struct LaneRules<'a> {
    retry_loop: &'a DetectorRule,
    context_bloat: &'a DetectorRule,
    token_acceleration: &'a DetectorRule,
    tool_amplification: &'a DetectorRule,
}

impl<'a> LaneRules<'a> {
    /// The most specific rule of each detector.
    pub fn select(rules: &'a DetectorRules, workspace: &str, feature: &str, agent: &str) -> Self {
        let of = |detector| rules.for_lane(workspace, feature, agent, detector);
        Self {
            retry_loop: of(Detector::RetryLoop),
            context_bloat: of(Detector::ContextBloat),
            token_acceleration: of(Detector::TokenAcceleration),
            tool_amplification: of(Detector::ToolAmplification),
        }
    }

    /// What is in force for `rule`.
    pub fn of(&self, rule: LaneRule) -> &'a DetectorRule {
        match rule {
            LaneRule::PromptLoop | LaneRule::ToolLoop => self.retry_loop,
            LaneRule::ContextBloat => self.context_bloat,
            LaneRule::TokenAcceleration => self.token_acceleration,
            LaneRule::ToolAmplification => self.tool_amplification,
        }
    }
}
