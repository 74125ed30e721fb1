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
        let meant = text.replace(['_', ' '], "");
        let meant = without_thousands(&meant, ',').and_then(|digits| digits.parse().ok());
        let meant = meant.filter(|number| range.contains(number));
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
            let meant = text.trim_end_matches("USD").replace(['$', '_', ' '], "");
            let meant = with_point(&meant).filter(|meant| Nanos::parse_usd(&meant.number).is_ok());
            let message = match &meant {
                Some(meant) if meant.had_decimal_comma => {
                    format!("`{name}` has a decimal comma: `{text}`")
                }
                _ => format!("`{name}` cannot be `{text}`"),
            };
            let suggestion = match &meant {
                Some(meant) => quoted(&meant.number),
                None => Some("write dollars as a decimal number such as \"12.50\"".to_owned()),
            };
            (message, suggestion)
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

/// What a number with commas or points between its digits means.
struct WithPoint {
    number: String,
    had_decimal_comma: bool,
}

/// Reads 1,000.50 and 1.000,50: the mark before the fraction is the last one. A comma alone is taken for
/// that of thousands only where all groups have three digits. `None` where it can be none of them.
fn with_point(text: &str) -> Option<WithPoint> {
    let had_decimal_comma = match (text.rfind(','), text.rfind('.')) {
        (None, _) => false,
        (Some(comma), Some(point)) => comma > point,
        (Some(_), None) => without_thousands(text, ',').is_none(),
    };
    let (decimal, thousands) = match had_decimal_comma {
        true => (',', '.'),
        false => ('.', ','),
    };
    let number = match text.split_once(decimal) {
        Some((whole, fraction)) => {
            let whole = without_thousands(whole, thousands)?;
            format!("{whole}.{fraction}")
        }
        None => without_thousands(text, thousands)?,
    };
    Some(WithPoint {
        number,
        had_decimal_comma,
    })
}

/// The digits of a whole number, whose thousands `mark` may separate: 1000000 of 1,000,000.
fn without_thousands(text: &str, mark: char) -> Option<String> {
    let has_only_digits = text.chars().all(|one| one == mark || one.is_ascii_digit());
    let is_grouped = text.split_once(mark).is_none_or(|(first, rest)| {
        let is_first = (1..=3).contains(&first.len()) && !first.starts_with('0');
        is_first && rest.split(mark).all(|group| group.len() == 3)
    });
    (has_only_digits && is_grouped).then(|| text.replace(mark, ""))
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

#[cfg(test)]
mod tests {
    use crate::budget::file::BudgetsFile;

    /// What is said of a budget with this limit.
    fn said(limit: &str) -> String {
        let yaml = format!("budgets: [{{id: a, scope: {{}}, window: day, {limit}}}]");
        let mistakes = BudgetsFile::parse(&yaml).expect_err("the limit is wrong");
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_decimal_comma_is_named_and_never_read_as_one_of_thousands() {
        for (limit, meant) in [
            ("1,50", "1.50"),
            ("1,5", "1.5"),
            ("12,3456", "12.3456"),
            ("0,500", "0.500"),
            ("$1.000,50", "1000.50"),
        ] {
            let told = said(&format!("limit: \"{limit}\""));
            let wanted =
                format!("`limit` has a decimal comma: `{limit}`; write `limit: \"{meant}\"`");
            assert!(told.ends_with(&wanted), "{told}");
        }
        for (limit, meant) in [
            ("1,000.50", "1000.50"),
            ("1,000", "1000"),
            ("$ 1,000,000 USD", "1000000"),
            ("1_000.5", "1000.5"),
        ] {
            let told = said(&format!("limit: \"{limit}\""));
            let wanted = format!("`limit` cannot be `{limit}`; write `limit: \"{meant}\"`");
            assert!(told.ends_with(&wanted), "{told}");
        }
        for limit in ["1,50,5", "1,00.50", "1.5.0", ",", "1,50 EUR"] {
            let told = said(&format!("limit: \"{limit}\""));
            assert!(told.ends_with("such as \"12.50\""), "{told}");
        }
    }

    #[test]
    fn a_fraction_of_tokens_is_not_read_as_more_of_them() {
        assert!(said("limit_tokens: \"1,5\"").contains("write a whole number"));
        assert!(said("limit_tokens: \"1,000,000\"").contains("did you mean 1000000?"));
    }
}
