//! Families of models, by the words in their names: `claude sonnet` and `claude` of
//! `claude-sonnet-9`, `kimi` of `fw-kimi-k3`.

/// Words that say how large, how fast or what for, of models of any family.
const OF_ANY_FAMILY: &[&str] = &[
    "base",
    "chat",
    "code",
    "exp",
    "fast",
    "flash",
    "free",
    "high",
    "instruct",
    "it",
    "large",
    "latest",
    "light",
    "lite",
    "low",
    "max",
    "medium",
    "mini",
    "nano",
    "ocr",
    "plus",
    "preview",
    "pro",
    "reasoning",
    "research",
    "small",
    "text",
    "thinking",
    "turbo",
    "ultra",
    "vision",
];
/// A family may begin after words of resellers or makers: `databricks`, `anthropic`.
const MOST_WORDS_BEFORE: usize = 3;
/// Longer names have the families of their first words.
const MOST_WORDS: usize = 8;

/// The words of a bare name up to its first number.
fn words(bare: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in bare.split(['-', '_', ' ', '.', ':', '@']).take(MOST_WORDS) {
        let digit = word.find(|one: char| one.is_ascii_digit());
        let letters = &word[..digit.unwrap_or(word.len())];
        // `llama3` is a `llama`, `k2p5` is not a `k`; `o3` is an `o`.
        if letters.len() > 1 || (words.is_empty() && !letters.is_empty()) {
            words.push(letters);
        }
        if digit.is_some() {
            break;
        }
    }
    words
}

/// The families of a bare name, the narrowest first.
pub(super) fn families(bare: &str) -> Vec<String> {
    let words = words(bare);
    let mut families = Vec::new();
    for end in (1..=words.len()).rev() {
        for start in 0..end.min(MOST_WORDS_BEFORE) {
            if !OF_ANY_FAMILY.contains(&words[start]) {
                families.push(words[start..end].join(" "));
            }
        }
    }
    families
}

/// Whether `name` has `word` between its separators.
pub(super) fn has_word(name: &str, word: &str) -> bool {
    let mut words = name.split(['-', '_', ' ', '.', ':', '@', '/', '[', ']']);
    words.any(|one| one.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_the_words_before_the_number_and_fewer_and_fewer_of_them() {
        for (bare, expected) in [
            ("claude-opus-9", vec!["claude opus", "opus", "claude"]),
            ("gpt-9-turbo", vec!["gpt"]),
            ("llama3-70b", vec!["llama"]),
            ("fw-kimi-k3", vec!["fw kimi", "kimi", "fw"]),
            ("o9-pro", vec!["o"]),
            ("7b-chat", vec![]),
            ("mistral-large", vec!["mistral large", "mistral"]),
            ("flash-lite", vec![]),
        ] {
            assert_eq!(families(bare), expected, "{bare}");
        }
        assert!(has_word("x/claude-opus-9-Fast", "fast") && !has_word("breakfast-1", "fast"));
    }
}
