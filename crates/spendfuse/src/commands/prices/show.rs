//! `spendfuse prices show [PATTERN]`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_domain::Nanos;
use spendfuse_pricing::PriceBook;
use spendfuse_pricing::book::ModelPrices;
use spendfuse_pricing::rate::{Billable, RateKey, TokenClass};

use super::super::found_wrong;
use super::super::output::{self, Side, dollars, grouped, print_table, table};
use super::book::{BookArgs, Opened};
use super::{Failure, rate_text};
use crate::settings::Settings;

/// Up to this many models are shown with every rate.
const IN_DETAIL: usize = 3;

#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Models whose provider/model name contains this text; `-` and `*` have no special meaning
    pattern: Option<String>,
    #[command(flatten)]
    book: BookArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let Opened { book, which } = args.book.open(settings)?;
    let Some(pattern) = &args.pattern else {
        print_book(&book, &which, args.json);
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = pattern.to_lowercase();
    let is_wanted = |prices: &&ModelPrices| model_name(prices).to_lowercase().contains(&wanted);
    let mut found: Vec<&ModelPrices> = book.models().iter().filter(is_wanted).collect();
    // The full name means one model, though others begin with it.
    if let Some(exact) = found
        .iter()
        .find(|prices| model_name(prices).to_lowercase() == wanted)
    {
        found = vec![*exact];
    }
    if args.json {
        let models: Vec<Value> = found
            .iter()
            .map(|prices| model_json(&book, prices))
            .collect();
        output::json(&json!({"version": book.version(), "models": models}));
    } else if found.is_empty() {
        output::line(format!(
            "no model of price book {} has `{pattern}` in its name; a call of such a model is \
             charged at a ceiling (see `spendfuse prices cost`)",
            book.version()
        ));
    } else if found.len() <= IN_DETAIL {
        for prices in &found {
            print_model(&book, prices);
        }
    } else {
        print_overview(&found);
    }
    Ok(if found.is_empty() {
        found_wrong()
    } else {
        ExitCode::SUCCESS
    })
}

fn print_book(book: &PriceBook, which: &str, as_json: bool) {
    let mut providers: BTreeMap<&str, u64> = BTreeMap::new();
    for prices in book.models() {
        *providers.entry(&prices.provider).or_default() += 1;
    }
    if as_json {
        output::json(&json!({
            "version": book.version(),
            "book": which,
            "sha256": book.sha256(),
            "source": book.source(),
            "models": book.models().len(),
            "aliases": book.aliases().len(),
            "providers": providers,
        }));
        return;
    }
    output::line(format!("version  {}, {which}", book.version()));
    output::line(format!("source   {}", book.source()));
    output::line(format!(
        "models   {} of {} providers, {} aliases",
        grouped(book.models().len() as u64),
        grouped(providers.len() as u64),
        grouped(book.aliases().len() as u64)
    ));
    output::line("");
    let mut largest: Vec<(&str, u64)> = providers.into_iter().collect();
    largest.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let mut rows = table([("PROVIDER", Side::Left), ("MODELS", Side::Right)]);
    for (name, count) in largest {
        rows.add_row([name.to_owned(), grouped(count)]);
    }
    print_table(&rows);
}

fn print_overview(found: &[&ModelPrices]) {
    let mut rows = table([
        ("MODEL", Side::Left),
        ("INPUT", Side::Right),
        ("CACHE READ", Side::Right),
        ("OUTPUT", Side::Right),
        ("OTHER RATES", Side::Right),
    ]);
    for prices in found {
        let columns = [TokenClass::Input, TokenClass::CacheRead, TokenClass::Output];
        let keys = columns.map(|class| RateKey::new(Billable::Tokens(class)));
        let mut cells = vec![model_name(prices)];
        let mut others = prices.rates.len();
        for key in &keys {
            let rate = prices.in_force(key, output::now());
            let days = prices.rates.keys().filter(|own| own.without_day() == *key);
            others -= days.count();
            cells.push(rate.map_or_else(
                || "-".to_owned(),
                |nanos| dollars(Nanos::new(i128::from(nanos))),
            ));
        }
        cells.push(grouped(others as u64));
        rows.add_row(cells);
    }
    print_table(&rows);
    output::line(format!(
        "{} models; US dollars per million tokens; the full name shows every rate",
        grouped(found.len() as u64)
    ));
}

fn print_model(book: &PriceBook, prices: &ModelPrices) {
    output::line(format!("{} ({})", model_name(prices), prices.mode));
    let mut rows = table([
        ("  RATE", Side::Left),
        ("US DOLLARS", Side::Right),
        ("SOURCE", Side::Left),
    ]);
    for (key, nanos) in &prices.rates {
        let (source, day) = book.origin(prices, key);
        rows.add_row([
            format!("  {key}"),
            rate_text(key.billable, *nanos),
            format!("{source} {day}").trim_end().to_owned(),
        ]);
    }
    print_table(&rows);
}

fn model_json(book: &PriceBook, prices: &ModelPrices) -> Value {
    let rates: serde_json::Map<String, Value> = prices
        .rates
        .iter()
        .map(|(key, nanos)| {
            let amount = Nanos::new(i128::from(*nanos)).to_string();
            (key.to_string(), Value::from(amount))
        })
        .collect();
    let records = prices.rates.iter();
    let records: Vec<Value> = records
        .map(|(key, nanos)| record_json(book, prices, key, *nanos))
        .collect();
    json!({
        "provider": prices.provider, "model": prices.model, "mode": prices.mode, "rates_usd": rates,
        "rates": records,
    })
}

/// One rate with all that the book knows of it.
fn record_json(book: &PriceBook, prices: &ModelPrices, key: &RateKey, nanos: u64) -> Value {
    let (source, day) = book.origin(prices, key);
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let from = (key.from.0 != 0).then(|| key.from.to_string());
    json!({
        "rate": key.to_string(),
        "usd": Nanos::new(i128::from(nanos)).to_string(),
        "source": or_null(source),
        "date": or_null(day),
        "effective_from": from,
        "effective_to": prices.effective_to(key).map(|to| to.to_string()),
    })
}

/// Provider and model as people write them.
pub fn model_name(prices: &ModelPrices) -> String {
    format!("{}/{}", prices.provider, prices.model)
}
