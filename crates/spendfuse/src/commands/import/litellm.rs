//! LiteLLM's proxy: models, budgets of all, of providers, models, tags, users, and keys and teams where
//! the file lists them as its API does.

use std::collections::BTreeMap;

use super::files::{Budget, Imported, Key, Upstream, dollars, plain, unlike};
use super::leaves::Leaves;

/// Providers whose APIs the proxy knows, and what LiteLLM calls them.
const KNOWN: [(&str, &str); 6] = [
    ("openai", "openai"),
    ("anthropic", "anthropic"),
    ("gemini", "gemini"),
    ("azure", "azure"),
    ("bedrock", "bedrock"),
    ("text-completion-openai", "openai"),
];
/// Before the name of a variable that holds a value.
const VARIABLE: &str = "os.environ/";
const BLOCK: &str = "{at: 100, do: block}";

/// Takes what has a counterpart.
pub fn import(leaves: &mut Leaves) -> Imported {
    let mut imported = Imported::default();
    let settings = ["litellm_settings"];
    let all = ("max_budget", "budget_duration");
    budget(
        &mut imported,
        leaves,
        &settings,
        all,
        ("litellm-all", Vec::new()),
    );
    for (limit, duration, dimension) in [
        (
            "max_internal_user_budget",
            "internal_user_budget_duration",
            "user",
        ),
        (
            "max_end_user_budget",
            "end_user_budget_duration",
            "customer",
        ),
    ] {
        let each = vec![(dimension.to_owned(), "*".to_owned())];
        let id = format!("litellm-each-{dimension}");
        budget(
            &mut imported,
            leaves,
            &settings,
            (limit, duration),
            (&id, each),
        );
    }
    let names = ("budget_limit", "time_period");
    for provider in leaves.names(&["router_settings", "provider_budget_config"]) {
        let place = ["router_settings", "provider_budget_config", &provider];
        let scope = vec![("provider".to_owned(), provider.clone())];
        let id = format!("litellm-provider-{}", plain(&provider));
        budget(&mut imported, leaves, &place, names, (&id, scope));
    }
    for tag in leaves.names(&["litellm_settings", "tag_budget_config"]) {
        let place = ["litellm_settings", "tag_budget_config", &tag];
        let scope = vec![("tags.tag".to_owned(), tag.clone())];
        let id = format!("litellm-tag-{}", plain(&tag));
        budget(&mut imported, leaves, &place, all, (&id, scope));
        imported.notes.push(format!(
            "calls of tag {tag} say so with header x-spendfuse-tag-tag: {tag}"
        ));
    }
    models(&mut imported, leaves);
    people(&mut imported, leaves);
    if leaves.take(&["general_settings", "master_key"]).is_some() {
        imported.notes.push(
            "the master key is not copied: make one with `spendfuse keys new operator --right admin`"
                .to_owned(),
        );
    }
    imported
}

/// A budget at a place, where there is one.
fn budget(
    imported: &mut Imported,
    leaves: &mut Leaves,
    place: &[&str],
    (limit, duration): (&str, &str),
    (id, scope): (&str, Vec<(String, String)>),
) {
    let at = |name| [place, &[name]].concat();
    let (amount, duration) = (leaves.take(&at(limit)), leaves.take(&at(duration)));
    let Some(amount) = amount else {
        return;
    };
    let Some(limit) = dollars(&amount) else {
        let place = place.join(".");
        imported.lacks(format!(
            "{place}.{limit} = {amount} is no amount of dollars"
        ));
        return;
    };
    let (window, note) = window(duration.as_deref());
    if let Some(note) = note {
        imported.notes.push(format!("budget {id}: {note}"));
    }
    if imported.budgets.iter().any(|known| known.id == id) {
        imported.lacks(format!("budget {id} is there twice: the first one stands"));
        return;
    }
    imported.budgets.push(Budget {
        id: id.to_owned(),
        scope,
        limit,
        window: window.to_owned(),
        steps: vec![BLOCK.to_owned()],
    });
}

/// The window most like a duration, and how it differs.
fn window(duration: Option<&str>) -> (&'static str, Option<String>) {
    let Some(text) = duration else {
        return ("lifetime", None);
    };
    let exact = match text {
        "1h" | "60m" | "3600s" => Some("hour"),
        "1d" | "24h" | "86400s" => Some("day"),
        "7d" | "1w" => Some("week"),
        "30d" | "31d" | "1mo" => Some("month"),
        "365d" | "1y" => Some("year"),
        _ => None,
    };
    if let Some(window) = exact {
        let note = format!("every {text} has become the calendar's {window}");
        return (
            window,
            Some(note).filter(|_| !["1h", "1d", "24h"].contains(&text)),
        );
    }
    let note =
        format!("{text} has become a day: no window is as long, choose another limit or window");
    ("day", Some(note))
}

fn models(imported: &mut Imported, leaves: &mut Leaves) {
    for number in leaves.names(&["model_list"]) {
        let place = ["model_list", number.as_str()];
        let own = |name| [&place[..], &["litellm_params", name]].concat();
        let name = leaves.take(&[place[0], place[1], "model_name"]);
        let Some(model) = leaves.take(&own("model")) else {
            continue;
        };
        let (provider, asked) = model
            .split_once('/')
            .unwrap_or((usual_provider(&model), &model));
        let base_url = leaves.take(&own("api_base"));
        let in_variable = base_url.as_ref().and_then(|url| url.strip_prefix(VARIABLE));
        if let Some(variable) = in_variable {
            imported.lacks(format!(
                "model {asked}: its address is in the variable {variable}: set proxy.upstreams.{}.base_url",
                plain(provider)
            ));
        }
        let base_url = base_url.filter(|url| !url.starts_with(VARIABLE));
        let has_key = leaves.take(&own("api_key")).is_some();
        leaves.take(&own("api_version"));
        let known = KNOWN.iter().find(|(known, _)| *known == provider);
        let upstream = match (known, &base_url) {
            (Some((_, known)), None) => (*known).to_owned(),
            (_, Some(address)) => {
                let name = plain(&format!("{provider}-{}", host(address)));
                let is_another = |known: &Upstream| known.base_url != Some(trimmed(address));
                unlike(&name, |name| {
                    imported.upstreams.get(name).is_some_and(is_another)
                })
            }
            (None, None) => {
                imported.lacks(format!(
                    "provider {provider} has no address here: set proxy.upstreams.{}.base_url",
                    plain(provider)
                ));
                continue;
            }
        };
        let shape = match provider {
            "anthropic" => "anthropic",
            "gemini" => "gemini",
            "azure" => "azure",
            "bedrock" => "bedrock",
            _ => "openai",
        };
        let found = imported.upstreams.entry(upstream.clone()).or_default();
        *found = Upstream {
            base_url: base_url.map(|address| trimmed(&address)),
            shape: Some(shape),
            provider: known.map_or(provider, |&(_, known)| known).to_owned(),
            has_key: has_key || found.has_key,
        };
        if name.as_deref().is_some_and(|name| name != asked) {
            let name = name.unwrap_or_default();
            imported.notes.push(format!(
                "model {name} is {asked} at upstream {upstream}: callers name that model themselves"
            ));
        }
        let limit = ("max_budget", "budget_duration");
        let scope = vec![("model".to_owned(), asked.to_owned())];
        let id = format!("litellm-model-{}", plain(asked));
        let params = [&place[..], &["litellm_params"]].concat();
        budget(imported, leaves, &params, limit, (&id, scope));
    }
}

/// Keys and teams, as `/key/list` and `/team/list` have them.
fn people(imported: &mut Imported, leaves: &mut Leaves) {
    let limit = ("max_budget", "budget_duration");
    // A key names its team by the id.
    let mut teams = BTreeMap::new();
    for number in leaves.names(&["teams"]) {
        let place = ["teams", number.as_str()];
        let id = leaves.take(&[place[0], place[1], "team_id"]);
        let alias = leaves.take(&[place[0], place[1], "team_alias"]);
        let Some(team) = alias.or_else(|| id.clone()) else {
            continue;
        };
        if let Some(id) = id {
            teams.insert(id, team.clone());
        }
        let scope = vec![("tags.team".to_owned(), team.clone())];
        let budget_id = imported.budget_id(&format!("litellm-team-{}", plain(&team)));
        budget(imported, leaves, &place, limit, (&budget_id, scope));
    }
    for number in leaves.names(&["keys"]) {
        let place = ["keys", number.as_str()];
        let mut own = |name| leaves.take(&[place[0], place[1], name]);
        let (alias, team, user) = (own("key_alias"), own("team_id"), own("user_id"));
        // Hashed or not, it is another kind of key.
        own("token");
        own("key");
        let name = alias.unwrap_or_else(|| format!("key-{}", number.trim_start_matches('0')));
        let name = imported.key_name(&plain(&name));
        let mut attribution = vec![("tags.key".to_owned(), name.clone())];
        let team = team.map(|id| teams.get(&id).cloned().unwrap_or(id));
        attribution.extend(team.map(|team| ("tags.team".to_owned(), team)));
        attribution.extend(user.map(|user| ("user".to_owned(), user)));
        let scope = vec![("tags.key".to_owned(), name.clone())];
        budget(
            imported,
            leaves,
            &place,
            limit,
            (&format!("litellm-key-{name}"), scope),
        );
        imported.keys.push(Key { name, attribution });
    }
}

/// Whose model it is that has no provider before its name.
fn usual_provider(model: &str) -> &'static str {
    match model.starts_with("claude") {
        true => "anthropic",
        false => "openai",
    }
}

fn host(address: &str) -> &str {
    let rest = address.split("://").nth(1).unwrap_or(address);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

/// OpenAI's clients end addresses with the version; here it is a part of the caller's path.
fn trimmed(address: &str) -> String {
    let address = address.trim_end_matches('/');
    address.strip_suffix("/v1").unwrap_or(address).to_owned()
}
