//! The ledger's own total: its accounts, restored from its changelog as a restarted ledger does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use spendfuse_bus::{KafkaConfig, read_ranges, topic_ranges};
use spendfuse_domain::{BudgetId, Nanos, UnixMillis, Window, WindowKind};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::ledger::{AccountKey, Ledger, LedgerConfig, PUBLISH_RATE};

use crate::error::DemoError;

const PATIENCE: Duration = Duration::from_secs(15);
/// The budget that counts everything, see `budgets.yaml`.
const EVERYTHING: &str = "everything";

/// What the budget that counts everything has counted; zero where nothing.
///
/// # Errors
/// Where the changelog cannot be read.
pub fn total(kafka: &KafkaConfig, changelog: &str, partitions: u32) -> Result<Nanos, DemoError> {
    let ranges = topic_ranges(kafka, changelog, None, PATIENCE)?;
    let mut ledgers: Vec<Ledger> = (0..partitions)
        .map(|partition| {
            let config = LedgerConfig {
                partition,
                partitions,
                grace_millis: 0,
                publish_rate: PUBLISH_RATE,
                account_capacity: 10_000_000,
            };
            Ledger::new(config, Arc::new(BudgetBook::default()))
        })
        .collect();
    let mut failed = None;
    read_ranges(kafka, changelog, &ranges, PATIENCE, &mut |record| {
        let ledger = ledgers.get_mut(record.partition as usize);
        let key = record.key.unwrap_or_default();
        // Records of the runner itself begin otherwise.
        let is_account = key.starts_with(b"account|");
        let restored = match ledger {
            Some(ledger) if is_account => ledger.restore(key, record.value),
            _ => Ok(()),
        };
        match restored {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error.to_string());
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(DemoError::Ledger(error));
    }
    let window = Window::containing(WindowKind::Lifetime, &TimeZone::UTC, UnixMillis(0));
    let key = AccountKey {
        budget: BudgetId::new(EVERYTHING).expect("a valid id"),
        scope: "*".to_owned(),
        start: window.start,
    };
    let mut sum = Nanos::ZERO;
    for ledger in &mut ledgers {
        ledger.restored();
        sum += ledger
            .account(&key)
            .map_or(Nanos::ZERO, |account| account.cost);
    }
    Ok(sum)
}
