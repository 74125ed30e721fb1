//! `spendfuse prices cost`: what a call costs, with its rate lines.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use spendfuse_domain::event::{Body, UsageFormat, decode};
use spendfuse_domain::row::PriceBasis;
use spendfuse_domain::units::Quantity;
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_pricing::rate::Billable;
use spendfuse_pricing::{Explained, Line, Pricer};

use super::super::output::{self, Side, dollars, grouped, print_table, table};
use super::book::BookArgs;
use super::{Failure, rate_text};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct CostArgs {
    /// Provider as the app names it; may be left out
    #[arg(long, default_value = "")]
    provider: String,
    /// Model as the app names it
    #[arg(long)]
    model: String,
    /// The provider's usage object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    usage: String,
    /// How to read it: spendfuse, otel, openai.chat, openai.responses, anthropic.messages, gemini,
    /// bedrock.converse, gemini.interactions, cohere
    #[arg(long, value_name = "FORMAT", default_value = "spendfuse")]
    format: String,
    /// Units, such as '{"web_search_calls":"2"}'
    #[arg(long, value_name = "JSON")]
    units: Option<String>,
    /// Service tier: default, batch, flex, priority
    #[arg(long, default_value = "")]
    tier: String,
    /// Account, for pricing.price_multiplier
    #[arg(long, default_value = "")]
    account: String,
    /// At the rates of this time (RFC 3339); now if not given
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    #[command(flatten)]
    book: BookArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &CostArgs) -> Result<ExitCode, Failure> {
    let at = match &args.at {
        Some(text) => UnixMillis::parse_rfc3339(text).map_err(|error| {
            Failure::usage(format!(
                "--at {text}: {error}; write a time such as 2026-11-22T10:15:30Z"
            ))
        })?,
        None => output::now(),
    };
    let event_json = event_json(args, at)?;
    let event = decode(event_json.as_bytes(), &[], UnixMillis(i64::MAX)).map_err(|rejection| {
        let detail = rejection
            .detail
            .replace("data.usage_format", "--format")
            .replace("usage_format", "format")
            .replace("data.", "--");
        Failure::usage(detail)
    })?;
    let Body::Usage(call) = &event.body else {
        unreachable!("the event was made as a usage event")
    };
    let policy = settings.pricing();
    let book = args.book.open(settings)?;
    let version = book.version().to_owned();
    let mut pricer = Pricer::new(book, Arc::new(policy));
    let explained = pricer
        .explain(&args.provider, &args.account, call, &args.model, at)
        .map_err(Failure::work)?;
    let flags = {
        let mut flags = event.flags;
        flags.insert(explained.priced.flags);
        flags.names().collect::<Vec<_>>()
    };
    if args.json {
        let mut told = explained_json(&explained, &version, &flags);
        told["unread"] = json!(call.unread);
        output::json(&told);
    } else {
        print(args, &explained, &version, &flags);
        if let Some(path) = &call.unread {
            output::line(format!(
                "not read: usage.{path}, which looks like something that is billed"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The event that an app would send, so that usage is read as the meter reads it.
fn event_json(args: &CostArgs, at: UnixMillis) -> Result<String, Failure> {
    if UsageFormat::from_name(&args.format).is_none() {
        let known: Vec<&str> = UsageFormat::ALL.iter().map(|one| one.name()).collect();
        return Err(Failure::usage(format!(
            "--format {}: use one of {}",
            args.format,
            known.join(", ")
        )));
    }
    let raw = |name: &str, text: &str| {
        RawValue::from_string(text.to_owned())
            .map_err(|error| Failure::usage(format!("--{name} is not JSON: {error}")))
    };
    let usage = raw("usage", &args.usage)?;
    let units = raw("units", args.units.as_deref().unwrap_or("null"))?;
    let text = |value: &str| Value::from(value).to_string();
    Ok(format!(
        r#"{{"specversion":"1.0","type":"spendfuse.usage","source":"prices","id":"cost","time":{},"data":{{"workspace":"none","provider":{},"model":{},"account":{},"service_tier":{},"usage_format":{},"usage":{usage},"units":{units}}}}}"#,
        text(&at.to_string()),
        text(&args.provider),
        text(&args.model),
        text(&args.account),
        text(&args.tier),
        text(&args.format),
    ))
}

fn print(args: &CostArgs, explained: &Explained, version: &str, flags: &[&str]) {
    let priced = &explained.priced;
    let name = match args.provider.as_str() {
        "" => args.model.clone(),
        provider => format!("{provider}/{}", args.model),
    };
    output::line(format!("{name}: {}", dollars(priced.parts.total())));
    let charged = explained
        .charged_as
        .as_ref()
        .map(|(provider, model)| format!("{provider}/{model}"));
    let parts_at_ceiling = "; what the model has no rate for is at a ceiling";
    output::line(match (priced.basis, charged, explained.how) {
        (PriceBasis::Reported, _, _) => "price    as reported by the app".to_owned(),
        (PriceBasis::Ceiling, Some(found), Some(how)) => {
            format!("price    {found} ({}){parts_at_ceiling}", how.name())
        }
        (PriceBasis::Ceiling, Some(dearest), None) => {
            format!("price    unknown: at a ceiling, the rates of {dearest}")
        }
        (PriceBasis::Ceiling, None, _) => "price    unknown: at the configured ceiling".to_owned(),
        (PriceBasis::Book, Some(found), Some(how)) => format!("price    {found} ({})", how.name()),
        (PriceBasis::Book, found, _) => format!("price    {}", found.unwrap_or_default()),
    });
    output::line(format!("book     {version}"));
    if !flags.is_empty() {
        output::line(format!("flags    {}", flags.join(", ")));
    }
    if explained.lines.is_empty() {
        output::line("nothing is charged: no tokens and no units");
        return;
    }
    output::line("");
    let mut rows = table([
        ("WHAT", Side::Left),
        ("QUANTITY", Side::Right),
        ("RATE", Side::Right),
        ("AMOUNT", Side::Right),
        ("NOTE", Side::Left),
    ]);
    for line in &explained.lines {
        rows.add_row([
            line.billable.name().to_owned(),
            quantity_text(line),
            rate_text(line.billable, line.rate),
            dollars(line.amount()),
            line.note.clone(),
        ]);
    }
    print_table(&rows);
}

fn quantity_text(line: &Line) -> String {
    match line.billable {
        Billable::Tokens(_) => grouped(line.quantity),
        Billable::Units(_) => Quantity(line.quantity).to_string(),
    }
}

fn explained_json(explained: &Explained, version: &str, flags: &[&str]) -> Value {
    let parts = &explained.priced.parts;
    let lines: Vec<Value> = explained
        .lines
        .iter()
        .map(|line| {
            let per = match line.billable {
                Billable::Tokens(_) => "million_tokens",
                Billable::Units(_) => "unit",
            };
            json!({
                "line": line.billable.name(),
                "quantity": quantity_text(line).replace(',', ""),
                "rate_usd": Nanos::new(i128::from(line.rate)).to_string(),
                "per": per,
                "amount_usd": line.amount().to_string(),
                "note": line.note,
            })
        })
        .collect();
    let charged_as = explained
        .charged_as
        .as_ref()
        .map(|(provider, model)| json!({"provider": provider, "model": model}));
    json!({
        "cost_usd": parts.total(),
        "parts_usd": {
            "input": parts.input,
            "cache_read": parts.cache_read,
            "cache_write": parts.cache_write,
            "output": parts.output,
            "units": parts.units,
        },
        "priced": explained.priced.basis.name(),
        "charged_as": charged_as,
        "how": explained.how.map(|how| how.name()),
        "flags": flags,
        "price_version": version,
        "lines": lines,
    })
}
