//! `spendfuse prices diff FROM TO`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_domain::Nanos;
use spendfuse_pricing::PriceBook;
use spendfuse_pricing::book::{OPERATOR, RateChange, RateDifference};

use super::super::output::{self, Colour, grouped};
use super::{Failure, book, rate_text};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The older book
    from: String,
    /// The newer book
    to: String,
    /// For each difference also what this book has, which is made of both, and by which rule
    #[arg(long = "in", value_name = "BOOK")]
    chosen: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &DiffArgs) -> Result<ExitCode, Failure> {
    let [from, to] = book::two(settings, [&args.from, &args.to])?;
    let chosen = args.chosen.as_deref();
    let chosen = chosen.map(|name| book::named(settings, name)).transpose()?;
    let compared = from.compare(&to);
    let (removed, added) = (compared.models_removed, compared.models_added);
    if args.json {
        let rates = compared.differences.iter();
        let rates: Vec<Value> = rates
            .map(|difference| {
                let mut told = difference_json(difference);
                if let Some(book) = &chosen {
                    let choice = Choice::of(book, difference);
                    told["chosen"] = choice.map_or(Value::Null, |choice| {
                        json!({"usd": amount(choice.nanos), "source": choice.source, "rule": choice.rule})
                    });
                }
                told
            })
            .collect();
        output::json(&json!({
            "from": from.version(), "to": to.version(),
            "models": {"in_both": compared.models_in_both, "only_in_from": removed, "only_in_to": added},
            "equal": compared.equal, "rates": rates,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    output::line(format!("{} -> {}", from.version(), to.version()));
    for difference in &compared.differences {
        let choice = chosen.as_ref();
        let choice = choice.and_then(|book| Choice::of(book, difference));
        let text = choice.map_or_else(String::new, |choice| choice.text(difference));
        print_one(difference, &text);
    }
    let models = [compared.models_in_both, removed, added].map(|count| grouped(count as u64));
    output::line(format!(
        "{}, {} equal; models: {} in both, {} only in the first, {} only in the second",
        summary(&compared.differences),
        grouped(compared.equal as u64),
        models[0],
        models[1],
        models[2],
    ));
    Ok(ExitCode::SUCCESS)
}

/// What a book that was made of both has, and why.
struct Choice {
    nanos: u64,
    source: String,
    rule: &'static str,
}

impl Choice {
    fn of(book: &PriceBook, difference: &RateDifference) -> Option<Self> {
        let (prices, _, _) = book.find(&difference.provider, &difference.model)?;
        let key = &difference.key;
        let nanos = *prices.rates.get(key)?;
        let (source, _) = book.origin(prices, key);
        let first = book.sources().first().map_or("", |source| &source.name);
        let rule = match prices.origins.rates.contains_key(key) {
            true if source == OPERATOR => "an operator set it",
            true => "added where the sources agree on plain input and output",
            false if source == first => "the first source that knows the model",
            false => "no source before it knows the model",
        };
        Some(Self {
            nanos,
            source: source.to_owned(),
            rule,
        })
    }

    fn text(&self, difference: &RateDifference) -> String {
        let rate = rate_text(difference.key.billable, self.nanos);
        let source = match self.source.as_str() {
            "" => String::new(),
            source => format!(" of {source}"),
        };
        format!("; taken: {rate}{source}, {}", self.rule)
    }
}

/// Prints differences as a diff, and how many there are.
pub fn print(differences: &[RateDifference]) {
    for difference in differences {
        print_one(difference, "");
    }
    output::line(summary(differences));
}

fn print_one(difference: &RateDifference, more: &str) {
    let rate = |nanos: u64| rate_text(difference.key.billable, nanos);
    let RateDifference {
        provider,
        model,
        key,
        change,
    } = difference;
    let name = format!("{provider}/{model} {key}");
    let (line, colour) = match *change {
        RateChange::Added(new) => (format!("+ {name}: {}", rate(new)), Colour::Green),
        RateChange::Changed(old, new) => (
            format!("~ {name}: {} -> {}", rate(old), rate(new)),
            Colour::Yellow,
        ),
        RateChange::Removed(old) => (format!("- {name}: {}", rate(old)), Colour::Red),
    };
    output::coloured_line(format!("{line}{more}"), colour);
}

fn summary(differences: &[RateDifference]) -> String {
    let mut counts = [0_u64; 3];
    for difference in differences {
        let place = match difference.change {
            RateChange::Added(_) => 0,
            RateChange::Changed(..) => 1,
            RateChange::Removed(_) => 2,
        };
        counts[place] += 1;
    }
    let [added, changed, removed] = counts.map(grouped);
    format!("{added} added, {changed} changed, {removed} removed")
}

fn amount(nanos: u64) -> String {
    Nanos::new(i128::from(nanos)).to_string()
}

/// A difference for programs.
pub fn difference_json(difference: &RateDifference) -> Value {
    let (old, new) = match difference.change {
        RateChange::Added(new) => (None, Some(amount(new))),
        RateChange::Changed(old, new) => (Some(amount(old)), Some(amount(new))),
        RateChange::Removed(old) => (Some(amount(old)), None),
    };
    json!({
        "provider": difference.provider,
        "model": difference.model,
        "rate": difference.key.to_string(),
        "old_usd": old,
        "new_usd": new,
    })
}
