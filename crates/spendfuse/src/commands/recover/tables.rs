//! Budgets and prices of topics that are left for others.

use spendfuse_bus::{OutputRecord, log_ends};
use spendfuse_domain::Topics;

use super::super::Failure;
use super::super::kafka::{self, PATIENCE};
use super::super::output::counted;
use crate::settings::Settings;

/// Everything of these topics must be counted and loaded before others begin. `ids` begins the names of
/// those who count and load them.
pub fn must_be_at_its_end(settings: &Settings, old: &Topics, ids: &str) -> Result<(), Failure> {
    let groups = [
        ("meter", vec![&old.usage, &old.rerouted, &old.corrections]),
        ("ledger", vec![&old.deltas]),
        ("loader", vec![&old.rows, &old.rows_ledger]),
    ];
    for (group, topics) in groups {
        let group = format!("{ids}-{group}");
        for topic in topics {
            let ends = log_ends(&settings.kafka(), topic, PATIENCE);
            let mut ends = ends.map_err(|error| kafka::failure(settings, &error))?;
            let unread = kafka::unread(settings, &group, topic, &mut ends)?;
            if let Some((partition, records)) = unread.first() {
                return Err(Failure::work(format!(
                    "{topic} {partition} is not at its end: group {group} has {} to read. Stop the \
                     senders and wait for the old processor and loader first; what they have not \
                     counted and loaded would be left behind",
                    counted(*records, "record")
                )));
            }
        }
    }
    Ok(())
}

/// Copies budgets and prices as they are, their versions included. Returns how many records of each; 0
/// where these topics have their own.
pub fn take_over(
    settings: &Settings,
    old: &Topics,
    is_dry: bool,
) -> Result<(usize, usize), Failure> {
    let own = settings.topics();
    let mut taken = [0; 2];
    let tables = [(&old.budgets, &own.budgets), (&old.prices, &own.prices)];
    for (taken, (from, to)) in taken.iter_mut().zip(tables) {
        if !kafka::read_table(settings, to)?.is_empty() {
            continue;
        }
        let record = |(key, value): (String, Vec<u8>)| OutputRecord {
            topic: to.clone(),
            partition: 0,
            key: Some(key.into_bytes()),
            value: Some(value),
            headers: Vec::new(),
        };
        let records: Vec<_> = kafka::read_table(settings, from)?
            .into_iter()
            .map(record)
            .collect();
        *taken = records.len();
        if !is_dry {
            kafka::write_together(settings, "recover", &records)?;
        }
    }
    let [budgets, prices] = taken;
    Ok((budgets, prices))
}
