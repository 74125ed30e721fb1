//! One entry of `detectors:`.

use marked_yaml::Node;

use super::fields::Fields;
use super::mistake::Mistakes;
use super::values::{choice, duration, hundredths, whole_number};
use super::{budget, dimensions};
use crate::finding::{Detector, DetectorAction, DetectorRule, RateBasis, Severity};
use crate::spelling::suggest;

/// The fields of every detector.
const COMMON: [&str; 6] = ["id", "detector", "where", "action", "at", "cooldown"];
const MAX_REPEATS: u64 = 1000;
/// Each lane remembers this many steps at most.
const MAX_WITHIN: u64 = 100;
const MAX_TOKENS: u64 = 1_000_000_000;
/// Above 0 % up to 100,000 %.
const GROWTH: std::ops::RangeInclusive<u32> = 1..=10_000_000;
/// Above 1 up to 1000.
const FACTOR: std::ops::RangeInclusive<u32> = 101..=100_000;
const COOLDOWN: std::ops::RangeInclusive<i64> = 1000..=30 * 86_400_000;

/// The parameters that a detector has beyond the common fields.
fn parameters(detector: Detector) -> &'static [&'static str] {
    match detector {
        Detector::RetryLoop => &["repeats", "tool"],
        Detector::ContextBloat => &["growth_pct", "min_tokens"],
        Detector::TokenAcceleration => &["factor", "min_tokens", "basis"],
        Detector::ToolAmplification => &["factor", "within", "min_tokens"],
        Detector::BudgetExceeded => &[],
    }
}

/// Reads a detector rule; `None` where the entry has a mistake.
pub(super) fn read(node: &Node, order: u32, mistakes: &mut Mistakes) -> Option<DetectorRule> {
    let before = mistakes.count();
    let fields = Fields::unchecked(node, "a detector", mistakes)?;
    let id = fields
        .required("id", "add a name such as `id: loops`", mistakes)
        .and_then(|node| budget::id(node, mistakes));
    let detector = fields
        .required(
            "detector",
            "add one such as `detector: retry_loop`",
            mistakes,
        )
        .and_then(|node| detector(node, mistakes));
    check_names(&fields, detector, mistakes);
    let filter = fields
        .get("where")
        .map(|node| dimensions::filter(node, Some(&DetectorRule::DIMENSIONS), mistakes));

    let mut rule = DetectorRule::default_for(detector?);
    rule.order = order;
    rule.filter = filter.unwrap_or_default();
    read_action(&fields, &mut rule, mistakes);
    read_parameters(&fields, &mut rule, mistakes);
    rule.id = id?.to_string();
    if rule.id == "default" {
        mistakes.add(
            fields.position_of("id"),
            "`default` is the name of the built-in rules",
            Some("give the entry another id"),
        );
    }
    (mistakes.count() == before).then_some(rule)
}

fn detector(node: &Node, mistakes: &mut Mistakes) -> Option<Detector> {
    let configurable = [
        Detector::RetryLoop,
        Detector::ContextBloat,
        Detector::TokenAcceleration,
        Detector::ToolAmplification,
    ];
    if node
        .as_scalar()
        .is_some_and(|name| name.as_str() == Detector::BudgetExceeded.name())
    {
        mistakes.add(
            node.into(),
            "`budget_exceeded` has nothing to configure: it fires when a budget's limit is reached",
            Some("remove the entry; the budget's `steps` decide its severity"),
        );
        return None;
    }
    let named = configurable.map(|detector| (detector.name(), detector));
    choice(node, "detector", &named, mistakes)
}

/// Names each field that this detector does not have; where the detector itself is unknown, each
/// that none has.
fn check_names(fields: &Fields<'_>, detector: Option<Detector>, mistakes: &mut Mistakes) {
    let every = || Detector::ALL.into_iter().flat_map(parameters);
    let mut known: Vec<&str> = COMMON.to_vec();
    match detector {
        Some(detector) => known.extend(parameters(detector)),
        None => known.extend(every()),
    }
    // Some detectors have parameters of the same name.
    known.sort_unstable();
    known.dedup();
    for (name, position, _) in fields.iter() {
        if known.contains(&name) {
            continue;
        }
        match detector.filter(|_| every().any(|parameter| *parameter == name)) {
            Some(detector) => mistakes.add(
                position,
                format!("`{name}` is not a parameter of `{}`", detector.name()),
                Some(format!("it has {}", parameters(detector).join(", "))),
            ),
            None => mistakes.add(
                position,
                format!("`{name}` is not a field of a detector"),
                Some(suggest(name, &known)),
            ),
        }
    }
}

fn read_action(fields: &Fields<'_>, rule: &mut DetectorRule, mistakes: &mut Mistakes) {
    let actions = [
        ("observe", DetectorAction::Observe),
        ("warn", DetectorAction::Warn),
        ("block_session", DetectorAction::BlockSession),
    ];
    let severities = [
        ("info", Severity::Info),
        ("warning", Severity::Warning),
        ("critical", Severity::Critical),
    ];
    if let Some(node) = fields.get("action") {
        rule.action = choice(node, "action", &actions, mistakes).unwrap_or(rule.action);
    }
    if let Some(node) = fields.get("at") {
        rule.at = choice(node, "at", &severities, mistakes).unwrap_or(rule.at);
    }
    if let Some(node) = fields.get("cooldown") {
        let millis = duration(node, "cooldown", COOLDOWN, mistakes);
        rule.cooldown_millis = millis.unwrap_or(rule.cooldown_millis);
    }
}

/// Reads the parameters of the rule's own detector; others are mistakes already.
fn read_parameters(fields: &Fields<'_>, rule: &mut DetectorRule, mistakes: &mut Mistakes) {
    for name in parameters(rule.detector) {
        let Some(node) = fields.get(name) else {
            continue;
        };
        match *name {
            "repeats" => set_count(node, name, 2..=MAX_REPEATS, &mut rule.repeats, mistakes),
            "within" => set_count(node, name, 1..=MAX_WITHIN, &mut rule.within, mistakes),
            "tool" => read_tool_rule(node, rule, mistakes),
            "growth_pct" => {
                let growth = hundredths(node, name, GROWTH, mistakes);
                rule.growth_basis_points = growth.unwrap_or(rule.growth_basis_points);
            }
            "factor" => {
                let factor = hundredths(node, name, FACTOR, mistakes);
                rule.factor_hundredths = factor.unwrap_or(rule.factor_hundredths);
            }
            "min_tokens" => {
                let tokens = whole_number(node, name, 0..=MAX_TOKENS, mistakes);
                rule.min_tokens = tokens.unwrap_or(rule.min_tokens);
            }
            "basis" => {
                let bases = [("step", RateBasis::Step), ("second", RateBasis::Second)];
                rule.basis = choice(node, name, &bases, mistakes).unwrap_or(rule.basis);
            }
            _ => unreachable!("`parameters` and this match list the same names"),
        }
    }
}

/// `tool: {repeats: 5, within: 20}`.
fn read_tool_rule(node: &Node, rule: &mut DetectorRule, mistakes: &mut Mistakes) {
    let Some(fields) = Fields::open(node, "`tool`", &["repeats", "within"], mistakes) else {
        return;
    };
    if let Some(node) = fields.get("repeats") {
        let range = 2..=MAX_WITHIN;
        set_count(
            node,
            "tool.repeats",
            range,
            &mut rule.tool_repeats,
            mistakes,
        );
    }
    if let Some(node) = fields.get("within") {
        set_count(
            node,
            "tool.within",
            2..=MAX_WITHIN,
            &mut rule.tool_within,
            mistakes,
        );
    }
    if rule.tool_repeats > rule.tool_within {
        mistakes.add(
            fields.position(),
            format!(
                "{} equal tool calls can never be among the last {} steps",
                rule.tool_repeats, rule.tool_within
            ),
            Some(format!("write `within: {}` or more", rule.tool_repeats)),
        );
    }
}

fn set_count(
    node: &Node,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
    target: &mut u32,
    mistakes: &mut Mistakes,
) {
    if let Some(count) = whole_number(node, name, range, mistakes) {
        *target = u32::try_from(count).expect("the ranges of counts end far below 2^32");
    }
}
