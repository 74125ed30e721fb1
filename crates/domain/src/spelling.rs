//! Names that were misspelt, and what was probably meant.

/// "did you mean …" for a name that is close to one of `known`, else the list of them.
pub fn suggest(name: &str, known: &[&str]) -> String {
    match closest(name, known) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("use one of: {}", known.join(", ")),
    }
}

/// What gateways and telemetry (LiteLLM, OpenTelemetry) call names of ours, without `_id`.
const WORDS_OF_OTHERS: [(&str, &str); 10] = [
    ("account", "workspace"),
    ("conversation", "session"),
    ("end_user", "user"),
    ("gen_ai.conversation", "session"),
    ("metadata", "tags"),
    ("org", "workspace"),
    ("organisation", "workspace"),
    ("organization", "workspace"),
    ("tenant", "workspace"),
    ("thread", "session"),
];

/// The one of `known` that `name` is probably meant to be.
pub fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.trim().to_lowercase().replace(['-', ' '], "_");
    let word = name.trim_end_matches("_id").trim_end_matches(".id");
    let others = WORDS_OF_OTHERS.iter().filter(|(theirs, _)| *theirs == word);
    let ours = others.filter_map(|(_, ours)| known.iter().find(|known| *known == ours));
    if let Some(ours) = ours.copied().next() {
        return Some(ours);
    }
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
    let allowed = 1 + name.chars().count() / 4;
    let near = known
        .iter()
        .map(|candidate| (distance(candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min();
    let longer = |candidate: &&&str| candidate.len() >= 4 && name.starts_with(**candidate);
    near.map(|(_, candidate)| candidate)
        .or_else(|| known.iter().find(longer).copied())
}
