//! Random budgets, detector rules, and how they change.

use spendfuse_domain::budget::BasisPoints;
use spendfuse_domain::finding::{
    ContextBloat, DetectorAction, DetectorRule, Parameters, RateBasis, RetryLoop,
    TokenAcceleration, ToolAmplification,
};
use spendfuse_domain::scope::Pattern;
use spendfuse_domain::{
    Action, Amount, Budget, BudgetId, Detector, Dimension, Filter, Nanos, OnStale, ScopeTemplate,
    Severity, Step, Timezone, UnixMillis, WindowKind,
};

use super::Choices;
use crate::scenario::{BudgetVersion, LogEvent};

const CALENDAR: [WindowKind; 7] = [
    WindowKind::Day,
    WindowKind::Hour,
    WindowKind::Lifetime,
    WindowKind::Month,
    WindowKind::Week,
    WindowKind::Quarter,
    WindowKind::Year,
];
const ZONES: [&str; 4] = ["UTC", "America/New_York", "Asia/Kolkata", "Asia/Beirut"];

/// All versions of a scenario with the events of `log`.
pub fn versions(
    log: &[LogEvent],
    budget_bits: &[u128],
    rule_bits: &[u128],
    edits: &[(u8, u128)],
) -> Vec<BudgetVersion> {
    let numbered = budget_bits.iter().enumerate();
    let mut versions = vec![BudgetVersion {
        from: 0,
        budgets: numbered
            .map(|(number, bits)| budget(number, *bits))
            .collect(),
        rules: rules(rule_bits),
    }];
    let mut edits: Vec<_> = edits
        .iter()
        .map(|(index, bits)| (usize::from(*index) * log.len() / 256, *bits))
        .collect();
    edits.sort();
    for (from, bits) in edits {
        let latest = versions.last().expect("the first version is there");
        let mut next = latest.clone();
        next.from = from.max(latest.from);
        edit(&mut next, Choices::new(bits));
        versions.push(next);
    }
    for number in 0..versions.len() {
        let (before, from) = versions.split_at_mut(number);
        begin_counts(before.last(), &mut from[0], log);
    }
    versions
}

/// As `budgets apply` does: a count that goes on keeps its time, another one begins now.
fn begin_counts(before: Option<&BudgetVersion>, version: &mut BudgetVersion, log: &[LogEvent]) {
    let now = log.get(version.from).or(log.last());
    let now = now.map_or(UnixMillis(0), |event| event.arrival);
    for budget in &mut version.budgets {
        let mut known = before.into_iter().flat_map(|before| &before.budgets);
        let goes_on = known.find(|known| known.id == budget.id && budget.counts_like(known));
        budget.counted_from = goes_on.map_or(now, |known| known.counted_from);
    }
}

/// The budget named `b{number}`.
pub fn budget(number: usize, bits: u128) -> Budget {
    let mut choices = Choices::new(bits);
    let scope = scope(&mut choices);
    let filter = filter(&mut choices);
    let session = choices.one_in(4);
    let window = if session {
        choices.one_of(&[WindowKind::Session, WindowKind::RootSession])
    } else {
        choices.one_of(&CALENDAR)
    };
    let mut budget = Budget {
        id: BudgetId::new(&format!("b{number}")).expect("a good id"),
        scope: scope.counted_in(window),
        filter,
        limit: limit(&mut choices),
        limit_from_event: false,
        window,
        timezone: zone(&mut choices),
        steps: steps(&mut choices),
        on_stale: OnStale::Allow,
        reserve_rule: None,
        unpriced_blocks: choices.one_in(2),
        publish_from: BasisPoints(choices.one_of(&[0, 0, 5_000, 20_000])),
        message: None,
        help_url: None,
        alert: Vec::new(),
        opening: None,
        counted_from: UnixMillis(0),
    };
    budget.opening = opening(&budget, &mut choices);
    budget
}

/// In the unit of the limit, for the budgets that may have one.
fn opening(budget: &Budget, choices: &mut Choices) -> Option<Amount> {
    let share = choices.one_of(&[None, None, Some(50), Some(90), Some(130)]);
    let may_have = budget.scope.single().is_some() && !budget.window.is_session();
    let limit = budget.limit.number().max(10);
    share
        .filter(|_| may_have)
        .map(|share| budget.limit.with(limit * share / 100))
}

fn scope(choices: &mut Choices) -> ScopeTemplate {
    use Dimension::{
        Account, Agent, Customer, Environment, Feature, Plan, Provider, RootSession, Workspace,
    };
    let exactly = |value: &str| Pattern::Exactly(value.to_owned());
    let acme = (Workspace, exactly("acme"));
    let tag = Dimension::Tag("team".to_owned());
    let mut menu = vec![
        vec![],
        vec![acme.clone()],
        vec![(Workspace, Pattern::Each), (Customer, Pattern::Each)],
        vec![acme.clone(), (Feature, exactly("agent"))],
        vec![(Workspace, Pattern::Each), (Customer, exactly("c/2"))],
        vec![(Customer, Pattern::Each)],
        vec![acme.clone(), (tag, Pattern::Each)],
        vec![
            acme.clone(),
            (Customer, Pattern::Each),
            (Agent, exactly("planner")),
        ],
        vec![(Provider, exactly("openai"))],
        vec![(Workspace, Pattern::Each), (Environment, exactly("prod"))],
        vec![(Account, Pattern::Each)],
        vec![(Workspace, Pattern::Each), (Plan, Pattern::Each)],
        vec![(RootSession, Pattern::Each)],
        vec![(Workspace, Pattern::Each)],
    ];
    let below_workspace = Dimension::FIXED.into_iter().skip(1);
    menu.extend(below_workspace.map(|each| vec![acme.clone(), (each, Pattern::Each)]));
    ScopeTemplate::new(choices.one_of(&menu))
}

fn filter(choices: &mut Choices) -> Filter {
    let is = |dimension, values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        vec![(dimension, values)]
    };
    let menu = [
        vec![],
        vec![],
        vec![],
        is(Dimension::Plan, &["free"]),
        is(Dimension::Plan, &["free", "pro"]),
        is(Dimension::Feature, &["agent"]),
        is(Dimension::Tag("team".to_owned()), &["growth"]),
    ];
    Filter::new(choices.one_of(&menu))
}

fn limit(choices: &mut Choices) -> Amount {
    let usd = |nanos| Amount::Usd(Nanos::new(nanos));
    choices.one_of(&[
        usd(1_000),
        usd(0),
        usd(130),
        usd(3_333),
        usd(40_000),
        Amount::Tokens(0),
        Amount::Tokens(700),
        Amount::Tokens(6_000),
        Amount::Calls(0),
        Amount::Calls(2),
        Amount::Calls(5),
    ])
}

fn zone(choices: &mut Choices) -> Timezone {
    Timezone::named(choices.one_of(&ZONES)).expect("a known zone")
}

fn steps(choices: &mut Choices) -> Vec<Step> {
    let step = |at, action| Step {
        at: BasisPoints(at),
        action,
    };
    let cheaper = Action::Downgrade("m-2".to_owned());
    let menu = [
        vec![step(8_000, Action::Warn), step(10_000, Action::Block)],
        vec![
            step(5_000, Action::Warn),
            step(8_000, Action::Warn),
            step(10_000, cheaper.clone()),
            step(12_000, Action::Block),
        ],
        vec![step(10_000, Action::Warn)],
        vec![],
        vec![step(5_000, Action::Block)],
        vec![step(3_333, cheaper)],
        vec![step(8_000, Action::Warn), step(15_000, Action::Block)],
    ];
    choices.one_of(&menu)
}

/// Memory lengths are the same in all rules, because a lane that changes between them forgets at
/// another pace.
const TOOL_WITHIN: u32 = 6;
/// See [`TOOL_WITHIN`].
const WITHIN: u32 = 2;

/// Detector rules.
pub fn rules(bits: &[u128]) -> Vec<DetectorRule> {
    let numbered = bits.iter().enumerate();
    let random = numbered.map(|(number, bits)| rule(number, *bits));
    let mut rules: Vec<_> = random.collect();
    let remembering = [
        Parameters::RetryLoop(RetryLoop {
            tool_within: TOOL_WITHIN,
            ..RetryLoop::default()
        }),
        Parameters::ToolAmplification(ToolAmplification {
            within: WITHIN,
            min_tokens: 100,
            ..ToolAmplification::default()
        }),
    ];
    for parameters in remembering {
        let detector = parameters.detector();
        rules.push(DetectorRule {
            id: format!("base-{}", detector.name()),
            order: 100,
            parameters,
            ..DetectorRule::default_for(detector)
        });
    }
    rules
}

fn rule(number: usize, bits: u128) -> DetectorRule {
    let mut choices = Choices::new(bits);
    let detector = choices.one_of(&[
        Detector::RetryLoop,
        Detector::ContextBloat,
        Detector::TokenAcceleration,
        Detector::ToolAmplification,
    ]);
    let is = |dimension, value: &str| vec![(dimension, vec![value.to_owned()])];
    let condition = choices.one_of(&[
        vec![],
        is(Dimension::Feature, "agent"),
        is(Dimension::Workspace, "acme"),
        is(Dimension::Agent, "planner"),
    ]);
    DetectorRule {
        id: format!("r{number}"),
        order: number as u32,
        filter: Filter::new(condition),
        action: choices.one_of(&[
            DetectorAction::Warn,
            DetectorAction::BlockSession,
            DetectorAction::BlockSession,
            DetectorAction::Observe,
        ]),
        at: choices.one_of(&[Severity::Info, Severity::Warning, Severity::Critical]),
        cooldown_millis: choices.one_of(&[60_000, 15 * 60_000, 60 * 60_000]),
        parameters: parameters(detector, &mut choices),
    }
}

/// Draws the same for every detector, so that what follows does not depend on which one it is.
fn parameters(detector: Detector, choices: &mut Choices) -> Parameters {
    let repeats = choices.one_of(&[2, 3]);
    let tool_repeats = choices.one_of(&[2, 3]);
    let growth_basis_points = choices.one_of(&[2_000, 0, 5_000]);
    let factor_hundredths = choices.one_of(&[200, 150, 333]);
    let min_tokens = choices.one_of(&[0, 200, 1_000]);
    let basis = choices.one_of(&[RateBasis::Step, RateBasis::Second]);
    match detector {
        Detector::RetryLoop => Parameters::RetryLoop(RetryLoop {
            repeats,
            tool_repeats,
            tool_within: TOOL_WITHIN,
        }),
        Detector::ContextBloat => Parameters::ContextBloat(ContextBloat {
            growth_basis_points,
            min_tokens,
        }),
        Detector::TokenAcceleration => Parameters::TokenAcceleration(TokenAcceleration {
            factor_hundredths,
            min_tokens,
            basis,
        }),
        Detector::ToolAmplification => Parameters::ToolAmplification(ToolAmplification {
            factor_hundredths,
            within: WITHIN,
            min_tokens,
        }),
        Detector::BudgetExceeded => Parameters::BudgetExceeded,
    }
}

fn edit(version: &mut BudgetVersion, mut choices: Choices) {
    let kind = choices.below(8);
    let count = version.budgets.len();
    if kind == 7 {
        if let Some(rule) = version.rules.first_mut() {
            let (repeats, growth) = (choices.one_of(&[2, 4]), choices.one_of(&[1_000, 30_000]));
            match &mut rule.parameters {
                Parameters::RetryLoop(own) => own.repeats = repeats,
                Parameters::ContextBloat(own) => own.growth_basis_points = growth,
                _ => {}
            }
        }
        return;
    }
    if kind == 6 || count == 0 {
        let unused = (0..).find(|number| {
            let id = format!("b{number}");
            version
                .budgets
                .iter()
                .all(|budget| budget.id.as_str() != id)
        });
        let bits = choices.below(u128::from(u64::MAX)) as u128;
        version
            .budgets
            .push(budget(unused.expect("numbers do not end"), bits));
        return;
    }
    let index = choices.below(count as u128);
    if kind == 5 {
        version.budgets.remove(index);
        return;
    }
    let budget = &mut version.budgets[index];
    let is_session = budget.window.is_session();
    match kind {
        0 | 1 => {
            budget.limit = limit(&mut choices);
            budget.opening = opening(budget, &mut choices);
        }
        2 => budget.steps = steps(&mut choices),
        3 => budget.filter = filter(&mut choices),
        _ if is_session => budget.unpriced_blocks = !budget.unpriced_blocks,
        _ => {
            budget.window = choices.one_of(&CALENDAR);
            budget.timezone = zone(&mut choices);
        }
    }
}
