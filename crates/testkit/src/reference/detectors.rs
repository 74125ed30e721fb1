//! The detectors of `docs/formats/findings.md`, judged anew at each step from the lane's whole past.

use spendfuse_domain::finding::{
    ContextBloat, Detector, DetectorRules, Parameters, RateBasis, RetryLoop, TokenAcceleration,
    ToolAmplification,
};
use spendfuse_domain::{Body, Severity, UnixMillis};

use crate::scenario::LogEvent;

/// The conditions, in the order in which a step is judged: prompt rule, tool rule, then the others.
pub const CONDITIONS: [Detector; 5] = [
    Detector::RetryLoop,
    Detector::RetryLoop,
    Detector::ContextBloat,
    Detector::TokenAcceleration,
    Detector::ToolAmplification,
];
const TOOL_RULE: usize = 1;

/// One generation step and what was concluded from it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Place in the scenario's log.
    pub index: usize,
    time: UnixMillis,
    context: i128,
    tokens: i128,
    cost: i128,
    input_cost: i128,
    tool_calls: u32,
    prompt: Option<u64>,
    tool: Option<u64>,
    /// Per condition.
    outcomes: [Outcome; 5],
    rule_ids: [String; 5],
}

/// What one condition says of a step.
#[derive(Clone, Debug, Default, PartialEq)]
enum Outcome {
    #[default]
    Silent,
    Quiet,
    Fires(Firing),
}

#[derive(Clone, Debug, PartialEq)]
struct Firing {
    measured: f64,
    threshold: f64,
    severity: Severity,
    wasted: Wasted,
    fingerprint: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Wasted {
    /// By this step.
    Here(i128),
    /// By these steps of the lane.
    Steps(Vec<usize>),
}

/// An open episode: a run of steps that met a condition.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct EpisodeNow {
    pub condition: usize,
    /// Id of the rule of its first step, `.tools` added for the tool rule.
    pub rule: String,
    pub opened_at: UnixMillis,
    pub last_at: UnixMillis,
    pub severity: Severity,
    pub measured: f64,
    pub threshold: f64,
    pub wasted: i128,
    /// Places in the log of its first twenty steps.
    pub evidence: Vec<usize>,
}

/// The steps of one agent on one model in one session.
#[derive(Clone, Debug, Default)]
pub struct LaneReference {
    steps: Vec<Step>,
}

impl LaneReference {
    /// Takes a step; returns which conditions' episodes ended with it.
    pub fn step(&mut self, index: usize, one: &LogEvent, rules: &DetectorRules) -> Vec<usize> {
        let open_before: Vec<_> = (0..5).filter(|which| self.is_open(*which)).collect();
        let Body::Usage(call) = &one.event.body else {
            return Vec::new();
        };
        let who = &one.event.attribution;
        let in_force = CONDITIONS
            .map(|detector| rules.for_lane(&who.workspace, &who.feature, &who.agent, detector));
        let tokens = call.tokens;
        let generated =
            tokens.output + tokens.reasoning + tokens.audio_output + tokens.image_output;
        let all: u64 = tokens.each().iter().sum();
        self.steps.push(Step {
            index,
            time: one.event.time,
            context: i128::from(all - generated),
            tokens: i128::from(all),
            cost: one.cost.total().get(),
            input_cost: (one.cost.input + one.cost.cache_read + one.cost.cache_write).get(),
            tool_calls: call.tool_calls,
            prompt: call.prompt_fingerprint,
            tool: call.tool_fingerprint,
            outcomes: Default::default(),
            rule_ids: in_force.map(|rule| rule.id.clone()),
        });
        let outcomes = [0, 1, 2, 3, 4].map(|which| match &in_force[which].parameters {
            Parameters::RetryLoop(own) if which == TOOL_RULE => self.same_tool(own),
            Parameters::RetryLoop(own) => self.same_prompt(own),
            Parameters::ContextBloat(own) => self.context_bloat(own),
            Parameters::TokenAcceleration(own) => self.token_acceleration(own),
            Parameters::ToolAmplification(own) => self.tool_amplification(own),
            Parameters::BudgetExceeded => Outcome::Silent,
        });
        self.current_mut().outcomes = outcomes;
        let closed = open_before
            .into_iter()
            .filter(|which| !self.is_open(*which));
        closed.collect()
    }

    /// Which conditions have an open episode.
    pub fn open(&self) -> Vec<EpisodeNow> {
        (0..5).filter_map(|which| self.episode(which)).collect()
    }

    fn current(&self) -> &Step {
        self.steps.last().expect("a step was taken")
    }

    fn current_mut(&mut self) -> &mut Step {
        self.steps.last_mut().expect("a step was taken")
    }

    /// The latest run of steps that met a condition, oldest first; silent steps are left out.
    fn run(&self, which: usize) -> Vec<(&Step, &Firing)> {
        let mut run = Vec::new();
        for step in self.steps.iter().rev() {
            match &step.outcomes[which] {
                Outcome::Silent => {}
                Outcome::Quiet => break,
                Outcome::Fires(firing) => run.push((step, firing)),
            }
        }
        run.reverse();
        run
    }

    fn is_open(&self, which: usize) -> bool {
        !self.run(which).is_empty()
    }

    /// The open episode of a condition.
    pub fn episode(&self, which: usize) -> Option<EpisodeNow> {
        let run = self.run(which);
        let (first, opening) = run.first()?;
        let (_, latest) = run.last()?;
        let suffix = if which == TOOL_RULE { ".tools" } else { "" };
        let mut here = 0;
        let mut steps = std::collections::BTreeSet::new();
        for (_, firing) in &run {
            match &firing.wasted {
                Wasted::Here(nanos) => here += nanos,
                Wasted::Steps(indexes) => steps.extend(indexes.iter().copied()),
            }
        }
        let of_steps: i128 = steps.into_iter().map(|step| self.steps[step].cost).sum();
        Some(EpisodeNow {
            condition: which,
            rule: format!("{}{suffix}", first.rule_ids[which]),
            opened_at: first.time,
            last_at: run.iter().map(|(step, _)| step.time).max()?,
            severity: run.iter().map(|(_, firing)| firing.severity).max()?,
            measured: latest.measured,
            threshold: opening.threshold,
            wasted: here + of_steps,
            evidence: run.iter().take(20).map(|(step, _)| step.index).collect(),
        })
    }

    fn same_prompt(&self, rule: &RetryLoop) -> Outcome {
        let prompt = self.current().prompt;
        let same = |step: &&Step| prompt.is_some() && step.prompt == prompt;
        let length = self.steps.iter().rev().take_while(same).count();
        let repeats = rule.repeats as usize;
        if length < repeats || length < 2 {
            return Outcome::Quiet;
        }
        let last = self.steps.len() - 1;
        Outcome::Fires(Firing {
            measured: length as f64,
            threshold: repeats as f64,
            severity: if length >= 2 * repeats {
                Severity::Critical
            } else {
                Severity::Warning
            },
            wasted: Wasted::Steps((last + 2 - length..=last).collect()),
            fingerprint: None,
        })
    }

    fn same_tool(&self, rule: &RetryLoop) -> Outcome {
        let end = self.steps.len();
        let begin = end.saturating_sub(rule.tool_within as usize);
        let within = begin..end;
        let indexes = |tool: u64| -> Vec<usize> {
            let same = |index: &usize| self.steps[*index].tool == Some(tool);
            within.clone().filter(same).collect()
        };
        let repeats = rule.tool_repeats as usize;
        // An episode stays with its tool call as long as that one repeats often enough.
        let before = end
            .checked_sub(2)
            .map(|index| &self.steps[index].outcomes[TOOL_RULE]);
        let looping = match before {
            Some(Outcome::Fires(firing)) => firing.fingerprint,
            _ => None,
        };
        let mut candidates: Vec<u64> = within
            .clone()
            .filter_map(|index| self.steps[index].tool)
            .collect();
        candidates.dedup();
        let mut best = looping.filter(|tool| indexes(*tool).len() >= repeats);
        if best.is_none() {
            for tool in candidates {
                if best.is_none_or(|other| indexes(tool).len() > indexes(other).len()) {
                    best = Some(tool);
                }
            }
        }
        let Some(tool) = best else {
            return Outcome::Quiet;
        };
        let found = indexes(tool);
        if found.len() < repeats {
            return Outcome::Quiet;
        }
        Outcome::Fires(Firing {
            measured: found.len() as f64,
            threshold: repeats as f64,
            severity: if found.len() >= 2 * repeats {
                Severity::Warning
            } else {
                Severity::Info
            },
            wasted: Wasted::Steps(found[1..].to_vec()),
            fingerprint: Some(tool),
        })
    }

    /// Earlier steps with tokens, latest first.
    fn earlier(&self) -> impl Iterator<Item = &Step> {
        let before = self.steps.len() - 1;
        let with_tokens = |step: &&Step| step.tokens > 0;
        self.steps[..before].iter().rev().filter(with_tokens)
    }

    /// Severity by how often in a row the condition was met, this step included.
    fn streak(&self, which: usize) -> Severity {
        match self.run(which).len() {
            0 => Severity::Info,
            1 => Severity::Warning,
            _ => Severity::Critical,
        }
    }

    fn context_bloat(&self, rule: &ContextBloat) -> Outcome {
        let step = self.current();
        if step.tokens == 0 {
            return Outcome::Silent;
        }
        let Some(before) = self.earlier().next().filter(|one| one.context > 0) else {
            return Outcome::Quiet;
        };
        let growth = i128::from(rule.growth_basis_points);
        let excess = step.context * 10_000 - before.context * (10_000 + growth);
        if excess <= 0 || step.context < i128::from(rule.min_tokens) {
            return Outcome::Quiet;
        }
        let jump = match step.context / before.context {
            0 | 1 => Severity::Info,
            2 | 3 => Severity::Warning,
            _ => Severity::Critical,
        };
        Outcome::Fires(Firing {
            measured: 100.0 * (step.context - before.context) as f64 / before.context as f64,
            threshold: growth as f64 / 100.0,
            severity: jump.max(self.streak(2)),
            wasted: Wasted::Here(excess * step.input_cost / (step.context * 10_000)),
            fingerprint: None,
        })
    }

    fn token_acceleration(&self, rule: &TokenAcceleration) -> Outcome {
        let step = self.current();
        if step.tokens == 0 {
            return Outcome::Silent;
        }
        let mut earlier = self.earlier();
        let Some(before) = earlier.next() else {
            return Outcome::Quiet;
        };
        let gap = |later: &Step, sooner: &Step| i128::from(later.time.since(sooner.time).max(1000));
        // Rates as fractions: tokens over milliseconds.
        let (rate, previous) = match (rule.basis, earlier.next()) {
            (RateBasis::Step, _) => ((step.tokens, 1), (before.tokens, 1)),
            (RateBasis::Second, None) => return Outcome::Quiet,
            (RateBasis::Second, Some(first)) => (
                (step.tokens, gap(step, before)),
                (before.tokens, gap(before, first)),
            ),
        };
        let (now, then) = (rate.0 * previous.1, previous.0 * rate.1);
        let factor = i128::from(rule.factor_hundredths);
        if now * 100 < factor * then || step.tokens < i128::from(rule.min_tokens) {
            return Outcome::Quiet;
        }
        let jump = if now * 100 >= 4 * factor * then {
            Severity::Critical
        } else if now * 100 >= 2 * factor * then {
            Severity::Warning
        } else {
            Severity::Info
        };
        Outcome::Fires(Firing {
            measured: now as f64 / then as f64,
            threshold: factor as f64 / 100.0,
            severity: jump.max(self.streak(3)),
            wasted: Wasted::Here(step.cost * (now - then) / now),
            fingerprint: None,
        })
    }

    fn tool_amplification(&self, rule: &ToolAmplification) -> Outcome {
        let step = self.current();
        if step.tokens == 0 {
            return Outcome::Silent;
        }
        let chain = self
            .earlier()
            .take_while(|one| one.tool_calls > 0)
            .take(rule.within as usize);
        let mut chain: Vec<&Step> = chain.collect();
        chain.reverse();
        let Some(smallest) = chain.into_iter().min_by_key(|one| one.tokens) else {
            return Outcome::Quiet;
        };
        let factor = i128::from(rule.factor_hundredths);
        let reached = step.tokens * 100 / smallest.tokens;
        if reached < factor || step.tokens < i128::from(rule.min_tokens) {
            return Outcome::Quiet;
        }
        Outcome::Fires(Firing {
            measured: step.tokens as f64 / smallest.tokens as f64,
            threshold: factor as f64 / 100.0,
            severity: if reached >= 2 * factor {
                Severity::Critical
            } else {
                Severity::Warning
            },
            wasted: Wasted::Here((step.cost - smallest.cost).max(0)),
            fingerprint: None,
        })
    }
}
