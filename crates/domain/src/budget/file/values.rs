//! Single values: each reader names the mistake and returns `None` where a value is wrong.

use std::ops::RangeInclusive;

use marked_yaml::Node;
use marked_yaml::types::MarkedScalarNode;

use super::mistake::Mistakes;
use crate::budget::duration::{duration_text, parse_duration};
use crate::budget::hundredths::{hundredths_text, parse_hundredths};
use crate::money::Nanos;
use crate::spelling::suggest;

/// Longer texts would be cut in events, so that they could never be equal.
pub(super) const MAX_NAME_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 2000;
/// Far above any budget; keeps every product of limit and share within `i128`.
const MAX_USD: Nanos = Nanos::from_dollars(1_000_000_000_000);
const NO_SUGGESTION: Option<String> = None;

/// What a node is, for messages.
pub(super) fn kind(node: &Node) -> &'static str {
    match node {
        Node::Scalar(_) => "a single value",
        Node::Mapping(_) => "a mapping",
        Node::Sequence(_) => "a list",
    }
}

/// Whether the node is YAML's null, such as the value of `message:` with nothing behind.
pub(super) fn is_null(node: &Node) -> bool {
    let scalar = node.as_scalar();
    scalar.is_some_and(|scalar| {
        scalar.may_coerce() && matches!(scalar.as_str(), "" | "~" | "null" | "Null" | "NULL")
    })
}

/// A value that is neither a list nor a mapping nor empty.
pub(super) fn scalar<'n>(
    node: &'n Node,
    name: &str,
    mistakes: &mut Mistakes,
) -> Option<&'n MarkedScalarNode> {
    let Some(scalar) = node.as_scalar() else {
        let message = format!("`{name}` must be a single value, this is {}", kind(node));
        mistakes.add(node.into(), message, NO_SUGGESTION);
        return None;
    };
    if is_null(node) || scalar.as_str().is_empty() {
        let message = format!("`{name}` has no value");
        mistakes.add(
            node.into(),
            message,
            Some("write one, or leave the field out"),
        );
        return None;
    }
    Some(scalar)
}

/// A text for people.
pub(super) fn text(node: &Node, name: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = scalar(node, name, mistakes)?.as_str();
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("`{name}` is longer than {MAX_TEXT_BYTES} bytes");
        mistakes.add(node.into(), message, Some("shorten it"));
        return None;
    }
    Some(text.to_owned())
}

/// A name that events or requests are compared with, such as a customer or a model.
pub(super) fn name_text(node: &Node, name: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = scalar(node, name, mistakes)?.as_str();
    if text.len() > MAX_NAME_BYTES {
        let message = format!("`{name}` is longer than {MAX_NAME_BYTES} bytes");
        let reason = "events cut longer values, so nothing could ever match";
        mistakes.add(node.into(), message, Some(reason));
        return None;
    }
    Some(text.to_owned())
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    name: &str,
    allowed: &[(&str, T)],
    mistakes: &mut Mistakes,
) -> Option<T> {
    let text = scalar(node, name, mistakes)?.as_str();
    let found = allowed.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let words: Vec<&str> = allowed.iter().map(|(word, _)| *word).collect();
        let message = format!("`{name}` cannot be `{text}`");
        mistakes.add(node.into(), message, Some(suggest(text, &words)));
    }
    found.map(|(_, value)| *value)
}

/// A whole number within `range`.
pub(super) fn whole_number(
    node: &Node,
    name: &str,
    range: RangeInclusive<u64>,
    mistakes: &mut Mistakes,
) -> Option<u64> {
    let text = scalar(node, name, mistakes)?.as_str();
    let only_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = only_digits.then(|| text.parse::<u64>().ok()).flatten();
    let within = number.filter(|number| range.contains(number));
    if within.is_none() {
        let digits: String = text
            .chars()
            .filter(|one| !matches!(one, '_' | ',' | ' '))
            .collect();
        let meant = digits.parse().ok().filter(|number| range.contains(number));
        let (low, high) = (range.start(), range.end());
        let suggestion = match meant {
            Some(number) => format!("did you mean {number}?"),
            None => format!("write a whole number from {low} to {high}"),
        };
        let message = format!("`{name}` cannot be `{text}`");
        mistakes.add(node.into(), message, Some(suggestion));
    }
    within
}

/// A number with at most two fraction digits, in hundredths within `range`.
pub(super) fn hundredths(
    node: &Node,
    name: &str,
    range: RangeInclusive<u32>,
    mistakes: &mut Mistakes,
) -> Option<u32> {
    let text = scalar(node, name, mistakes)?.as_str();
    let in_range = |text: &str| parse_hundredths(text).filter(|number| range.contains(number));
    let number = in_range(text);
    if number.is_none() {
        let meant = text.trim_end_matches([' ', '%', 'x', '×']);
        let suggestion = match in_range(meant) {
            Some(number) => format!("did you mean {}?", hundredths_text(number)),
            None => format!(
                "write a number from {} to {} with at most two fraction digits",
                hundredths_text(*range.start()),
                hundredths_text(*range.end())
            ),
        };
        let message = format!("`{name}` cannot be `{text}`");
        mistakes.add(node.into(), message, Some(suggestion));
    }
    number
}

/// An amount of dollars from 0 on. Amounts with a fraction must be quoted: other programs that read
/// the same file would make floating-point numbers of them.
pub(super) fn dollars(node: &Node, name: &str, mistakes: &mut Mistakes) -> Option<Nanos> {
    let scalar = scalar(node, name, mistakes)?;
    let text = scalar.as_str();
    let quoted = |amount: &str| Some(format!("write `{name}: \"{amount}\"`"));
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    let (message, suggestion) = match Nanos::parse_usd(text) {
        Err(_) => {
            let bare = |one: &char| !matches!(one, '$' | ',' | '_' | ' ');
            let meant: String = text.trim_end_matches("USD").chars().filter(bare).collect();
            let suggestion = match Nanos::parse_usd(&meant) {
                Ok(_) => quoted(&meant),
                Err(_) => Some("write dollars as a decimal number such as \"12.50\"".to_owned()),
            };
            (format!("`{name}` cannot be `{text}`"), suggestion)
        }
        Ok(parsed) if parsed.amount < Nanos::ZERO => (
            format!("`{name}` is negative"),
            Some("write 0 to refuse every call".to_owned()),
        ),
        Ok(parsed) if parsed.amount > MAX_USD => (
            format!("`{name}` is more than {MAX_USD} dollars"),
            Some("leave the budget out if nothing is to be limited".to_owned()),
        ),
        Ok(parsed) if parsed.rounded => (
            format!("`{name}` has more than nine fraction digits"),
            // Never 0 for an amount that is not: a limit of 0 refuses every call.
            quoted(&parsed.amount.max(Nanos::new(1)).to_string()),
        ),
        Ok(_) if scalar.may_coerce() && !is_whole => (
            format!("`{name}` is a floating-point number in YAML, and money never is one"),
            quoted(text),
        ),
        Ok(parsed) => return Some(parsed.amount),
    };
    mistakes.add(node.into(), message, suggestion);
    None
}

/// A duration such as `15m`, in milliseconds within `range`.
pub(super) fn duration(
    node: &Node,
    name: &str,
    range: RangeInclusive<i64>,
    mistakes: &mut Mistakes,
) -> Option<i64> {
    let text = scalar(node, name, mistakes)?.as_str();
    let millis = parse_duration(text).filter(|millis| range.contains(millis));
    if millis.is_none() {
        let (low, high) = (duration_text(*range.start()), duration_text(*range.end()));
        mistakes.add(
            node.into(),
            format!("`{name}` cannot be `{text}`"),
            Some(format!(
                "write a whole number with ms, s, m, h or d, such as 15m, from {low} to {high}"
            )),
        );
    }
    millis
}
