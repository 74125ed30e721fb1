//! `spendfuse import litellm|tokenpak FILE`: budgets, upstreams and keys of another proxy as our files,
//! with a list of what has no counterpart here.

mod files;
mod leaves;
mod litellm;
mod tokenpak;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::keys::NewKey;
use super::output::{self, counted};
use super::{Failure, found_wrong};
use files::Imported;
use leaves::Leaves;

#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(subcommand)]
    from: Origin,
}

#[derive(Subcommand, Debug)]
enum Origin {
    /// From the configuration of LiteLLM's proxy
    #[command(
        after_help = "Example:\n  spendfuse import litellm config.yaml --into imported --workspace acme\n\nKeys and teams live in LiteLLM's database: add what its /key/list and /team/list answer as keys: and teams: to the file.\nExit code 1 where something has no counterpart, or could not be taken."
    )]
    Litellm(FileArgs),
    /// From TokenPak's configuration
    #[command(
        after_help = "Example:\n  spendfuse import tokenpak tokenpak.yaml --into imported\n\nExit code 1 where something has no counterpart, or could not be taken."
    )]
    Tokenpak(FileArgs),
}

#[derive(Args, Debug)]
struct FileArgs {
    /// The other proxy's file, YAML or JSON
    file: PathBuf,
    /// Folder for budgets.yaml and spendfuse.toml, which must not be there yet
    #[arg(long, value_name = "FOLDER", default_value = "imported")]
    into: PathBuf,
    /// The workspace that all of it is about
    #[arg(long, default_value = "default")]
    workspace: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Takes from a file what has a counterpart.
type Read = fn(&mut Leaves) -> Imported;

pub fn run(args: &ImportArgs) -> Result<ExitCode, Failure> {
    let (args, read) = match &args.from {
        Origin::Litellm(args) => (args, litellm::import as Read),
        Origin::Tokenpak(args) => (args, tokenpak::import as Read),
    };
    let mut leaves = Leaves::read(&args.file)?;
    let imported = read(&mut leaves);
    imported
        .check(&args.workspace)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.file.display())))?;
    let made = imported
        .keys
        .iter()
        .map(|key| NewKey::make(&key.name, Some(args.workspace.as_str()), &key.attribution));
    let made: Vec<NewKey> = made.collect::<Result<_, _>>()?;
    let entries: Vec<&str> = made.iter().map(|key| key.entry.as_str()).collect();
    std::fs::create_dir_all(&args.into).map_err(|error| of_file(&args.into, &error))?;
    let budgets = imported.budgets_file(&args.workspace);
    write(&args.into.join("budgets.yaml"), &budgets)?;
    let settings = imported.settings_file(&entries.join("\n"));
    write(&args.into.join("spendfuse.toml"), &settings)?;
    tell(args, &imported, &made, &leaves.rest());
    Ok(match leaves.rest().is_empty() && !imported.is_incomplete {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

fn of_file(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
}

/// A new file, which nobody else reads.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| of_file(path, &error))
}

fn tell(args: &FileArgs, imported: &Imported, made: &[NewKey], rest: &[(String, usize)]) {
    if args.json {
        let keys = imported.keys.iter().zip(made);
        let keys: Vec<_> = keys
            .map(|(key, made)| json!({"name": key.name, "key": made.secret}))
            .collect();
        let left: Vec<_> = rest
            .iter()
            .map(|(place, line)| json!({"place": place, "line": line}))
            .collect();
        output::json(&json!({
            "folder": args.into, "budgets": imported.budgets.len(),
            "upstreams": imported.upstreams.keys().collect::<Vec<_>>(), "keys": keys,
            "notes": imported.notes, "without_counterpart": left,
        }));
        return;
    }
    output::line(format!(
        "{}: {}, {}, {}",
        args.into.display(),
        counted(imported.budgets.len() as u64, "budget"),
        counted(imported.upstreams.len() as u64, "upstream"),
        counted(made.len() as u64, "key"),
    ));
    for (key, made) in imported.keys.iter().zip(made) {
        output::line(format!("{} {}", made.secret, key.name));
    }
    for note in &imported.notes {
        output::line(format!("note: {note}"));
    }
    for (place, line) in rest {
        output::line(format!("no counterpart: {place} (line {line})"));
    }
    output::note(
        "Keys are shown this once. Next: spendfuse validate-config, spendfuse budgets apply",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str, read: Read) -> (Imported, Vec<String>) {
        let mut leaves = Leaves::parse(text).unwrap();
        let imported = read(&mut leaves);
        imported.check("acme").unwrap();
        let rest = leaves.rest().into_iter().map(|(place, _)| place).collect();
        (imported, rest)
    }

    #[test]
    fn tokenpaks_recipe_becomes_budgets() {
        let text = "
budget:
  enabled: true
  daily_limit_cents: 300
  monthly_limit_cents: 5000.5
  alert_threshold_pct: 80
  alert_webhook: [https://hooks.example.com/x, 'mailto:a@example.com']
  reject_on_exceed: true
  fallback_model_on_exceed: gpt-4o-mini
  per_user_limits: {enabled: true, user_limits: {user-a: {daily_limit_cents: 50}}}
providers: {openai: {type: openai, api_key: sk-secret}}
models: {gpt-4o: {provider: openai, estimated_input_cost_per_1k: 0.25, estimated_output_cost_per_1k: 1}}
cache: {ttl: 60}
";
        let (imported, rest) = made(text, tokenpak::import);
        assert_eq!(rest, ["cache.ttl"]);
        let budgets = imported.budgets_file("acme");
        let wanted = "budgets:
  - id: tokenpak-daily
    scope: {workspace: \"acme\"}
    limit: \"3.00\"
    window: day
    steps: [{at: 80, do: warn}, {at: 100, do: downgrade, to: \"gpt-4o-mini\"}, {at: 120, do: block}]
  - id: tokenpak-monthly
    scope: {workspace: \"acme\"}
    limit: \"50.005\"
    window: month
    steps: [{at: 80, do: warn}, {at: 100, do: downgrade, to: \"gpt-4o-mini\"}, {at: 120, do: block}]
  - id: tokenpak-user-user-a
    scope: {workspace: \"acme\", user: \"user-a\"}
    limit: \"0.50\"
    window: day
    steps: [{at: 80, do: warn}, {at: 100, do: downgrade, to: \"gpt-4o-mini\"}, {at: 120, do: block}]
";
        assert_eq!(budgets, wanted);
        let settings = imported.settings_file("");
        assert!(
            !settings.contains("sk-secret") && settings.contains("mailto:a@example.com"),
            "{settings}"
        );
        let notes = imported.notes.join("\n");
        assert!(
            notes.contains("prices set openai/gpt-4o input=2.50 output=10"),
            "{notes}"
        );
    }

    #[test]
    fn litellms_configuration_becomes_budgets_upstreams_and_keys() {
        let text = "
model_list:
  - model_name: fast
    litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY, max_budget: 5, budget_duration: 1d, rpm: 6}
  - model_name: claude-sonnet-4-5
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: sk-secret}
  - model_name: own
    litellm_params: {model: openai/own, api_base: 'http://llm.example.com:8000/v1'}
litellm_settings: {max_budget: 100, budget_duration: 30d, drop_params: true, max_end_user_budget: 0.5}
router_settings:
  provider_budget_config: {openai: {budget_limit: 12.5, time_period: 1d}}
general_settings: {master_key: sk-1234, database_url: 'postgres://x'}
keys: [{key_alias: checkout, token: abc, max_budget: 2, budget_duration: 7d, team_id: t-1}]
teams: [{team_alias: growth, team_id: t-1, max_budget: 9}]
";
        let (imported, rest) = made(text, litellm::import);
        let wanted = [
            "general_settings.database_url",
            "litellm_settings.drop_params",
            "model_list[0].litellm_params.rpm",
        ];
        assert_eq!(rest, wanted);
        let budgets: Vec<_> = imported
            .budgets
            .iter()
            .map(|one| format!("{} {} {}", one.id, one.limit, one.window))
            .collect();
        let wanted = [
            "litellm-all 100.00 month",
            "litellm-each-customer 0.50 lifetime",
            "litellm-provider-openai 12.50 day",
            "litellm-model-gpt-4o-mini 5.00 day",
            "litellm-team-growth 9.00 lifetime",
            "litellm-key-checkout 2.00 week",
        ];
        assert_eq!(budgets, wanted);
        let upstreams: Vec<&str> = imported.upstreams.keys().map(String::as_str).collect();
        assert_eq!(upstreams, ["anthropic", "openai", "openai-llm-example-com"]);
        let settings = imported.settings_file("");
        assert!(
            settings.contains("http://llm.example.com:8000\""),
            "{settings}"
        );
        assert!(!settings.contains("sk-"), "{settings}");
        assert_eq!(imported.keys[0].name, "checkout");
        // Else no call of the key would meet the budget of its team.
        let team = ("tags.team".to_owned(), "growth".to_owned());
        assert!(imported.keys[0].attribution.contains(&team));
        assert!(!imported.is_incomplete);
    }

    #[test]
    fn what_is_alike_is_kept_apart_and_what_is_not_taken_is_told() {
        let text = "
model_list:
  - litellm_params: {model: openai/a, api_base: 'http://localhost:8000/v1'}
  - litellm_params: {model: openai/b, api_base: 'http://localhost:8001/v1'}
  - litellm_params: {model: openai/c, api_base: 'http://localhost:8000/v1'}
  - litellm_params: {model: claude-sonnet-4-5}
  - litellm_params: {model: text-completion-openai/gpt-3.5-turbo-instruct}
  - litellm_params: {model: azure/gpt, api_base: os.environ/AZURE_API_BASE}
keys: [{key_alias: Team A, max_budget: 1}, {key_alias: team-a}, {key_alias: 团队, max_budget: a lot}]
";
        let (imported, rest) = made(text, litellm::import);
        assert_eq!(rest, [""; 0]);
        let upstream = |name: &str| {
            let found = &imported.upstreams[name];
            (found.base_url.as_deref(), found.provider.as_str())
        };
        assert_eq!(
            upstream("openai-localhost"),
            (Some("http://localhost:8000"), "openai")
        );
        assert_eq!(
            upstream("openai-localhost-2"),
            (Some("http://localhost:8001"), "openai")
        );
        assert_eq!(upstream("anthropic"), (None, "anthropic"));
        assert_eq!(upstream("openai"), (None, "openai"));
        assert_eq!(upstream("azure"), (None, "azure"));
        assert_eq!(imported.upstreams.len(), 5);
        let keys: Vec<&str> = imported.keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(keys, ["team-a", "team-a-2", "unnamed"]);
        assert!(imported.is_incomplete);
        let notes = imported.notes.join("\n");
        for told in ["AZURE_API_BASE", "keys.0002.max_budget = a lot"] {
            assert!(notes.contains(told), "{notes}");
        }

        let text = "
budget: {daily_limit_cents: 300, alert_threshold_pct: 100, per_user_limits: {user_limits: {A b: {daily_limit_cents: 1}, a-b: {daily_limit_cents: 2}}}}
providers: {a: {type: google, base_url: 'https://a.example'}, b: {type: google, base_url: 'https://b.example'}, c: {type: other}}
";
        let (imported, _) = made(text, tokenpak::import);
        let ids: Vec<&str> = imported.budgets.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(
            ids,
            ["tokenpak-daily", "tokenpak-user-a-b", "tokenpak-user-a-b-2"]
        );
        let upstreams: Vec<&str> = imported.upstreams.keys().map(String::as_str).collect();
        assert_eq!(upstreams, ["gemini", "gemini-2"]);
        // Provider `c` has no address.
        assert!(imported.is_incomplete);
        // What is no percentage is not left out in silence.
        let text = "budget: {daily_limit_cents: 300, alert_threshold_pct: most}";
        let imported = tokenpak::import(&mut Leaves::parse(text).unwrap());
        assert!(imported.check("acme").is_err());
    }
}
