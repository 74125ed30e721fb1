//! What was counted of a call, and stands for it until an event tells of more.

use spendfuse_domain::Nanos;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Call, Event};
use spendfuse_domain::growth::ToldCall;
use spendfuse_domain::row::{CostParts, Counts, MeterAddress};

use super::Charge;
use super::estimated::Estimated;

/// What stands for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedCall {
    /// Where its first event was counted.
    pub(super) address: MeterAddress,
    pub(super) told: ToldCall,
    pub(super) cost: CostParts,
    /// The part of it that is charged at a ceiling.
    pub(super) at_ceiling: Nanos,
    /// Where all of it is counted, as long as it is an estimate.
    pub(super) estimated: Option<Box<Estimated>>,
    /// It does not grow any more: what is counted of it is a correction's affair.
    pub(super) has_ended: bool,
}

impl CountedCall {
    /// `call` of `event`, counted at `address`.
    pub(super) fn of(
        event: &Event<'_>,
        call: &Call<'_>,
        charge: &Charge<'_>,
        address: MeterAddress,
    ) -> Self {
        Self {
            address,
            told: ToldCall::of_call(event, call),
            cost: charge.cost,
            at_ceiling: charge.at_ceiling,
            estimated: Estimated::of(event),
            has_ended: false,
        }
    }

    /// What it is for budgets, and the part of it at a ceiling.
    pub(super) fn spend(&self) -> (Spend, Nanos) {
        let spend = Spend::of_call(self.cost.total(), self.told.tokens.total());
        (spend, self.at_ceiling)
    }

    /// How much more it is than `before`.
    pub(super) fn beside(&self, before: &Self) -> (Spend, Nanos) {
        let ((now, at_ceiling), (then, at_ceiling_then)) = (self.spend(), before.spend());
        (now - then, at_ceiling - at_ceiling_then)
    }

    /// What its rows hold in sum.
    pub(super) fn counts(self) -> Counts {
        Counts {
            calls: 1,
            tokens: self.told.tokens,
            units: self.told.units,
            tool_calls: self.told.tool_calls,
            reported_cost: self.told.reported_cost,
            cost: self.cost,
        }
    }
}
