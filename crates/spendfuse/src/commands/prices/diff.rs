//! `spendfuse prices diff FROM TO`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_domain::Nanos;
use spendfuse_pricing::book::{RateChange, RateDifference};

use super::super::output::{self, Colour, grouped};
use super::{Failure, book, rate_text};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The older book
    from: String,
    /// The newer book
    to: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &DiffArgs) -> Result<ExitCode, Failure> {
    let from = book::named(settings, &args.from)?;
    let to = book::named(settings, &args.to)?;
    let differences = from.diff(&to);
    if args.json {
        let rates: Vec<Value> = differences.iter().map(difference_json).collect();
        output::json(&json!({"from": from.version(), "to": to.version(), "rates": rates}));
    } else {
        output::line(format!("{} -> {}", from.version(), to.version()));
        print(&differences);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints differences as a diff, and how many there are.
pub fn print(differences: &[RateDifference]) {
    let mut counts = [0_u64; 3];
    for difference in differences {
        let rate = |nanos: u64| rate_text(difference.key.billable, nanos);
        let RateDifference {
            provider,
            model,
            key,
            change,
        } = difference;
        let name = format!("{provider}/{model} {key}");
        let (place, line, colour) = match *change {
            RateChange::Added(new) => (0, format!("+ {name}: {}", rate(new)), Colour::Green),
            RateChange::Changed(old, new) => (
                1,
                format!("~ {name}: {} -> {}", rate(old), rate(new)),
                Colour::Yellow,
            ),
            RateChange::Removed(old) => (2, format!("- {name}: {}", rate(old)), Colour::Red),
        };
        counts[place] += 1;
        output::coloured_line(&line, colour);
    }
    let [added, changed, removed] = counts.map(grouped);
    output::line(format!(
        "{added} added, {changed} changed, {removed} removed"
    ));
}

fn difference_json(difference: &RateDifference) -> Value {
    let amount = |nanos: u64| Nanos::new(i128::from(nanos)).to_string();
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
