//! Rows of the tables `spend`, one counted entry each, and `budget_windows`.

use smallvec::SmallVec;

use crate::amount::Amount;
use crate::budget::{Budget, Spend};
use crate::event::{Body, Event};
use crate::money::Nanos;
use crate::time::UnixMillis;
use crate::tokens::TokenClasses;
use crate::units::{Quantity, UnitKind};
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

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Book, Self::Reported, Self::Ceiling];
        all.into_iter().find(|one| one.name() == name)
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

/// What an entry counted, as far as another one may change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    /// Model calls: 1, or 0 for what is none.
    pub calls: i8,
    pub tokens: TokenClasses,
    /// Kinds and their quantities, ascending, without zeros.
    pub units: SmallVec<[(UnitKind, Quantity); 2]>,
    pub tool_calls: u32,
    pub reported_cost: Nanos,
    pub cost: CostParts,
}

impl Counts {
    /// Those of an event that costs `cost`.
    pub fn of(event: &Event<'_>, cost: CostParts) -> Self {
        let Body::Usage(call) = &event.body else {
            return Self::default();
        };
        Self {
            calls: 1,
            tokens: call.tokens,
            units: call.units.entries.clone(),
            tool_calls: call.tool_calls,
            reported_cost: call.reported_cost.unwrap_or_default(),
            cost,
        }
    }

    /// What they are for budgets.
    pub fn spend(&self) -> Spend {
        let one = Spend::of_call(self.cost.total(), self.tokens.total());
        Spend {
            calls: self.calls.into(),
            ..one
        }
    }
}

/// What an entry amends another one by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AmendedBy {
    /// An event of the same identity.
    #[default]
    Event,
    /// A correction: its event is what stands from now on.
    Correction,
    /// A correction that takes everything back: its event says against whom, and counts nothing.
    TakingBack,
    /// A re-rating: the same call at another price.
    Rerate,
    /// A re-rating that takes everything back from where its price came from until now.
    RerateTakingBack,
}

impl AmendedBy {
    /// The value of column `kind`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Event | Self::Correction | Self::TakingBack => "correction",
            Self::Rerate | Self::RerateTakingBack => "rerate",
        }
    }

    /// Whether nothing is counted in the place of what is taken back.
    pub fn takes_back(self) -> bool {
        matches!(self, Self::TakingBack | Self::RerateTakingBack)
    }
}

/// The entry that another one amends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amended<'a> {
    /// `id` of its event.
    pub id: &'a str,
    /// Where it was counted, in this set of topics.
    pub address: MeterAddress,
    /// What stands for it until now.
    pub counts: Counts,
    /// By what.
    pub by: AmendedBy,
}

impl Amended<'_> {
    /// Whether a correction amends it: then the row's origin is a record of the corrections topic.
    pub fn is_corrected(&self) -> bool {
        self.by != AmendedBy::Event
    }
}

/// One row of `spend`. Everything that the event itself says is in [`event`](Self::event).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SpendRow<'a> {
    pub event: &'a Event<'a>,
    /// The entry that it amends. Columns then hold how much more its event is than what stood for
    /// that entry.
    pub amends: Option<&'a Amended<'a>>,
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
    /// What was spent before the count began, as the account has it: contained in the other sums. A
    /// later line supersedes it.
    Opening,
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
            Self::Opening => "opening",
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
