//! `spendfuse prices set provider/model RATE=AMOUNT…`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_domain::{Nanos, UnitKind};
use spendfuse_pricing::PriceBook;
use spendfuse_pricing::book::{Change, Patch};
use spendfuse_pricing::rate::{RateKey, TokenClass};

use super::super::output;
use super::publish::{publish, tell};
use super::{Failure, book, diff};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct SetArgs {
    /// Whose rates, as in openai/gpt-4o or as an alert names it; /gpt-99 where calls name no provider
    #[arg(value_name = "PROVIDER/MODEL", allow_hyphen_values = true)]
    model: String,
    /// Rates: input=2.50, cache_read=1.25, output:batch=5, input>200000=5, images=0.04; `none` removes
    #[arg(value_name = "RATE=AMOUNT", required = true)]
    rates: Vec<String>,
    /// Beginning of the new version's name; if not given that of the version in force, or `custom`
    #[arg(long)]
    label: Option<String>,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Leave ClickHouse's table prices alone
    #[arg(long)]
    no_clickhouse: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &SetArgs) -> Result<ExitCode, Failure> {
    let (provider, model) = whose(&args.model)?;
    let changes: Result<Vec<Change>, Failure> = args
        .rates
        .iter()
        .map(|rate| change(provider, model, rate))
        .collect();
    let changes = changes?;
    let base = book::in_force(settings)?;
    // A changed book is not the program's any more, and its name should not say so.
    let label = match base.label() == PriceBook::snapshot().label() {
        true => "custom".to_owned(),
        false => String::new(),
    };
    let patch = Patch {
        label: args.label.clone().unwrap_or(label),
        changes,
    };
    let new = base.patched(&patch).map_err(Failure::usage)?;
    let differences = base.diff(&new);
    if !args.json {
        diff::print(&differences);
    }
    let is_new = match args.dry_run {
        true => None,
        false => Some(publish(settings, &new, !args.no_clickhouse)?),
    };
    if args.json {
        let changes: Vec<Value> = differences.iter().map(diff::difference_json).collect();
        output::json(&json!({
            "base": base.version(), "version": new.version(), "published": is_new, "changes": changes,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    match is_new {
        Some(is_new) => tell(&new, is_new),
        None => output::line(format!(
            "dry run: version {} was not put into force",
            new.version()
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// Provider and model of a name. The provider may be empty, as in the alert about a call that names
/// none.
fn whose(name: &str) -> Result<(&str, &str), Failure> {
    let split = name.split_once('/');
    split
        .filter(|(_, model)| !model.trim().is_empty())
        .ok_or_else(|| {
            let bare = name.trim_matches('/');
            Failure::usage(format!(
                "{name}: write PROVIDER/MODEL, such as openai/{bare}, or /{bare} where calls name no provider"
            ))
        })
}

fn change(provider: &str, model: &str, text: &str) -> Result<Change, Failure> {
    // A rate's key may hold `>` but no `=`.
    let Some((key, amount)) = text.split_once('=') else {
        return Err(Failure::usage(format!(
            "{text}: write RATE=AMOUNT, such as input=2.50"
        )));
    };
    let key: RateKey = key.parse().map_err(|error| {
        let classes: Vec<&str> = TokenClass::ALL.iter().map(|one| one.name()).collect();
        let units: Vec<&str> = UnitKind::ALL.iter().map(|one| one.name()).collect();
        Failure::usage(format!(
            "{text}: {error}; token classes are {}; units are {}",
            classes.join(", "),
            units.join(", ")
        ))
    })?;
    let (provider, model) = (provider.to_owned(), model.to_owned());
    if amount == "none" {
        return Ok(Change::RemoveRate {
            provider,
            model,
            key,
        });
    }
    let parsed =
        Nanos::parse_usd(amount).map_err(|error| Failure::usage(format!("{text}: {error}")))?;
    let nanos = u64::try_from(parsed.amount.get())
        .ok()
        .filter(|_| !parsed.rounded)
        .ok_or_else(|| {
            Failure::usage(format!(
                "{text}: a rate is 0 or more, with at most nine fraction digits"
            ))
        })?;
    Ok(Change::SetRate {
        provider,
        model,
        key,
        nanos,
    })
}
