//! What was counted of a call, and stands for it until an event tells of more.

use spendfuse_domain::Nanos;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Body, Event};
use spendfuse_domain::growth::ToldCall;
use spendfuse_domain::row::{CostParts, Counts, MeterAddress};

/// What stands for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedCall {
    /// Where its first event was counted.
    pub(super) address: MeterAddress,
    pub(super) told: ToldCall,
    pub(super) cost: CostParts,
    /// The part of it that is charged at a ceiling.
    pub(super) at_ceiling: Nanos,
    pub(super) reported_cost: Nanos,
}

fn reported_cost(event: &Event<'_>) -> Nanos {
    let cost = match &event.body {
        Body::Usage(call) => call.reported_cost,
        _ => None,
    };
    cost.unwrap_or_default()
}

impl CountedCall {
    /// The call of `event`, counted at `address`, which costs `cost`, `at_ceiling` of it at a ceiling;
    /// `None` where it is no call.
    pub(super) fn of(
        event: &Event<'_>,
        (cost, at_ceiling): (CostParts, Nanos),
        address: MeterAddress,
    ) -> Option<Self> {
        Some(Self {
            address,
            told: ToldCall::of(event)?,
            cost,
            at_ceiling,
            reported_cost: reported_cost(event),
        })
    }

    /// What stands for a call that was corrected: what was counted of it is the correction's affair.
    pub(super) fn corrected() -> Self {
        Self {
            address: MeterAddress::default(),
            told: ToldCall::default(),
            cost: CostParts::default(),
            at_ceiling: Nanos::ZERO,
            reported_cost: Nanos::ZERO,
        }
    }

    /// Whether it is [`corrected`](Self::corrected): no commit has number 0.
    pub(super) fn is_corrected(&self) -> bool {
        self.address.seq == 0
    }

    /// What it is for budgets, and the part of it at a ceiling.
    pub(super) fn spend(&self) -> (Spend, Nanos) {
        let spend = Spend::of_call(self.cost.total(), self.told.tokens.total());
        (spend, self.at_ceiling)
    }

    /// How much more it is than `before`.
    pub(super) fn beside(&self, before: &Self) -> (Spend, Nanos) {
        let ((now, _), (then, _)) = (self.spend(), before.spend());
        let more = Spend {
            cost: now.cost - then.cost,
            tokens: now.tokens - then.tokens,
            calls: 0,
        };
        (more, self.at_ceiling - before.at_ceiling)
    }

    /// What its rows hold in sum.
    pub(super) fn counts(self) -> Counts {
        Counts {
            calls: 1,
            tokens: self.told.tokens,
            units: self.told.units,
            tool_calls: self.told.tool_calls,
            reported_cost: self.reported_cost,
            cost: self.cost,
        }
    }
}
