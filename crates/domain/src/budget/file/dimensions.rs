//! `scope` and `where`: mappings of dimensions to values.

use marked_yaml::Node;

use super::fields::Fields;
use super::mistake::{Mistakes, Position};
use super::values::name_text;
use crate::budget::wire::EACH;
use crate::scope::{Dimension, Filter, FixedDimension, Pattern, ScopeTemplate};
use crate::spelling::suggest;

/// Reads a budget's `scope`.
pub(super) fn scope(node: &Node, mistakes: &mut Mistakes) -> ScopeTemplate {
    let mut parts = Vec::new();
    for (dimension, value) in conditions(node, "`scope`", mistakes) {
        let name = format!("scope.{}", dimension.name());
        if value.as_sequence().is_some() {
            mistakes.add(
                value.into(),
                format!("`{name}` takes one value"),
                Some(format!(
                    "for several, write `{}: \"*\"` here and the list in `where`",
                    dimension.name()
                )),
            );
        } else if let Some(text) = name_text(value, &name, mistakes) {
            parts.extend(pattern(value, &name, text, mistakes).map(|pattern| (dimension, pattern)));
        }
    }
    ScopeTemplate::new(parts)
}

fn pattern(node: &Node, name: &str, text: String, mistakes: &mut Mistakes) -> Option<Pattern> {
    if text == EACH {
        return Some(Pattern::Each);
    }
    if text.contains('*') {
        mistakes.add(
            node.into(),
            format!("`{name}` cannot be `{text}`: patterns are not supported yet"),
            Some("write the exact value, or \"*\" for one budget for each value"),
        );
        return None;
    }
    Some(Pattern::Exactly(text))
}

/// A `where` is written into every entry of the blocklist and named by every delta.
const MOST_VALUES: usize = 1_000;

/// Reads a `where`; `allowed` names its dimensions where not all of them make sense.
pub(super) fn filter(
    node: &Node,
    allowed: Option<&[Dimension]>,
    mistakes: &mut Mistakes,
) -> Filter {
    let mut found = Vec::new();
    let mut count = 0;
    for (dimension, value) in conditions(node, "`where`", mistakes) {
        let name = format!("where.{}", dimension.name());
        if let Some(allowed) = allowed.filter(|allowed| !allowed.contains(&dimension)) {
            let names: Vec<_> = allowed.iter().map(Dimension::name).collect();
            mistakes.add(
                value.into(),
                format!("a detector cannot be limited by `{}`", dimension.name()),
                Some(format!("use one of: {}", names.join(", "))),
            );
            continue;
        }
        let values = match value.as_sequence() {
            Some(list) => list.as_slice(),
            None => std::slice::from_ref(value),
        };
        if values.is_empty() {
            let message = format!("`{name}` has no value, so nothing would be counted");
            mistakes.add(value.into(), message, Some("list the values that count"));
        }
        let texts = values
            .iter()
            .filter_map(|value| compared_text(value, &name, mistakes));
        let texts: Vec<String> = texts.collect();
        count += texts.len();
        found.push((dimension, texts));
    }
    if count > MOST_VALUES {
        mistakes.add(
            node.into(),
            format!("`where` lists {count} values, and it may list {MOST_VALUES}"),
            Some("count by a dimension that they have in common, such as a plan or a tag"),
        );
    }
    Filter::new(found)
}

fn compared_text(node: &Node, name: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = name_text(node, name, mistakes)?;
    if !text.contains('*') {
        return Some(text);
    }
    mistakes.add(
        node.into(),
        format!("`{name}` cannot be `{text}`: patterns are not supported yet"),
        Some("list the exact values; \"*\" belongs in `scope`"),
    );
    None
}

/// The dimensions that a mapping names, `tags: {team: a}` and `tags.team: a` alike.
fn conditions<'n>(
    node: &'n Node,
    what: &'n str,
    mistakes: &mut Mistakes,
) -> Vec<(Dimension, &'n Node)> {
    let mut found: Vec<(Dimension, &Node)> = Vec::new();
    let Some(fields) = Fields::unchecked(node, what, mistakes) else {
        return found;
    };
    let mut add = |dimension: Dimension, position: Position, value, mistakes: &mut Mistakes| {
        if found.iter().any(|(known, _)| *known == dimension) {
            let message = format!("`{}` is there twice", dimension.name());
            mistakes.add(position, message, Some("keep one of them"));
        } else {
            found.push((dimension, value));
        }
    };
    for (name, position, value) in fields.iter() {
        if name == "tags" {
            let Some(tags) = Fields::unchecked(value, "`tags`", mistakes) else {
                continue;
            };
            for (tag, position, value) in tags.iter() {
                add(Dimension::Tag(tag.to_owned()), position, value, mistakes);
            }
        } else if let Some(dimension) = Dimension::from_name(name) {
            add(dimension, position, value, mistakes);
        } else {
            let known = [&FixedDimension::NAMES[..], &["tags"]].concat();
            mistakes.add(
                position,
                format!("`{name}` is not a dimension of {what}"),
                Some(suggest(name, &known)),
            );
        }
    }
    found
}
