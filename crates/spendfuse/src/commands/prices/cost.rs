//! `spendfuse prices cost|explain`: what a call costs, why, and its rate lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use spendfuse_domain::event::{
    Body, EnvelopeDefaults, Event, MAX_EVENT_BYTES, Rejection, UsageFormat, decode,
};
use spendfuse_domain::units::Quantity;
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_pricing::rate::Billable;
use spendfuse_pricing::{Explained, Line, Pricer};

use super::super::found_wrong;
use super::super::ingest::read_line;
use super::super::output::{self, Side, dollars, grouped, print_table, table};
use super::book::{BookArgs, Opened};
use super::{Failure, rate_text};
use crate::settings::Settings;

/// What one call at a time is priced with.
struct Rules<'a> {
    settings: &'a Settings,
    pricer: Pricer,
    version: String,
    /// Which book it is, in words.
    which: String,
    as_json: bool,
}

#[derive(Args, Debug)]
pub struct CostArgs {
    /// Events as apps send them: a file with one a line, `-` for the input, or the JSON of one
    #[arg(value_name = "EVENT", conflicts_with_all = ["provider", "model", "usage", "format", "units", "tier", "account", "at"])]
    event: Option<String>,
    /// Provider as the app names it; may be left out
    #[arg(long, default_value = "")]
    provider: String,
    /// Model as the app names it
    #[arg(long, required_unless_present = "event")]
    model: Option<String>,
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
    let Opened { book, which } = args.book.open(settings)?;
    let mut rules = Rules {
        settings,
        version: book.version().to_owned(),
        which,
        pricer: Pricer::new(book, Arc::new(settings.pricing())),
        as_json: args.json,
    };
    match args.event.as_deref() {
        Some(json) if json.trim_start().starts_with('{') => {
            rules.explain_each(&mut json.replace(['\r', '\n'], " ").as_bytes())
        }
        Some("-") => rules.explain_each(&mut io::stdin().lock()),
        Some(path) => {
            let file = File::open(Path::new(path))
                .map_err(|error| Failure::usage(format!("{path}: {error}")))?;
            rules.explain_each(&mut BufReader::new(file))
        }
        None => rules.explain_one(args),
    }
}

impl Rules<'_> {
    /// The call that the flags describe.
    fn explain_one(&mut self, args: &CostArgs) -> Result<ExitCode, Failure> {
        let at = match &args.at {
            Some(text) => UnixMillis::parse_rfc3339(text).map_err(|error| {
                Failure::usage(format!(
                    "--at {text}: {error}; write a time such as 2026-11-22T10:15:30Z"
                ))
            })?,
            None => output::now(),
        };
        let event_json = event_json(args, at)?;
        let event =
            decode(event_json.as_bytes(), &[], UnixMillis(i64::MAX)).map_err(|rejection| {
                let detail = rejection
                    .detail
                    .replace("data.usage_format", "--format")
                    .replace("usage_format", "format")
                    .replace("data.", "--");
                Failure::usage(detail)
            })?;
        self.show(&event, None)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Events, one a line.
    fn explain_each(&mut self, input: &mut impl BufRead) -> Result<ExitCode, Failure> {
        let mut is_all_read = true;
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            // No event is longer; what is longer is refused as such and ends the reading.
            let most = 2 * MAX_EVENT_BYTES as u64;
            let read = io::Read::take(&mut *input, most).read_until(b'\n', &mut line);
            let read = read.map_err(|error| Failure::work(format!("line {number}: {error}")))?;
            if read == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let settings = self.settings;
            let defaults = EnvelopeDefaults {
                source: "prices",
                workspace: &settings.values.sidecar.default_workspace,
                now: output::now(),
            };
            // A bare object needs an id only to be sent.
            let shown = read_line(&line, &defaults, UnixMillis(i64::MAX), |event, _| {
                self.show(event, Some(number))
            });
            match shown {
                Ok(shown) => shown?,
                Err(rejection) => {
                    is_all_read = false;
                    self.show_rejected(number, &rejection);
                }
            }
        }
        Ok(match is_all_read {
            true => ExitCode::SUCCESS,
            false => found_wrong(),
        })
    }

    fn show_rejected(&self, number: u64, rejection: &Rejection) {
        let (reason, detail) = (rejection.reason.name(), &rejection.detail);
        if self.as_json {
            output::json(&json!({"line": number, "rejected": reason, "detail": detail}));
        } else {
            output::line(format!("line {number}: rejected: {reason}: {detail}"));
        }
    }

    /// `number` is the line that the event stands in.
    fn show(&mut self, event: &Event<'_>, number: Option<u64>) -> Result<(), Failure> {
        let who = &event.attribution;
        let Body::Usage(call) = &event.body else {
            output::line("no call: nothing is priced");
            return Ok(());
        };
        let explained = self
            .pricer
            .explain(&who.provider, &who.account, call, &who.model, event.time)
            .map_err(Failure::work)?;
        let mut flags = event.flags;
        flags.insert(explained.priced.flags);
        let flags: Vec<&str> = flags.names().collect();
        if self.as_json {
            let mut told = explained_json(&explained, &self.version, &flags);
            told["book"] = json!(self.which);
            told["unread"] = json!(call.rare.unread);
            if let Some(number) = number {
                told["line"] = json!(number);
                told["id"] = json!(event.id);
            }
            output::json(&told);
            return Ok(());
        }
        let name = match &*who.provider {
            "" => who.model.to_string(),
            provider => format!("{provider}/{}", who.model),
        };
        let book = format!("{}, {}", self.version, self.which);
        print(&name, &explained, &book, &flags);
        if let Some(path) = &call.rare.unread {
            output::line(format!(
                "not read: usage.{path}, which looks like something that is billed"
            ));
        }
        Ok(())
    }
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
        text(args.model.as_deref().unwrap_or_default()),
        text(&args.account),
        text(&args.tier),
        text(&args.format),
    ))
}

fn print(name: &str, explained: &Explained, book: &str, flags: &[&str]) {
    output::line(format!(
        "{name}: {}",
        dollars(explained.priced.parts.total())
    ));
    output::line(format!("price    {}", explained.detail));
    output::line(format!("book     {book}"));
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
        "price_detail": explained.detail,
        "how": explained.how.map(|how| how.name()),
        "flags": flags,
        "price_version": version,
        "lines": lines,
    })
}
