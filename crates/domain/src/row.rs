//! Rows of the tables `spend`, one counted entry each, and `budget_windows`.

use crate::amount::Amount;
use crate::budget::{Budget, Spend};
use crate::event::Event;
use crate::money::Nanos;
use crate::time::UnixMillis;
use crate::window::Window;

/// What a call cost, in parts that add up exactly to [`total`](Self::total).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CostParts {
    pub input: Nanos,
    pub cache_read: Nanos,
    pub cache_write: Nanos,
    pub output: Nanos,
    pub units: Nanos,
}

impl CostParts {
    /// The whole cost.
    pub fn total(&self) -> Nanos {
        self.input + self.cache_read + self.cache_write + self.output + self.units
    }
}

/// Where a price came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PriceBasis {
    /// From the price book.
    #[default]
    Book,
    /// The app's own figure (`trust_reported_cost`).
    Reported,
    /// No price known: the ceiling.
    Ceiling,
}

impl PriceBasis {
    /// The value of column `priced`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Book => "book",
            Self::Reported => "reported",
            Self::Ceiling => "ceiling",
        }
    }
}

/// Where an event was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether the event came by `usage.rerouted`; the coordinates below are always those of the
    /// topic where it first arrived.
    pub rerouted: bool,
    /// Partition of the usage topic.
    pub partition: u32,
    /// Offset in that partition.
    pub offset: i64,
    /// When the broker accepted it there.
    pub arrival: UnixMillis,
}

/// Which counted entry this is: its place in the order of counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterAddress {
    /// Partition of the meter.
    pub partition: u32,
    /// Number of the commit in that partition.
    pub seq: u64,
    /// Place within the commit.
    pub index: u32,
}

/// One row of `spend`. Everything that the event itself says is in [`event`](Self::event).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SpendRow<'a> {
    pub event: &'a Event<'a>,
    pub cost: CostParts,
    pub priced: PriceBasis,
    /// Version of the price book; empty for revenue.
    pub price_version: &'a str,
    /// The entry of the price book that was used, where it is not the model itself.
    pub priced_as: &'a str,
    /// Why the call cost what it did, in a line.
    pub price_detail: &'a str,
    /// Offset in the budgets topic up to which budgets were known when it was counted.
    pub budget_version: u64,
    /// Flags of the event and of its pricing.
    pub flags: crate::event::Flags,
    pub origin: Origin,
    pub address: MeterAddress,
}

/// What a line of table `budget_windows` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowLineKind {
    /// State of a running window: a later line supersedes it.
    Spent,
    /// Final sum of a window whose grace has passed.
    Close,
    /// Spend that no account holds: it came after the close, or there was no room for an
    /// account. It adds to the others.
    Late,
}

impl WindowLineKind {
    /// The value of column `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spent => "spent",
            Self::Close => "close",
            Self::Late => "late",
        }
    }
}

/// One row of `budget_windows`: a window's spend at some time.
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

impl WindowLine {
    /// A line of `budget`, written at `at`.
    pub fn new(
        kind: WindowLineKind,
        budget: &Budget,
        scope: &str,
        window: &Window,
        spend: Spend,
        at: UnixMillis,
    ) -> Self {
        Self {
            kind,
            budget: budget.id.to_string(),
            scope: scope.to_owned(),
            window: window.clone(),
            spend,
            limit: budget.limit,
            at,
        }
    }
}
