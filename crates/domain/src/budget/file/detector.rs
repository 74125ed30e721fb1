//! One entry of `detectors:`.

use std::ops::RangeInclusive;

use marked_yaml::Node;

use super::fields::Fields;
use super::mistake::Mistakes;
use super::values::{choice, duration, hundredths, whole_number};
use super::{budget, dimensions};
use crate::finding::{
    Detector, DetectorAction, DetectorRule, Parameters, RateBasis, RetryLoop, Severity,
};
use crate::spelling::suggest;

/// The fields of every detector.
const COMMON: [&str; 6] = ["id", "detector", "where", "action", "at", "cooldown"];
const MAX_REPEATS: u64 = 1000;
/// Each lane remembers this many steps at most.
const MAX_WITHIN: u64 = 100;
const MAX_TOKENS: u64 = 1_000_000_000;
/// Above 0 % up to 100,000 %.
const GROWTH: RangeInclusive<u32> = 1..=10_000_000;
/// Above 1 up to 1000.
const FACTOR: RangeInclusive<u32> = 101..=100_000;
const COOLDOWN: RangeInclusive<i64> = 1000..=30 * 86_400_000;

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
    read_parameters(&fields, &mut rule.parameters, mistakes);
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
    let mut reader = Reader::of(fields, mistakes);
    reader.choice("action", &actions, &mut rule.action);
    reader.choice("at", &severities, &mut rule.at);
    reader.read(
        "cooldown",
        &mut rule.cooldown_millis,
        |node, name, mistakes| duration(node, name, COOLDOWN, mistakes),
    );
}

/// Reads the parameters of the rule's own detector; others are mistakes already.
fn read_parameters(fields: &Fields<'_>, parameters: &mut Parameters, mistakes: &mut Mistakes) {
    let mut reader = Reader::of(fields, mistakes);
    match parameters {
        Parameters::RetryLoop(own) => {
            reader.count("repeats", 2..=MAX_REPEATS, &mut own.repeats);
            if let Some(node) = fields.get("tool") {
                read_tool_rule(node, own, reader.mistakes);
            }
        }
        Parameters::ContextBloat(own) => {
            reader.hundredths("growth_pct", GROWTH, &mut own.growth_basis_points);
            reader.tokens(&mut own.min_tokens);
        }
        Parameters::TokenAcceleration(own) => {
            reader.hundredths("factor", FACTOR, &mut own.factor_hundredths);
            reader.tokens(&mut own.min_tokens);
            let bases = [("step", RateBasis::Step), ("second", RateBasis::Second)];
            reader.choice("basis", &bases, &mut own.basis);
        }
        Parameters::ToolAmplification(own) => {
            reader.hundredths("factor", FACTOR, &mut own.factor_hundredths);
            reader.count("within", 1..=MAX_WITHIN, &mut own.within);
            reader.tokens(&mut own.min_tokens);
        }
        Parameters::BudgetExceeded => {}
    }
}

/// `tool: {repeats: 5, within: 20}`.
fn read_tool_rule(node: &Node, own: &mut RetryLoop, mistakes: &mut Mistakes) {
    let Some(fields) = Fields::open(node, "`tool`", &["repeats", "within"], mistakes) else {
        return;
    };
    let mut reader = Reader {
        prefix: "tool.",
        ..Reader::of(&fields, mistakes)
    };
    reader.count("repeats", 2..=MAX_WITHIN, &mut own.tool_repeats);
    reader.count("within", 2..=MAX_WITHIN, &mut own.tool_within);
    if own.tool_repeats > own.tool_within {
        mistakes.add(
            fields.position(),
            format!(
                "{} equal tool calls can never be among the last {} steps",
                own.tool_repeats, own.tool_within
            ),
            Some(format!("write `within: {}` or more", own.tool_repeats)),
        );
    }
}

/// Reads fields, where they are there and right, into what holds their defaults.
struct Reader<'a, 'n> {
    fields: &'a Fields<'n>,
    /// Stands before their names in mistakes.
    prefix: &'static str,
    mistakes: &'a mut Mistakes,
}

impl<'a, 'n> Reader<'a, 'n> {
    fn of(fields: &'a Fields<'n>, mistakes: &'a mut Mistakes) -> Self {
        Self {
            fields,
            prefix: "",
            mistakes,
        }
    }

    fn read<T>(
        &mut self,
        name: &str,
        target: &mut T,
        value: impl FnOnce(&Node, &str, &mut Mistakes) -> Option<T>,
    ) {
        let whole_name = format!("{}{name}", self.prefix);
        let node = self.fields.get(name);
        if let Some(value) = node.and_then(|node| value(node, &whole_name, self.mistakes)) {
            *target = value;
        }
    }

    fn choice<T: Copy>(&mut self, name: &str, allowed: &[(&str, T)], target: &mut T) {
        self.read(name, target, |node, name, mistakes| {
            choice(node, name, allowed, mistakes)
        });
    }

    fn count(&mut self, name: &str, range: RangeInclusive<u64>, target: &mut u32) {
        self.read(name, target, |node, name, mistakes| {
            let count = whole_number(node, name, range, mistakes)?;
            Some(u32::try_from(count).expect("the ranges of counts end far below 2^32"))
        });
    }

    fn hundredths(&mut self, name: &str, range: RangeInclusive<u32>, target: &mut u32) {
        self.read(name, target, |node, name, mistakes| {
            hundredths(node, name, range, mistakes)
        });
    }

    fn tokens(&mut self, target: &mut u64) {
        self.read("min_tokens", target, |node, name, mistakes| {
            whole_number(node, name, 0..=MAX_TOKENS, mistakes)
        });
    }
}
