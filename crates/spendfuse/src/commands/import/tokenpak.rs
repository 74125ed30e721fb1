//! TokenPak's recipe: budgets in cents, users by their bearer tokens.

use super::files::{Budget, Imported, Upstream, dollars_of_cents, plain, quoted, unlike};
use super::leaves::Leaves;

/// Blocks come later than a cheaper model, where both are asked for.
const BLOCK_AFTER_FALLBACK: u32 = 120;

/// Takes what has a counterpart.
pub fn import(leaves: &mut Leaves) -> Imported {
    let mut imported = Imported::default();
    let is_off = leaves.take(&["budget", "enabled"]).as_deref() == Some("false");
    if is_off {
        imported
            .notes
            .push("budget.enabled is false: the budgets only warn".to_owned());
    }
    let steps = steps(leaves, is_off);
    for (field, window) in [
        ("daily_limit_cents", "day"),
        ("monthly_limit_cents", "month"),
    ] {
        let id = format!("tokenpak-{}", &field[..field.len() - "_limit_cents".len()]);
        add(
            &mut imported,
            leaves,
            &["budget", field],
            (id, Vec::new(), window),
            &steps,
        );
    }
    let users = ["budget", "per_user_limits", "user_limits"];
    let are_on = leaves.take(&["budget", "per_user_limits", "enabled"]);
    let user_steps = match are_on.as_deref() {
        Some("false") => vec!["{at: 100, do: warn}".to_owned()],
        _ => steps.clone(),
    };
    for user in leaves.names(&users) {
        let place = [&users[..], &[user.as_str(), "daily_limit_cents"]].concat();
        let id = imported.budget_id(&format!("tokenpak-user-{}", plain(&user)));
        let scope = vec![("user".to_owned(), user.clone())];
        add(
            &mut imported,
            leaves,
            &place,
            (id, scope, "day"),
            &user_steps,
        );
        imported.keys.push(super::files::Key {
            name: user.clone(),
            attribution: vec![("user".to_owned(), user.clone())],
        });
    }
    told(&mut imported, leaves);
    for name in leaves.names(&["providers"]) {
        let kind = leaves.take(&["providers", &name, "type"]);
        let has_key = leaves.take(&["providers", &name, "api_key"]).is_some();
        let base_url = leaves.take(&["providers", &name, "base_url"]);
        let provider = kind.unwrap_or_else(|| name.clone());
        let shape = match provider.as_str() {
            "anthropic" => "anthropic",
            "google" | "gemini" => "gemini",
            _ => "openai",
        };
        let name = if provider == "google" {
            "gemini".to_owned()
        } else {
            plain(&name)
        };
        if base_url.is_none() && !["openai", "anthropic", "gemini"].contains(&name.as_str()) {
            imported.lacks(format!(
                "provider {name} has no address here: set proxy.upstreams.{name}.base_url"
            ));
            continue;
        }
        // Names that are alike when they are plain, and all of Google's.
        let is_another = |known: &Upstream| known.base_url != base_url;
        let name = unlike(&name, |name| {
            imported.upstreams.get(name).is_some_and(is_another)
        });
        let provider = if shape == "gemini" {
            "gemini".to_owned()
        } else {
            provider
        };
        imported.upstreams.insert(
            name,
            Upstream {
                base_url,
                shape: Some(shape),
                provider,
                has_key,
            },
        );
    }
    prices(&mut imported, leaves);
    imported
}

/// What follows at the limit.
fn steps(leaves: &mut Leaves, is_off: bool) -> Vec<String> {
    let mut steps = Vec::new();
    // At the limit something else follows.
    let is_at_limit = |percent: &String| {
        let whole = percent.split('.').next().unwrap_or_default();
        whole.parse::<u32>().is_ok_and(|whole| whole >= 100)
    };
    let percent = leaves.take(&["budget", "alert_threshold_pct"]);
    if let Some(percent) = percent.filter(|percent| !is_at_limit(percent)) {
        steps.push(format!("{{at: {percent}, do: warn}}"));
    }
    let rejects = leaves.take(&["budget", "reject_on_exceed"]);
    let rejects = rejects.as_deref() != Some("false") && !is_off;
    let fallback = leaves.take(&["budget", "fallback_model_on_exceed"]);
    match (fallback.filter(|_| !is_off), rejects) {
        (Some(model), rejects) => {
            steps.push(format!(
                "{{at: 100, do: downgrade, to: {}}}",
                quoted(&model)
            ));
            if rejects {
                steps.push(format!("{{at: {BLOCK_AFTER_FALLBACK}, do: block}}"));
            }
        }
        (None, true) => steps.push("{at: 100, do: block}".to_owned()),
        (None, false) => steps.push("{at: 100, do: warn}".to_owned()),
    }
    steps
}

fn add(
    imported: &mut Imported,
    leaves: &mut Leaves,
    place: &[&str],
    (id, scope, window): (String, Vec<(String, String)>, &str),
    steps: &[String],
) {
    let Some(cents) = leaves.take(place) else {
        return;
    };
    let Some(limit) = dollars_of_cents(&cents) else {
        let place = place.join(".");
        imported.lacks(format!("{place} = {cents} is no amount of cents"));
        return;
    };
    imported.budgets.push(Budget {
        id,
        scope,
        limit,
        window: window.to_owned(),
        steps: steps.to_vec(),
    });
}

/// A webhook, a mail address, or several.
fn told(imported: &mut Imported, leaves: &mut Leaves) {
    let place = ["budget", "alert_webhook"];
    imported.told.extend(leaves.take(&place));
    for number in leaves.names(&place) {
        let place = [&place[..], &[number.as_str()]].concat();
        imported.told.extend(leaves.take(&place));
    }
}

/// Cents for a thousand tokens are ten dollars for a million.
fn prices(imported: &mut Imported, leaves: &mut Leaves) {
    for model in leaves.names(&["models"]) {
        let provider = leaves
            .take(&["models", &model, "provider"])
            .unwrap_or_default();
        let mut rates = Vec::new();
        for (field, rate) in [("input", "input"), ("output", "output")] {
            let field = format!("estimated_{field}_cost_per_1k");
            let cents = leaves.take(&["models", &model, &field]);
            let dollars = cents.as_deref().and_then(dollars_of_cents);
            let dollars = dollars.and_then(|text| spendfuse_domain::Nanos::parse_usd(&text).ok());
            if let Some(dollars) = dollars {
                let million = spendfuse_domain::Nanos::new(dollars.amount.get() * 1000);
                rates.push(format!("{rate}={million}"));
            }
        }
        if !rates.is_empty() {
            let rates = rates.join(" ");
            imported.notes.push(format!(
                "prices are those of the price book; for the file's own: spendfuse prices set {provider}/{model} {rates}"
            ));
        }
    }
}
