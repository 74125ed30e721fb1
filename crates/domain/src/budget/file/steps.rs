//! `steps`, or their shorthand `warn_at`, `action` and `to`.

use marked_yaml::Node;

use super::fields::Fields;
use super::mistake::{Mistakes, Position};
use super::values::{choice, hundredths, name_text};
use crate::budget::hundredths::hundredths_text;
use crate::budget::{Action, BasisPoints, Step};

/// 0.01 % to 100,000 %: a step at 0 would hold before anything is spent.
const SHARES: std::ops::RangeInclusive<u32> = 1..=10_000_000;
const SHORTHAND: [&str; 3] = ["warn_at", "action", "to"];
const DEFAULT_WARN_AT: BasisPoints = BasisPoints(8000);

#[derive(Clone, Copy)]
enum ActionKind {
    Warn,
    Downgrade,
    Block,
}

const ACTIONS: [(&str, ActionKind); 3] = [
    ("warn", ActionKind::Warn),
    ("downgrade", ActionKind::Downgrade),
    ("block", ActionKind::Block),
];

/// Reads the steps of a budget, ascending.
pub(super) fn read(fields: &Fields<'_>, mistakes: &mut Mistakes) -> Vec<Step> {
    if fields.get("steps").is_none() {
        return shorthand(fields, mistakes);
    }
    for name in SHORTHAND {
        if fields.get(name).is_some() {
            mistakes.add(
                fields.position_of(name),
                format!("`{name}` is a shorthand for `steps`, which is there too"),
                Some("keep one of them"),
            );
        }
    }
    let nodes = fields.entries("steps", mistakes);
    if nodes.is_empty() {
        mistakes.add(
            fields.position_of("steps"),
            "`steps` must have at least one step",
            Some("write `steps: [{at: 80, do: warn}, {at: 100, do: block}]`"),
        );
    }
    let steps: Vec<(Position, Step)> = nodes
        .iter()
        .filter_map(|node| Some((Position::from(node), step(node, mistakes)?)))
        .collect();
    check_order(&steps, mistakes);
    steps.into_iter().map(|(_, step)| step).collect()
}

fn step(node: &Node, mistakes: &mut Mistakes) -> Option<Step> {
    let fields = Fields::open(node, "a step", &["at", "do", "to"], mistakes)?;
    let at = fields.required("at", "add the percentage, such as `at: 80`", mistakes);
    let action = fields.required("do", "add `do: warn`, `downgrade` or `block`", mistakes);
    let at = at.and_then(|node| hundredths(node, "at", SHARES, mistakes));
    let kind = action.and_then(|node| choice(node, "do", &ACTIONS, mistakes));
    Some(Step {
        at: BasisPoints(at?),
        action: with_model(kind?, "do", &fields, mistakes)?,
    })
}

/// Adds the model of `to`, which a downgrade needs and nothing else has.
fn with_model(
    kind: ActionKind,
    name: &str,
    fields: &Fields<'_>,
    mistakes: &mut Mistakes,
) -> Option<Action> {
    let to = fields.get("to");
    let action = match kind {
        ActionKind::Downgrade => {
            let suggestion = "add the cheaper model, such as `to: gpt-4o-mini`";
            if to.is_none() {
                let message = format!("`{name}: downgrade` needs `to`");
                mistakes.add(fields.position_of(name), message, Some(suggestion));
            }
            return Some(Action::Downgrade(name_text(to?, "to", mistakes)?));
        }
        ActionKind::Warn => Action::Warn,
        ActionKind::Block => Action::Block,
    };
    if to.is_some() {
        mistakes.add(
            fields.position_of("to"),
            format!("`to` belongs to `{name}: downgrade`"),
            Some(format!("remove it, or write `{name}: downgrade`")),
        );
    }
    Some(action)
}

fn check_order(steps: &[(Position, Step)], mistakes: &mut Mistakes) {
    if !steps.is_sorted_by_key(|(_, step)| step.at) {
        let mut shares: Vec<u32> = steps.iter().map(|(_, step)| step.at.0).collect();
        shares.sort_unstable();
        let texts: Vec<String> = shares.into_iter().map(hundredths_text).collect();
        let unsorted = steps.windows(2).find(|pair| pair[0].1.at > pair[1].1.at);
        let position = unsorted.map_or(steps[0].0, |pair| pair[1].0);
        let suggestion = Some(format!("write them in the order {}", texts.join(", ")));
        mistakes.add(position, "steps must go up", suggestion);
        return;
    }
    for pair in steps.windows(2) {
        let ((_, earlier), (position, later)) = (&pair[0], &pair[1]);
        if earlier.at == later.at {
            mistakes.add(
                *position,
                format!("there are two steps at {}", later.at),
                Some("keep the stricter one"),
            );
        } else if later.action.verdict() < earlier.action.verdict() {
            mistakes.add(
                *position,
                format!(
                    "the step at {} is milder than the one at {}, so it would never show",
                    later.at, earlier.at
                ),
                Some("remove it, or exchange what the two do"),
            );
        }
    }
}

/// `warn_at: [80]` and `action: block`, which are also the defaults.
fn shorthand(fields: &Fields<'_>, mistakes: &mut Mistakes) -> Vec<Step> {
    let mut shares = match fields.get("warn_at") {
        None => vec![DEFAULT_WARN_AT],
        Some(node) => {
            let nodes = match node.as_sequence() {
                Some(list) => list.as_slice(),
                None => std::slice::from_ref(node),
            };
            let below_full = 1..=BasisPoints::FULL.0 - 1;
            let share = |node| hundredths(node, "warn_at", below_full.clone(), mistakes);
            nodes.iter().filter_map(share).map(BasisPoints).collect()
        }
    };
    shares.sort_unstable();
    shares.dedup();
    let action = match fields.get("action") {
        None if fields.get("to").is_some() => {
            mistakes.add(
                fields.position_of("to"),
                "`to` belongs to `action: downgrade`",
                Some("add `action: downgrade`"),
            );
            None
        }
        None => Some(Action::Block),
        Some(node) => choice(node, "action", &ACTIONS, mistakes)
            .and_then(|kind| with_model(kind, "action", fields, mistakes)),
    };
    let warn = |at| Step {
        at,
        action: Action::Warn,
    };
    let full = action.map(|action| Step {
        at: BasisPoints::FULL,
        action,
    });
    shares.into_iter().map(warn).chain(full).collect()
}
