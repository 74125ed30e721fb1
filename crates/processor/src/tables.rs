//! The tables that every worker follows: budgets with detector rules, and price books.
//!
//! A follower thread per process keeps them; workers pick up a new version between batches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use spendfuse_engine::book::BudgetBook;
use spendfuse_pricing::{PriceBook, PricingPolicy};
use spendfuse_warehouse::RowFormat;

use crate::made_anew::Lookout;

/// What the workers of a process share.
#[derive(Debug)]
pub struct Tables {
    /// The budgets in force.
    pub budgets: ArcSwap<BudgetBook>,
    /// The price book in force.
    pub prices: ArcSwap<PriceBook>,
    /// What the operator decided about prices.
    pub policy: Arc<PricingPolicy>,
    /// How rows are written.
    pub row_format: RowFormat,
    /// Whether sidecars are told which of their reservations are settled: an installation of an older
    /// release has no topic for it.
    pub tells_settled: AtomicBool,
    /// Whether the meter reads corrections: the same holds of their topic.
    pub takes_corrections: AtomicBool,
    /// Whether the ledger writes down where counts begin, and asks for what was spent before:
    /// older programs cannot read that.
    pub computes_openings: bool,
    caught_up: AtomicBool,
    /// Every record of the budgets topic before this offset is in the budgets in force.
    budgets_end: AtomicU64,
    /// Versions of a budgets topic that is gone. Not all below them are: those of the new topic
    /// begin again.
    gone_versions: Mutex<BTreeSet<u64>>,
    lookout: OnceLock<Mutex<Lookout>>,
}

impl Tables {
    /// No budgets, and the prices that the binary carries.
    pub fn new(policy: PricingPolicy) -> Self {
        Self {
            budgets: ArcSwap::from_pointee(BudgetBook::default()),
            prices: ArcSwap::new(PriceBook::snapshot()),
            policy: Arc::new(policy),
            row_format: RowFormat::default(),
            tells_settled: AtomicBool::new(true),
            takes_corrections: AtomicBool::new(true),
            computes_openings: false,
            caught_up: AtomicBool::new(false),
            budgets_end: AtomicU64::new(0),
            gone_versions: Mutex::default(),
            lookout: OnceLock::new(),
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

    /// Whether the budgets in force are those of `version` or later ones. A log's last record may
    /// be a tombstone that compaction removed, so the version of what is left can be lower for ever
    /// than the end of the log that was read.
    pub fn know_budgets(&self, version: u64) -> bool {
        self.budgets.load().version >= version
            || self.budgets_end.load(Ordering::Acquire) >= version
            || locked(&self.gone_versions).contains(&version)
    }

    /// The same for somebody who cannot go on without: where they never come, because the topic was
    /// made anew, it is found out and said here, and the budgets of the new topic are used.
    pub fn need_budgets(&self, version: u64) -> bool {
        if !self.is_caught_up() {
            return false;
        }
        if self.know_budgets(version) {
            return true;
        }
        let Some(lookout) = self.lookout.get() else {
            return false;
        };
        let is_gone = locked(lookout).is_gone(version, &self.budgets.load());
        if is_gone {
            self.accept_loss(version);
        }
        is_gone
    }

    /// Who looks where the budgets topic ends.
    pub fn set_lookout(&self, lookout: Lookout) {
        // Of two followers of the same tables the first one looks.
        let _ = self.lookout.set(Mutex::new(lookout));
    }

    /// `version` is of a topic that is gone: nobody waits for it any more.
    pub(crate) fn accept_loss(&self, version: u64) {
        locked(&self.gone_versions).insert(version);
    }

    /// Told after the budgets are in force: who sees the end sees them.
    pub(crate) fn set_budgets_end(&self, end: u64) {
        self.budgets_end.store(end, Ordering::Release);
        // The new topic has these versions too by now.
        locked(&self.gone_versions).retain(|version| *version > end);
        if let Some(lookout) = self.lookout.get() {
            locked(lookout).reached(end);
        }
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
