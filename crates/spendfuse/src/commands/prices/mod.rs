//! `spendfuse prices import|show|diff|set|sync|cost|explain`.

pub mod book;
mod cost;
mod diff;
mod download;
mod expired;
mod import;
mod publish;
mod set;
mod show;
pub mod sync;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use spendfuse_domain::Nanos;
use spendfuse_pricing::rate::Billable;

use super::output::dollars;
use super::{Failure, kafka};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct PricesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Read price files of LiteLLM, genai-prices or models.dev and put them into force as a new
    /// version, or write it to a file
    #[command(
        after_help = "Examples:\n  spendfuse prices import model_prices_and_context_window.json\n  spendfuse prices import model_prices_and_context_window.json \\\n    --out prices.jsonl\n  spendfuse prices import litellm.json genai-prices.json models.dev.json \\\n    --date 2026-11-22 --date 2026-11-20 --date 2026-11-25\n\nOf several files the first that knows a model says what it costs. A later one adds models, and\nwhere it agrees on what plain input and output cost, rates and days that those before it do not\nhave."
    )]
    Import(import::ImportArgs),
    /// Show the price book, or the models whose provider/model name contains PATTERN
    #[command(
        after_help = "Examples:\n  spendfuse prices show\n  spendfuse prices show openai/gpt-4o\n  spendfuse prices show claude --book snapshot"
    )]
    Show(show::ShowArgs),
    /// Show the differences of two price books, of two sources or of two days
    #[command(
        after_help = "Examples:\n  spendfuse prices diff snapshot topic\n  spendfuse prices diff snapshot prices.jsonl\n  spendfuse prices diff litellm.json genai-prices.json --in topic\n  spendfuse prices diff topic@2026-10-01 topic\n\nA book is `snapshot` (inside this program), `topic` (in force), a version in the topic, or a file:\none that `prices import --out` wrote, or a source's. With `@DAY` behind it, it has the rates of\nthat day alone, and a book without a day beside it those of today."
    )]
    Diff(diff::DiffArgs),
    /// Change rates: a new version, made of the one in force and the changes
    #[command(
        after_help = "Examples:\n  spendfuse prices set openai/gpt-4o input=2.50 output=10.00\n  spendfuse prices set acme/house-model input=0.10 output=0.40 output:batch=0.20\n  spendfuse prices set /gpt-99 input=1.00 output=4.00\n  spendfuse prices set openai/gpt-4o input:flex=none\n\nAmounts are US dollars per million tokens, or per unit. Rates are named as in `prices show`."
    )]
    Set(set::SetArgs),
    /// Read the sources again: a new version where prices changed, but for jumps of more than three times
    #[command(
        after_help = "Examples:\n  spendfuse prices sync --from https://prices.example.com/litellm.json\n  spendfuse prices sync --from litellm.json --from genai-prices.json --every 24h\n  spendfuse prices sync --from litellm.json --accept\n\nWhat `prices set` set stays. Exit code 1: some prices wait for --accept. The loader does the\nsame by itself where pricing.sync_from is set."
    )]
    Sync(sync::SyncArgs),
    /// Show what a call costs and why, line by line; does without Kafka where none answers
    #[command(
        after_help = "Examples:\n  spendfuse prices cost --provider openai --model gpt-4o --format openai.chat \\\n    --usage '{\"prompt_tokens\":1200,\"completion_tokens\":380,\n      \"prompt_tokens_details\":{\"cached_tokens\":800}}'\n  spendfuse prices cost --model claude-sonnet-4-5 \\\n    --usage '{\"input_tokens\":1000,\"output_tokens\":200}' \\\n    --units '{\"web_search_calls\":\"2\"}' --tier batch"
    )]
    Cost(cost::CostArgs),
    /// Show why events cost what they do, in the words of their rows' price_detail, as `cost` does
    #[command(
        after_help = "Examples:\n  spendfuse prices explain event.json\n  spendfuse prices explain events.ndjson --book snapshot --json\n  spendfuse prices explain --model gpt-4o --usage '{\"input_tokens\":1000}' \\\n    --tier batch"
    )]
    Explain(cost::CostArgs),
}

pub fn run(settings: &Settings, args: &PricesArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::Import(args) => import::run(settings, args),
        Action::Show(args) => show::run(settings, args),
        Action::Diff(args) => diff::run(settings, args),
        Action::Set(args) => set::run(settings, args),
        Action::Sync(args) => sync::run(settings, args),
        Action::Cost(args) | Action::Explain(args) => cost::run(settings, args),
    }
}

/// A rate for people: `$2.50 per 1M`, `$0.01 each`.
fn rate_text(billable: Billable, nanos: u64) -> String {
    let amount = dollars(Nanos::new(i128::from(nanos)));
    match billable {
        Billable::Tokens(_) => format!("{amount} per 1M"),
        Billable::Units(_) => format!("{amount} each"),
    }
}
