//! What an operator changes while the system runs.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use spendfuse_domain::Nanos;
use spendfuse_tests::traffic::{MODEL, PROVIDER};

use crate::ledger::{Amendment, Ledger};
use crate::operator::Operator;
use crate::rows::{PriceBooks, Rates};
use crate::system::System;

pub const OPERATOR_PATIENCE: Duration = Duration::from_secs(120);
/// A command that takes a call back asks every part, and faults leave it little room: the last of them
/// succeed when all faults are over.
const CORRECTED_WITHIN: Duration = Duration::from_secs(1_200);

/// One of them.
pub enum Change {
    Budgets(String),
    Prices(Rates),
    Finalize,
    Void(usize),
    Amend(usize, Amendment),
}

/// Carries out what is told, one after the other; the price books that came of it.
pub fn operate(
    operator: &Operator,
    todo: &Receiver<Change>,
    ledger: &Ledger,
) -> Result<PriceBooks> {
    let mut made = Vec::new();
    while let Ok(change) = todo.recv() {
        match change {
            Change::Budgets(yaml) => operator.apply_budgets(&yaml, OPERATOR_PATIENCE)?,
            Change::Finalize => {
                operator.insist(&["finalize", "--yes"], OPERATOR_PATIENCE)?;
            }
            Change::Prices(rates) => {
                let names = ["input", "cache_read", "output"].into_iter().zip(&rates);
                let texts: Vec<String> = names
                    .map(|(name, rate)| format!("{name}={}", Nanos::new(*rate)))
                    .collect();
                let model = format!("{PROVIDER}/{MODEL}");
                let version = operator.set_prices(&model, &texts, OPERATOR_PATIENCE)?;
                made.push((version, rates));
            }
            Change::Void(call) => {
                operator.void(call, CORRECTED_WITHIN)?;
                ledger.voided(call);
            }
            Change::Amend(call, to) => {
                operator.amend(call, &to, CORRECTED_WITHIN)?;
                ledger.amended(call, to);
            }
        }
    }
    Ok(made)
}

/// The rates that the executable brings along, from table `prices`.
pub fn first_prices(system: &System) -> Result<PriceBooks> {
    let sql = format!(
        "SELECT price_version, line, toInt128(rate * 1000000000) FROM prices \
         WHERE provider = '{PROVIDER}' AND model = '{MODEL}' AND service_tier = 'default' \
         AND above_context_tokens = 0"
    );
    let rows = system.warehouse().rows(&sql);
    let rows = rows.map_err(|error| anyhow!(error))?;
    let version = rows.first().context("the model has a price")?[0].clone();
    let rate = |line: &str| -> Result<i128> {
        let row = rows.iter().find(|row| row[1] == line);
        Ok(row.context("the model has three rates")?[2].parse()?)
    };
    let rates = [rate("input")?, rate("cache_read")?, rate("output")?];
    Ok(vec![(version, rates)])
}
