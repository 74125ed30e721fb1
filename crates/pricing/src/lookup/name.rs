//! Forms of model names: with and without dates, versions, regions and vendors.

/// Regions and inference profiles in front of Bedrock's names.
const REGIONS: &[&str] = &[
    "us.",
    "eu.",
    "apac.",
    "jp.",
    "au.",
    "ca.",
    "sa.",
    "me.",
    "af.",
    "in.",
    "global.",
    "us-gov.",
    // genai-prices, for all but the global one.
    "regional.",
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

/// What stands behind the last colon of a reseller's name and decides the price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nothing, or a word that does not.
    #[default]
    None,
    /// `:free`, which costs nothing at OpenRouter, who named it.
    Free,
    /// `:batch`, the price of batches.
    Batch,
}

/// The variant that `model` of `provider` (both as the book writes them) ends with. OpenRouter's
/// names have a vendor's path, also where a call does not say its provider; elsewhere `:free` is a
/// word that anybody may write.
pub(super) fn variant(provider: &str, model: &str) -> Variant {
    let is_openrouters = provider == "openrouter" || (provider.is_empty() && model.contains('/'));
    let ending = model
        .trim()
        .rsplit_once(':')
        .map_or("", |(_, ending)| ending);
    if is_openrouters && ending.eq_ignore_ascii_case("free") {
        Variant::Free
    } else if ending.eq_ignore_ascii_case("batch") {
        Variant::Batch
    } else {
        Variant::None
    }
}

/// Ways to write `model`, as it is first, in lower case: a model in a region of Bedrock as price files
/// do (`bedrock/us-gov-west-1/…`); without what stands in brackets behind it
/// (Claude Code's `claude-sonnet-5[1m]`), with dashes for dots between numbers (`claude-opus-4.6`)
/// and dots for dashes, dashes for blanks (`GPT 4o mini`), and Claude's families before or behind their numbers (`claude-5-sonnet`).
pub(super) fn spellings(model: &str) -> Vec<String> {
    let name = model.trim().to_ascii_lowercase();
    let mut spellings = vec![foundation_model(&name).unwrap_or(name)];
    for rewrite in [
        without_brackets,
        dashes_for_blanks,
        dashes_for_dots,
        dots_for_dashes,
        claude_with_family_moved,
    ] {
        let rewritten: Vec<String> = spellings.iter().filter_map(|name| rewrite(name)).collect();
        for spelling in rewritten {
            if !spelling.is_empty() && !spellings.contains(&spelling) {
                spellings.push(spelling);
            }
        }
    }
    spellings
}

/// `bedrock/eu-west-2/meta.…` for `arn:aws:bedrock:eu-west-2::foundation-model/meta.…`.
fn foundation_model(name: &str) -> Option<String> {
    let (_partition, service) = name.strip_prefix("arn:")?.split_once(':')?;
    let (region, account) = service.strip_prefix("bedrock:")?.split_once(':')?;
    let (_account, resource) = account.split_once(':')?;
    let model = resource.strip_prefix("foundation-model/")?;
    Some(format!("bedrock/{region}/{model}"))
}

/// `claude-sonnet-5` for `claude-sonnet-5[1m]`.
fn without_brackets(name: &str) -> Option<String> {
    let (before, _) = name.strip_suffix(']')?.rsplit_once('[')?;
    Some(before.to_owned())
}

/// `gpt-4o-mini` for `gpt 4o_mini`.
fn dashes_for_blanks(name: &str) -> Option<String> {
    let is_blank = |one: char| one == ' ' || one == '_';
    name.contains(is_blank).then(|| name.replace(is_blank, "-"))
}

/// `claude-opus-4-6` for `claude-opus-4.6`.
fn dashes_for_dots(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let is_between_digits = |at: usize| {
        let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        bytes[at] == b'.' && at > 0 && digit(bytes.get(at - 1)) && digit(bytes.get(at + 1))
    };
    let written = |(at, character): (usize, char)| match is_between_digits(at) {
        true => '-',
        false => character,
    };
    Some(name.char_indices().map(written).collect())
}

/// `gpt-5.6-sol` for `gpt-5-6-sol`: the first two parts that are numbers of one digit.
fn dots_for_dashes(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('-').collect();
    let is_digit = |part: &str| part.len() == 1 && digits(part);
    let at = parts
        .windows(2)
        .position(|pair| is_digit(pair[0]) && is_digit(pair[1]))?;
    let version = format!("{}.{}", parts[at], parts[at + 1]);
    let mut rewritten = parts[..at].to_vec();
    rewritten.push(&version);
    rewritten.extend(&parts[at + 2..]);
    Some(rewritten.join("-"))
}

/// `claude-sonnet-4-5` for `claude-4-5-sonnet`, and the other way round.
fn claude_with_family_moved(name: &str) -> Option<String> {
    let start = name.rfind("claude-")?;
    let (before, claude) = name.split_at(start);
    let parts: Vec<&str> = claude.split('-').skip(1).collect();
    let is_version = |part: &&&str| part.len() <= 2 && digits(part);
    let is_family =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphabetic());
    let numbers_first = parts.iter().take_while(is_version).count();
    let (numbers, family, rest) = if numbers_first > 0 {
        let (family, rest) = parts[numbers_first..].split_first()?;
        (&parts[..numbers_first], *family, rest)
    } else {
        let (family, rest) = parts.split_first()?;
        let count = rest.iter().take_while(is_version).count();
        (&rest[..count], *family, &rest[count..])
    };
    if numbers.is_empty() || !is_family(family) {
        return None;
    }
    let mut moved = vec!["claude"];
    if numbers_first > 0 {
        moved.push(family);
        moved.extend(numbers);
    } else {
        moved.extend(numbers);
        moved.push(family);
    }
    moved.extend(rest);
    Some(format!("{before}{}", moved.join("-")))
}

/// Whether the last part of `model` has a region in front of a vendor, which only names of Bedrock
/// have: `us.anthropic.…`.
pub(super) fn has_region_of_bedrock(model: &str) -> bool {
    let lower = model.trim().to_ascii_lowercase();
    let last = lower.rsplit('/').next().unwrap_or("");
    let without_region = REGIONS.iter().find_map(|region| last.strip_prefix(region));
    without_region.is_some_and(|name| VENDORS.iter().any(|vendor| name.starts_with(vendor)))
}

/// Whether `model` has a vendor in front, as names of Bedrock do: `anthropic.…`.
pub(super) fn has_vendor_of_bedrock(model: &str) -> bool {
    VENDORS.iter().any(|vendor| model.starts_with(vendor))
}

/// Whether the last part of `model` has a geography of Bedrock's in front that is not the whole world.
pub(super) fn has_geography_of_bedrock(model: &str) -> bool {
    has_region_of_bedrock(model) && !model.to_ascii_lowercase().contains("global.")
}

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
pub(crate) fn bare_forms(model: &str) -> Vec<String> {
    let lower = model.trim().to_ascii_lowercase();
    let bare = without_prefixes(&lower).pop().unwrap_or(&lower);
    without_versions(bare)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// The shortest of the [bare forms](bare_forms), without date and version: what a model is called
/// anywhere.
pub(crate) fn bare(model: &str) -> String {
    bare_forms(model).pop().unwrap_or_default()
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
    // Azure's: `gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678`.
    if let Some((before, _)) = name.rsplit_once(".ft-") {
        return Some(before);
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
}
