//! What one commit of the ledger publishes.

use spendfuse_domain::Amount;
use spendfuse_domain::budget::{CompiledBudget, Spend};
use spendfuse_domain::finding::Finding;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::window::WindowLineKind;
use spendfuse_domain::{Nanos, UnixMillis, Window};

use crate::alert::Alert;
use crate::delta::DeltaEntry;

/// A line of table `budget_windows`.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowLine {
    /// What kind of line.
    pub kind: WindowLineKind,
    /// The budget's id.
    pub budget: String,
    /// Scope text.
    pub scope: String,
    /// The window.
    pub window: Window,
    /// The sums: so far, final, or of the late spend alone.
    pub spend: Spend,
    /// The limit.
    pub limit: Amount,
    /// When it was written.
    pub at: UnixMillis,
}

/// Everything that one commit publishes.
#[derive(Debug, Default)]
pub struct LedgerOutputs {
    /// State changes, in order; `None` = tombstone.
    pub changelog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Verdicts, in order; `None` = tombstone.
    pub blocklist: Vec<(String, Option<BlocklistEntry>)>,
    /// Those entries whose verdict changed, for the warehouse.
    pub verdict_changes: Vec<BlocklistEntry>,
    /// Findings, in order.
    pub findings: Vec<(String, Finding)>,
    /// Alerts for people.
    pub alerts: Vec<Alert>,
    /// Lines of `budget_windows`.
    pub window_lines: Vec<WindowLine>,
    /// Deltas that did not follow the ones before: exactly-once is broken somewhere.
    pub broken_links: u64,
    /// Sums that had no account, because there was no room for more.
    pub without_account: u64,
}

impl WindowLine {
    /// Spend that no account holds.
    pub(super) fn late(
        compiled: &CompiledBudget,
        entry: &DeltaEntry,
        window: &Window,
        now: UnixMillis,
    ) -> Self {
        let budget = &compiled.budget;
        debug_assert!(entry.cost >= Nanos::ZERO);
        Self {
            kind: WindowLineKind::Late,
            budget: budget.id.to_string(),
            scope: entry.scope.clone(),
            window: window.clone(),
            spend: entry.spend(),
            limit: budget.limit,
            at: now,
        }
    }
}
