//! How many tokens a model's answer can have: what a call may cost at most that does not say.
//!
//! Not part of the price book: nobody is charged by it.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::lookup::bare_forms;

/// `name,tokens`, see `data/prices/README.md`.
const TABLE: &str = include_str!("../../../data/prices/longest_answers.csv");

static LONGEST: LazyLock<HashMap<&'static str, u64>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter_map(|line| line.rsplit_once(','));
    lines
        .filter_map(|(name, tokens)| Some((name, tokens.parse().ok()?)))
        .collect()
});

/// The most tokens that an answer of `model` has, as most of its providers say; `None` where that is
/// not known.
///
/// ```
/// use spendfuse_pricing::longest_answer;
/// assert_eq!(longest_answer("gpt-4o-mini"), Some(16_384));
/// assert_eq!(longest_answer("us.anthropic.claude-sonnet-4-5-20250929-v1:0"), Some(64_000));
/// assert_eq!(longest_answer("nobody's"), None);
/// ```
pub fn longest_answer(model: &str) -> Option<u64> {
    let forms = bare_forms(model);
    forms
        .iter()
        .find_map(|name| LONGEST.get(name.as_str()).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_name_and_a_number() {
        assert_eq!(LONGEST.len(), TABLE.lines().count());
        assert!(
            LONGEST
                .values()
                .all(|tokens| (1..=10_000_000).contains(tokens))
        );
    }

    #[test]
    fn a_date_or_version_changes_nothing() {
        for name in [
            "GPT-4o",
            "gpt-4o-2024-08-06",
            "azure/eu/gpt-4o",
            "gpt-4o:latest",
        ] {
            assert_eq!(longest_answer(name), Some(16_384), "{name}");
        }
        for unknown in ["", "-", "gpt", &"x-1".repeat(1000), "2024-08-06"] {
            assert_eq!(longest_answer(unknown), None, "{unknown}");
        }
    }
}
