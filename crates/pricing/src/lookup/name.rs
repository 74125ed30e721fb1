//! Forms of model names: with and without dates, versions, regions and vendors.

/// Regions and inference profiles in front of Bedrock's names.
const REGIONS: &[&str] = &[
    "us.", "eu.", "apac.", "jp.", "au.", "ca.", "sa.", "me.", "af.", "in.", "global.", "us-gov.",
];

/// Vendors in front of Bedrock's names, and of some gateways'.
const VENDORS: &[&str] = &[
    "anthropic.",
    "amazon.",
    "meta.",
    "mistral.",
    "mistralai.",
    "cohere.",
    "ai21.",
    "stability.",
    "deepseek.",
    "openai.",
    "qwen.",
    "google.",
    "moonshot.",
    "moonshotai.",
    "minimax.",
    "nvidia.",
    "writer.",
    "zai.",
    "xai.",
    "luma.",
    "twelvelabs.",
];

/// Forms of `model`, most specific first, without repetitions, in lower case: the name itself, then
/// without date and version, then the same without prefixes.
pub(super) fn forms(model: &str) -> Vec<String> {
    let lower = model.trim().to_ascii_lowercase();
    let mut forms = Vec::new();
    let mut add = |form: &str| {
        if !form.is_empty() && !forms.iter().any(|known| known == form) {
            forms.push(form.to_owned());
        }
    };
    for start in without_prefixes(&lower) {
        for form in without_versions(start) {
            add(form);
        }
    }
    forms
}

/// Bare forms of `model`: the last of the path without region and vendor, first as it is, then
/// without date and version. These are what different providers' names have in common.
pub(super) fn bare_forms(model: &str) -> Vec<String> {
    let lower = model.trim().to_ascii_lowercase();
    let bare = without_prefixes(&lower).pop().unwrap_or(&lower);
    without_versions(bare)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// The words before the first number of a bare name: `claude-opus` of `claude-opus-9`, `gpt` of
/// `gpt-9-turbo`. Empty where the name begins with a number or has a single letter.
pub(super) fn family(bare: &str) -> &str {
    let first_digit = bare
        .find(|character: char| character.is_ascii_digit())
        .unwrap_or(bare.len());
    let words = &bare[..first_digit];
    // `llama3` is a `llama`, `k2p5` is not a `k`; `kimi-k2` is a `kimi`.
    let whole_words = match words.rsplit_once(['-', '_', ' ']) {
        Some((before, last)) if last.len() < 2 => before,
        _ => words,
    };
    let family = whole_words.trim_end_matches(['-', '_', '.', ' ']);
    if family.len() < 2 { "" } else { family }
}

/// `name`, then its ends after each `/`, then those without region and vendor.
fn without_prefixes(name: &str) -> Vec<&str> {
    let mut starts = vec![name];
    let mut rest = name;
    while let Some((_, end)) = rest.split_once('/') {
        starts.push(end);
        rest = end;
    }
    if let Some(end) = REGIONS.iter().find_map(|region| rest.strip_prefix(region)) {
        starts.push(end);
        rest = end;
    }
    if let Some(end) = VENDORS.iter().find_map(|vendor| rest.strip_prefix(vendor)) {
        starts.push(end);
    }
    starts
}

/// `name`, then the same with one ending less each time.
fn without_versions(name: &str) -> Vec<&str> {
    let mut forms = vec![name];
    let mut rest = name;
    while let Some(shorter) = without_last_ending(rest) {
        forms.push(shorter);
        rest = shorter;
    }
    forms
}

fn without_last_ending(name: &str) -> Option<&str> {
    // Fine-tuned models: `ft:gpt-4o-mini:our-org:name:id`; the base model has a price of its own.
    if let Some(rest) = name.strip_prefix("ft:") {
        let end = rest.find(':')?;
        return Some(&name[..3 + end]);
    }
    if let Some((before, after)) = name.rsplit_once('@') {
        // A beginning `@` is a namespace (`@cf/…`), not a version.
        return (!before.is_empty() && !after.contains('/')).then_some(before);
    }
    if let Some((before, after)) = name.rsplit_once(':') {
        return (!before.is_empty() && !after.contains('/')).then_some(before);
    }
    if let Some(before) = name.strip_suffix("-latest") {
        return Some(before);
    }
    let (before, last) = name.rsplit_once('-')?;
    if before.is_empty() {
        return None;
    }
    let is_bedrock_version = last.len() == 2 && last.starts_with('v') && digits(&last[1..]);
    if is_bedrock_version {
        // `claude-3-haiku-20240307-v1`, but not `titan-embed-text-v2`: a version follows a date.
        return without_date(before).map(|_| before);
    }
    without_date(name)
}

/// `name` without a date at its end: `-2024-08-06`, `-20240806`, `-0806`, `-2512`, `-08-2024`, or
/// a three-digit release such as `-001`.
fn without_date(name: &str) -> Option<&str> {
    let parts: Vec<&str> = name.rsplitn(4, '-').collect();
    let numbers = |expected: &[usize]| {
        expected.len() < parts.len()
            && parts
                .iter()
                .zip(expected)
                .all(|(part, length)| part.len() == *length && digits(part))
    };
    // Each list is the lengths of the numbers, last first.
    let dates: [&[usize]; 5] = [&[2, 2, 4], &[4, 2], &[8], &[4], &[3]];
    let date = dates.into_iter().find(|lengths| numbers(lengths))?;
    let characters: usize = date.iter().map(|length| length + 1).sum();
    Some(&name[..name.len() - characters])
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_versions_and_prefixes_come_off_one_by_one() {
        for (model, expected) in [
            ("gpt-4o-2024-08-06", vec!["gpt-4o-2024-08-06", "gpt-4o"]),
            ("Command-R-08-2024", vec!["command-r-08-2024", "command-r"]),
            (
                "gemini-2.0-flash-001",
                vec!["gemini-2.0-flash-001", "gemini-2.0-flash"],
            ),
            (
                "claude-opus-4@20250514",
                vec!["claude-opus-4@20250514", "claude-opus-4"],
            ),
            ("titan-embed-text-v2", vec!["titan-embed-text-v2"]),
            ("gpt-4.1", vec!["gpt-4.1"]),
            (
                "ft:gpt-4o-mini-2024-07-18:acme::x1",
                vec![
                    "ft:gpt-4o-mini-2024-07-18:acme::x1",
                    "ft:gpt-4o-mini-2024-07-18",
                ],
            ),
        ] {
            assert_eq!(forms(model), expected, "{model}");
        }
        let bedrock = forms("us.anthropic.claude-3-haiku-20240307-v1:0");
        assert_eq!(
            bedrock.first().unwrap(),
            "us.anthropic.claude-3-haiku-20240307-v1:0"
        );
        assert_eq!(bedrock.last().unwrap(), "claude-3-haiku");
        assert!(
            bedrock
                .iter()
                .any(|form| form == "anthropic.claude-3-haiku-20240307-v1:0")
        );
    }

    #[test]
    fn a_family_is_the_words_before_the_number() {
        for (bare, expected) in [
            ("claude-opus-9", "claude-opus"),
            ("gpt-9-turbo", "gpt"),
            ("llama3-70b", "llama"),
            ("kimi-k2", "kimi"),
            ("7b-chat", ""),
            ("mistral-large", "mistral-large"),
        ] {
            assert_eq!(family(bare), expected, "{bare}");
        }
    }
}
