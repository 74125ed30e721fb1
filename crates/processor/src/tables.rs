//! The tables that every worker follows: budgets with detector rules, and price books.
//!
//! A follower thread per process keeps them; workers pick up a new version between batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use spendfuse_domain::budget::BudgetsRecord;
use spendfuse_domain::finding::DetectorRules;
use spendfuse_engine::book::BudgetBook;
use spendfuse_pricing::book::records::Assembly;
use spendfuse_pricing::{PriceBook, PricingPolicy};

/// What the workers of a process share.
#[derive(Debug)]
pub struct Tables {
    /// The budgets in force.
    pub budgets: ArcSwap<BudgetBook>,
    /// The price book in force.
    pub prices: ArcSwap<PriceBook>,
    /// What the operator decided about prices.
    pub policy: Arc<PricingPolicy>,
    caught_up: AtomicBool,
}

impl Tables {
    /// No budgets, and the prices that the binary carries.
    pub fn new(policy: PricingPolicy) -> Self {
        Self {
            budgets: ArcSwap::from_pointee(BudgetBook::default()),
            prices: ArcSwap::new(PriceBook::snapshot()),
            policy: Arc::new(policy),
            caught_up: AtomicBool::new(false),
        }
    }

    /// Whether everything that the topics held at the start is known: nothing may be counted before.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// Both topics were read to the end that they had at the start.
    pub fn set_caught_up(&self) {
        self.caught_up.store(true, Ordering::Release);
    }
}

/// Builds budget books from the records of topic `budgets`.
#[derive(Debug, Default)]
pub struct BudgetTable {
    records: BTreeMap<String, BudgetsRecord>,
    version: u64,
    changed: bool,
}

impl BudgetTable {
    /// Takes a record. One that cannot be read leaves the budget as it was and is logged.
    pub fn accept(&mut self, offset: i64, key: &str, value: Option<&[u8]>) {
        self.version = offset.unsigned_abs() + 1;
        self.changed = true;
        match value.map(|value| BudgetsRecord::parse(key, value)) {
            None => {
                self.records.remove(key);
            }
            Some(Ok(record)) => {
                self.records.insert(key.to_owned(), record);
            }
            Some(Err(error)) => tracing::error!(offset, error = %error, "budget record ignored"),
        }
    }

    /// A new book where records came since the last one. Asked at the end of the log, so that an
    /// `apply`, which is one transaction, takes effect as a whole.
    pub fn take_book(&mut self) -> Option<BudgetBook> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut budgets = Vec::new();
        let mut rules = Vec::new();
        for record in self.records.values() {
            match record {
                BudgetsRecord::Budget(budget) => budgets.push(budget.clone()),
                BudgetsRecord::Detector(rule) => rules.push(rule.clone()),
            }
        }
        let rules = DetectorRules::new(rules);
        Some(BudgetBook::compile(self.version, budgets, rules))
    }
}

/// Builds price books from the records of topic `prices`; the one completed last is in force.
#[derive(Debug, Default)]
pub struct PriceTable {
    assembly: Assembly,
}

impl PriceTable {
    /// Takes a record; returns a book that it completes.
    pub fn accept(&mut self, key: &str, value: &[u8]) -> Option<PriceBook> {
        match self.assembly.accept(key, value) {
            Ok(book) => book,
            Err(error) => {
                tracing::error!(key, error = %error, "price record ignored");
                None
            }
        }
    }
}
