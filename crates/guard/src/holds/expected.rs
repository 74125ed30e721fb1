//! What a call is expected to cost, and by which rule that is held.

use serde::Serialize;
use spendfuse_domain::Nanos;
use spendfuse_domain::budget::{ReserveRule, Spend};

use super::learned::Known;
use super::parts::MOST;
use super::reserve::NotReserved;

/// What is said about a call before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its caller's estimate; `None` where there is none.
    pub given: Option<Spend>,
    /// What it costs with its input, as far as that is known, and an answer of usual length; `None`
    /// where `given` says how long the answer can be, or nothing is known of the call.
    pub bound: Option<Spend>,
    /// What it costs with the longest answer of its model; `None` where the model is not known.
    pub most: Option<Spend>,
}

impl Expected {
    /// A call of which its caller says what it costs.
    pub fn given(spend: Spend) -> Self {
        Self {
            given: Some(spend),
            ..Self::default()
        }
    }
}

/// By what the amount was found that a call holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// What calls of its model and feature really cost.
    Learned,
    /// Its caller's estimate.
    Given,
    /// An answer of usual length.
    Bound,
    /// The longest answer.
    Max,
    /// A fixed amount.
    Fixed,
}

impl Basis {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Given => "given",
            Self::Bound => "bound",
            Self::Max => "max",
            Self::Fixed => "fixed",
        }
    }
}

/// What a call was to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// So much of every limit, each in its own unit.
    pub spend: Spend,
    /// Found so.
    pub basis: Basis,
}

/// What a call is to hold, by the rule of each budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    expected: Expected,
    known: Known,
    /// By the rule of budgets that say none.
    pub(crate) usual: Asked,
}

impl Amounts {
    pub(crate) fn new(
        expected: Expected,
        known: Known,
        rule: ReserveRule,
    ) -> Result<Self, NotReserved> {
        let usual = asked(rule, &expected, known.expected).ok_or(NotReserved::NoEstimate)?;
        let Expected { given, bound, most } = expected;
        let said = [given, bound, most].into_iter().flatten();
        let largest = said.map(|spend| spend.cost).max();
        if largest.is_some_and(|cost| cost > Nanos::new(MOST.into())) {
            return Err(NotReserved::TooMuch);
        }
        Ok(Self {
            expected,
            known,
            usual,
        })
    }

    /// The most that such a call is known to cost, or is said to.
    pub(crate) fn worst(&self) -> Spend {
        let Expected { given, bound, most } = self.expected;
        let said = [given, bound, most].into_iter().flatten();
        said.fold(self.known.worst, |worst, one| Spend {
            cost: worst.cost.max(one.cost),
            tokens: worst.tokens.max(one.tokens),
            calls: 1,
        })
    }

    /// By a budget's own rule, where it has one.
    pub(crate) fn by(&self, rule: Option<ReserveRule>) -> Asked {
        let own = rule.and_then(|rule| asked(rule, &self.expected, self.known.expected));
        own.unwrap_or(self.usual)
    }
}

/// `None` where nothing is known that the rule could go by.
fn asked(rule: ReserveRule, expected: &Expected, learned: Option<Spend>) -> Option<Asked> {
    let by = |spend: Option<Spend>, basis| spend.map(|spend| Asked { spend, basis });
    let Expected { given, bound, most } = *expected;
    let (given, bound) = (by(given, Basis::Given), by(bound, Basis::Bound));
    match rule {
        ReserveRule::Learned => by(learned, Basis::Learned).or(bound).or(given),
        ReserveRule::Given => given.or(bound),
        ReserveRule::Max => by(most, Basis::Max).or(bound).or(given),
        ReserveRule::Fixed(cost) => {
            let tokens = given.or(bound).map_or(0, |asked| asked.spend.tokens);
            let spend = Spend {
                cost,
                tokens,
                calls: 1,
            };
            by(Some(spend), Basis::Fixed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dollars(dollars: i64) -> Spend {
        Spend {
            cost: Nanos::from_dollars(dollars),
            tokens: 0,
            calls: 1,
        }
    }

    #[test]
    fn each_rule_goes_by_what_it_says_or_else_by_what_there_is() {
        let all = Expected {
            given: Some(dollars(1)),
            bound: Some(dollars(2)),
            most: Some(dollars(3)),
        };
        let (none, given) = (Expected::default(), Expected::given(dollars(1)));
        let learned = Some(dollars(4));
        let known = |expected| Known {
            expected,
            worst: dollars(7),
        };
        let fixed = ReserveRule::Fixed(Nanos::from_dollars(5));
        for (rule, expected, learned, spend, basis) in [
            (ReserveRule::Learned, all, learned, 4, Basis::Learned),
            (ReserveRule::Learned, all, None, 2, Basis::Bound),
            (ReserveRule::Learned, given, None, 1, Basis::Given),
            (ReserveRule::Given, all, learned, 1, Basis::Given),
            (ReserveRule::Max, all, learned, 3, Basis::Max),
            (ReserveRule::Max, given, learned, 1, Basis::Given),
            (fixed, none, learned, 5, Basis::Fixed),
        ] {
            let amounts = Amounts::new(expected, known(learned), rule).unwrap();
            assert_eq!(amounts.worst().cost, dollars(7).cost);
            let spend = dollars(spend);
            assert_eq!(amounts.usual, Asked { spend, basis }, "{rule}");
            // A budget's own rule that nothing is known for gives way to the usual one.
            let own = amounts.by(Some(ReserveRule::Given));
            assert_eq!(
                own.basis,
                if expected == none {
                    basis
                } else {
                    Basis::Given
                }
            );
        }
        let nothing = Amounts::new(none, known(None), ReserveRule::Learned);
        assert_eq!(nothing.unwrap_err(), NotReserved::NoEstimate);
        let dear = Amounts::new(Expected::given(dollars(1_000_001)), known(learned), fixed);
        assert_eq!(dear.unwrap_err(), NotReserved::TooMuch);
    }
}
