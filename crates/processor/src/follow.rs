//! Keeps the tables up to date: follows the topics of budgets and prices.

use std::sync::Arc;

use spendfuse_bus::follower::{Follower, FollowerConfig, FollowerEvent};
use spendfuse_bus::{BusError, InputRecord, KafkaConfig};
use spendfuse_domain::Topics;

use crate::tables::{BudgetTable, PriceTable, Tables};

const BUDGETS: usize = 0;
const PRICES: usize = 1;

/// Follows both topics until the follower is dropped.
///
/// # Errors
/// [`BusError::Property`] for client settings that cannot be used.
pub fn follow_tables(
    kafka: &KafkaConfig,
    topics: &Topics,
    tables: Arc<Tables>,
) -> Result<Follower, BusError> {
    let config = FollowerConfig {
        kafka: kafka.clone(),
        name: "tables",
        topics: vec![topics.budgets.clone(), topics.prices.clone()],
        partition: None,
    };
    let mut following = Following {
        tables,
        budgets: BudgetTable::default(),
        prices: PriceTable::default(),
    };
    Follower::start(config, move |event| following.handle(event))
}

struct Following {
    tables: Arc<Tables>,
    budgets: BudgetTable,
    prices: PriceTable,
}

impl Following {
    fn handle(&mut self, event: FollowerEvent<'_>) {
        match event {
            FollowerEvent::Record(record) => self.take(&record),
            FollowerEvent::EndOfPartition { .. } => self.publish_budgets(),
            FollowerEvent::CaughtUp => {
                self.publish_budgets();
                self.tables.set_caught_up();
            }
            FollowerEvent::Reset => {
                self.budgets = BudgetTable::default();
                self.prices = PriceTable::default();
            }
            FollowerEvent::Failed(error) => {
                tracing::warn!(error = %error, "budgets and prices cannot be followed for now");
            }
        }
    }

    fn take(&mut self, record: &InputRecord<'_>) {
        let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
            tracing::error!(
                offset = record.offset,
                "record of budgets or prices without a key ignored"
            );
            return;
        };
        match record.topic_index {
            BUDGETS => self.budgets.accept(record.offset, key, record.value),
            _ => {
                debug_assert_eq!(record.topic_index, PRICES);
                let completed = record
                    .value
                    .and_then(|value| self.prices.accept(key, value));
                if let Some(book) = completed {
                    tracing::info!(version = book.version(), "price book in force");
                    self.tables.prices.store(Arc::new(book));
                }
            }
        }
    }

    fn publish_budgets(&mut self) {
        if let Some(book) = self.budgets.take_book() {
            tracing::info!(
                version = book.version,
                budgets = book.budgets.len(),
                "budgets in force"
            );
            self.tables.budgets.store(Arc::new(book));
        }
    }
}
