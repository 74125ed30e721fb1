//! `spendfuse prices sync`: a new version where a source's prices changed, once or for ever.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_bus::Shutdown;
use spendfuse_domain::Nanos;
use spendfuse_pricing::PriceBook;
use spendfuse_pricing::book::{Jump, Renewal};

use super::super::output::{self, counted, grouped};
use super::super::{found_wrong, rerate};
use super::download::download;
use super::import::{FileRead, combined};
use super::publish::publish;
use super::{Failure, book, rate_text};
use crate::metrics::{PRICE_BOOK_AGE, PRICES_WAITING};
use crate::settings::{Kind, Settings, shown};

/// How often the loader tells the age of the book.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Every processor has a new book within this time, milliseconds.
const IN_FORCE_WITHIN: i64 = 2 * 60_000;
/// Jumps that are printed one by one.
const MOST_SHOWN: usize = 20;

#[derive(Args, Debug)]
pub struct SyncArgs {
    /// A price file of LiteLLM, genai-prices or models.dev, or its http:// or https:// address; of
    /// several the first that knows a model says what it costs [default: pricing.sync_from]
    #[arg(long, value_name = "FILE|URL")]
    from: Vec<String>,
    /// Go on, and look again after so long: 24h, 30m
    #[arg(long, value_name = "TIME", value_parser = parse_every)]
    every: Option<Duration>,
    /// Take prices that jump by more than three times, and files that lost many models
    #[arg(long, conflicts_with = "every")]
    accept: bool,
    /// Leave ClickHouse's table prices alone
    #[arg(long)]
    no_clickhouse: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let parsed = <Duration as Kind>::read(text)?;
    match parsed >= Duration::from_secs(60) {
        true => Ok(parsed),
        false => Err("write a minute or more".to_owned()),
    }
}

/// Where the sources are that the configuration names.
fn configured(settings: &Settings) -> Vec<String> {
    let names = settings.values.pricing.sync_from.split(',');
    let names = names.map(str::trim).filter(|name| !name.is_empty());
    names.map(ToOwned::to_owned).collect()
}

/// What one look at the sources came to.
pub struct Synced {
    /// The version in force.
    pub version: String,
    /// Whether it is a new one.
    pub is_new: bool,
    /// Prices that wait.
    pub jumps: Vec<Jump>,
    /// Models that the sources have lost, where nothing was taken for it.
    pub lost: usize,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the pause is what --every asks for"
)]
pub fn run(settings: &Settings, args: &SyncArgs) -> Result<ExitCode, Failure> {
    let from = match args.from.is_empty() {
        true => configured(settings),
        false => args.from.clone(),
    };
    if from.is_empty() {
        return Err(Failure::usage(
            "no source; name one with --from, or set pricing.sync_from",
        ));
    }
    loop {
        let looked = once(settings, &from, args.accept, !args.no_clickhouse);
        let waits = match (looked, args.every) {
            (Ok((base, synced)), _) => {
                tell(args, &base, &synced);
                !synced.jumps.is_empty() || synced.lost > 0
            }
            (Err(failure), None) => return Err(failure),
            (Err(failure), Some(_)) => {
                output::warning(failure.to_string());
                false
            }
        };
        match args.every {
            Some(every) => std::thread::sleep(every),
            None if waits => return Ok(found_wrong()),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Looks at the sources once. Returns the book that was in force before, too.
pub fn once(
    settings: &Settings,
    from: &[String],
    accept: bool,
    clickhouse: bool,
) -> Result<(Arc<PriceBook>, Synced), Failure> {
    let (base, Renewal { draft, jumps, lost }) = look(settings, from, accept)?;
    let new = draft.map(|draft| draft.finish()).transpose();
    let new = new.map_err(Failure::work)?;
    let is_new = match &new {
        Some(new) => publish(settings, new, clickhouse)?,
        None => false,
    };
    let version = new.as_ref().map_or(base.version(), PriceBook::version);
    let synced = Synced {
        version: version.to_owned(),
        is_new,
        jumps,
        lost,
    };
    Ok((base, synced))
}

/// What of the sources that the configuration names waits for `--accept` now; `None` where it names
/// none. Nothing is changed.
pub fn waiting_now(settings: &Settings) -> Result<Option<Renewal>, Failure> {
    let from = configured(settings);
    if from.is_empty() {
        return Ok(None);
    }
    look(settings, &from, false).map(|(_, renewal)| Some(renewal))
}

/// The book in force, and what the sources make of it.
fn look(
    settings: &Settings,
    from: &[String],
    accept: bool,
) -> Result<(Arc<PriceBook>, Renewal), Failure> {
    let today = output::now().to_string();
    let today = today.split('T').next().unwrap_or_default();
    let mut read = Vec::new();
    for name in from {
        let is_address = name.starts_with("http://") || name.starts_with("https://");
        // As the book names it, which everybody may read.
        let named = shown("pricing.sync_from", name);
        read.push(FileRead {
            name: named.clone(),
            bytes: match is_address {
                true => download(name)?,
                false => book::read_file(Path::new(name))?,
            },
            text: named,
            date: today.to_owned(),
        });
    }
    let base = book::in_force(settings)?;
    let read = combined(read, None)?.draft;
    let renewed = base.renewed(read, accept, output::now());
    Ok((base, renewed.map_err(Failure::work)?))
}

fn tell(args: &SyncArgs, base: &PriceBook, synced: &Synced) {
    if args.json {
        let jumps: Vec<Value> = { synced.jumps.iter() }
            .map(|jump| {
                json!({
                    "provider": jump.provider, "model": jump.model, "rate": jump.rate.to_string(),
                    "old_usd": Nanos::new(i128::from(jump.before)).to_string(),
                    "new_usd": Nanos::new(i128::from(jump.after)).to_string(),
                })
            })
            .collect();
        output::json(&json!({
            "version": synced.version, "before": base.version(), "published": synced.is_new,
            "waiting": jumps, "lost_models": synced.lost,
        }));
        return;
    }
    output::line(match synced.is_new {
        true => format!("price book {} is in force", synced.version),
        false => format!("nothing changed; price book {} stays", synced.version),
    });
    if synced.lost > 0 {
        output::warning(format!(
            "the sources do not have {} any more, so nothing is taken; --accept takes it",
            counted(synced.lost as u64, "model")
        ));
    }
    for jump in synced.jumps.iter().take(MOST_SHOWN) {
        output::warning(waiting(jump));
    }
    let more = synced.jumps.len().saturating_sub(MOST_SHOWN);
    if more > 0 {
        output::warning(format!("{} more such prices wait", grouped(more as u64)));
    }
}

/// A price that waits, in a line.
fn waiting(jump: &Jump) -> String {
    let rate = |nanos: u64| rate_text(jump.rate.billable, nanos);
    format!(
        "{}/{} {}: {} -> {} is more than three times, so the model stays as it is; `spendfuse prices sync --accept` takes it",
        jump.provider,
        jump.model,
        jump.rate,
        rate(jump.before),
        rate(jump.after)
    )
}

/// The loader's task: looks at the sources that are configured, re-rates what was counted at a ceiling
/// where it is to, and tells how old the book is.
pub fn keep_up(settings: &Settings, shutdown: &Shutdown) {
    let from = configured(settings);
    let every = settings.values.pricing.sync_every;
    let rerates = settings.values.pricing.rerate_ceilings;
    // Of a job that was killed the rest is done after the next start.
    let mut rerated = None;
    let mut waited = every;
    loop {
        if !from.is_empty() && waited >= every {
            waited = Duration::ZERO;
            match once(settings, &from, false, true) {
                Ok((_, synced)) => {
                    tracing::info!(
                        version = synced.version,
                        is_new = synced.is_new,
                        "prices read"
                    );
                    let waiting_now = synced.jumps.len() + synced.lost;
                    let waiting_now = u32::try_from(waiting_now).unwrap_or(u32::MAX);
                    metrics::gauge!(PRICES_WAITING).set(f64::from(waiting_now));
                    if synced.lost > 0 {
                        tracing::warn!(models = synced.lost, "sources lost models; prices stay");
                    }
                    for jump in synced.jumps.iter().take(MOST_SHOWN) {
                        tracing::warn!("{}", waiting(jump));
                    }
                }
                Err(error) => tracing::warn!(%error, "prices were not read"),
            }
        }
        if let Ok(Some(at)) = book::published_at(settings) {
            // Until then some processor may still count by the book of before.
            let is_everywhere = output::now().since(at) > IN_FORCE_WITHIN;
            if rerates && rerated != Some(at) && rerate::ceilings(settings) && is_everywhere {
                rerated = Some(at);
            }
            let seconds = output::now().since(at) / 1000;
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            metrics::gauge!(PRICE_BOOK_AGE).set(f64::from(seconds));
        }
        if shutdown.wait(LOOK_EVERY) {
            return;
        }
        waited += LOOK_EVERY;
    }
}
