//! By how much a limit may have been passed, from what the clients know.

use std::fmt;
use std::time::{Duration, Instant};

use spendfuse_domain::Nanos;

use super::client::{Call, End};

/// An event that is safe is in everybody's sums by then, whoever stands still meanwhile.
const UNDER_WAY: Duration = Duration::from_secs(4);

/// What `budgets status` says of a scope at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Printed {
    /// Spent, pending and reserved.
    pub(crate) comes_to: Nanos,
    pub(crate) bound: Nanos,
}

impl Printed {
    fn most(self, limit: Nanos) -> Nanos {
        self.comes_to.max(limit) + self.bound
    }

    /// The one that says that more may be spent.
    pub(crate) fn worse(self, other: Self, limit: Nanos) -> Self {
        match other.most(limit) > self.most(limit) {
            true => other,
            false => self,
        }
    }
}

/// What a customer has spent, and may have spent.
#[derive(Debug)]
pub struct Verdict {
    customer: String,
    limit: Nanos,
    spent: Nanos,
    /// By how much the limit may have been passed.
    bound: Nanos,
    /// What was printed that the customer might come to at most; nothing where nothing was.
    printed: Option<Nanos>,
}

impl Verdict {
    pub(crate) fn of(
        calls: &[Call],
        customer: String,
        limit: Nanos,
        alive: &[String],
        printed: Option<Printed>,
    ) -> Self {
        Self {
            limit,
            spent: cost_of(calls, &customer),
            bound: bound(calls, &customer, alive),
            printed: printed.map(|printed| printed.most(limit)),
            customer,
        }
    }

    /// Whether no more is spent than may be.
    pub fn is_right(&self) -> bool {
        let is_within = self.spent <= self.limit + self.bound;
        let is_as_printed =
            self.spent <= self.limit || self.printed.is_some_and(|most| self.spent <= most);
        is_within && is_as_printed
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            customer,
            limit,
            spent,
            bound,
            printed,
        } = self;
        let right = if self.is_right() { "right" } else { "WRONG" };
        let printed = printed.map_or_else(|| "nothing".to_owned(), |most| format!("${most}"));
        write!(
            formatter,
            "{customer}: {right}: ${spent} spent of ${limit}; it may be passed by ${bound}; printed: at most {printed}"
        )
    }
}

/// What a customer's calls have cost.
pub(crate) fn cost_of(calls: &[Call], customer: &str) -> Nanos {
    let own = calls.iter().filter(|call| call.customer == customer);
    own.filter_map(|call| match call.end {
        End::Counted(_) => Some(call.cost),
        End::UnderWay | End::Dead => None,
    })
    .sum()
}

/// Of the moment at which the last call was admitted: how much more than they held the calls cost that
/// were under way then, and all that those cost of which nobody held anything any more.
fn bound(calls: &[Call], customer: &str, alive: &[String]) -> Nanos {
    let own = || calls.iter().filter(|call| call.customer == customer);
    let Some(last) = own().map(|call| call.admitted_at).max() else {
        return Nanos::ZERO;
    };
    own().map(|call| exceeds(call, last, alive)).sum()
}

fn exceeds(call: &Call, last: Instant, alive: &[String]) -> Nanos {
    let End::Counted(at) = call.end else {
        return Nanos::ZERO;
    };
    if at + UNDER_WAY < last {
        return Nanos::ZERO;
    }
    let is_held = alive.contains(&call.incarnation) && at < call.held_until;
    match is_held {
        true => (call.cost - call.held).max(Nanos::ZERO),
        false => call.cost,
    }
}
