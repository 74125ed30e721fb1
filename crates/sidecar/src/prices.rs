//! The price book as the sidecar uses it: what accepted events and announced calls will cost.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwap;
use spendfuse_domain::{Body, Call, Event, Flags, TokenClasses, UnixMillis};
use spendfuse_pricing::book::ModelPrices;
use spendfuse_pricing::book::records::FollowedBooks;
use spendfuse_pricing::rate::{Billable, RateKey, TokenClass};
use spendfuse_pricing::{BookError, PriceBook, Priced, Pricer, PricingError, PricingPolicy};

/// The prices in force, which follow topic `spendfuse.prices`. Pricing takes no lock: each thread
/// has a pricer of its own, which remembers names.
#[derive(Clone)]
pub struct Prices {
    in_force: Arc<ArcSwap<Pricer>>,
    policy: Arc<PricingPolicy>,
}

thread_local! {
    /// This thread's pricer, and the one in force that it is a copy of.
    static OWN: RefCell<Option<(Arc<Pricer>, Pricer)>> = const { RefCell::new(None) };
}

/// A call that has not happened yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Announced<'a> {
    pub(crate) provider: &'a str,
    pub(crate) account: &'a str,
    pub(crate) model: &'a str,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

/// What a model costs.
pub(crate) struct PerMillion {
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) input: f64,
    pub(crate) output: f64,
}

impl Prices {
    /// The prices that the binary carries, under `policy`.
    pub fn new(policy: PricingPolicy) -> Self {
        let policy = Arc::new(policy);
        let book = PriceBook::snapshot();
        book.prepare();
        let pricer = Pricer::new(book, Arc::clone(&policy));
        Self {
            in_force: Arc::new(ArcSwap::from_pointee(pricer)),
            policy,
        }
    }

    /// Puts another book in force.
    pub fn activate(&self, book: impl Into<Arc<PriceBook>>) {
        let book = book.into();
        book.prepare();
        let pricer = Pricer::new(book, Arc::clone(&self.policy));
        self.in_force.store(Arc::new(pricer));
    }

    /// What the meter will charge for `event`, by the book in force here; `None` where it is not a
    /// call.
    pub(crate) fn price(&self, event: &Event<'_>) -> Option<Result<Priced, PricingError>> {
        let Body::Usage(call) = &event.body else {
            return None;
        };
        let who = &event.attribution;
        Some(self.with_own(|pricer| {
            pricer.price(&who.provider, &who.account, call, &who.model, event.time)
        }))
    }

    /// What an announced call costs at most.
    pub(crate) fn estimate(
        &self,
        call: Announced<'_>,
        now: UnixMillis,
    ) -> Result<Priced, PricingError> {
        let tokens = TokenClasses {
            input: call.input_tokens,
            output: call.output_tokens,
            ..TokenClasses::default()
        };
        let announced = Call {
            tokens,
            ..Call::default()
        };
        self.with_own(|pricer| {
            pricer.price(call.provider, call.account, &announced, call.model, now)
        })
    }

    /// Whether the book has this model at this provider.
    pub(crate) fn has(&self, provider: &str, model: &str) -> bool {
        self.in_force.load().book().find(provider, model).is_some()
    }

    /// Every model that is charged by the token: its provider and name, and what a million tokens of
    /// input and of output cost now, dollars.
    pub(crate) fn per_million(&self, now: UnixMillis) -> Vec<PerMillion> {
        let in_force = self.in_force.load();
        let models = in_force.book().models().iter();
        let rate = |model: &ModelPrices, class| {
            let key = RateKey::new(Billable::Tokens(class));
            model.in_force(&key, now).map(|nanos| nanos as f64 / 1e9)
        };
        let priced = models.filter_map(|model| {
            Some(PerMillion {
                provider: model.provider.clone(),
                model: model.model.clone(),
                input: rate(model, TokenClass::Input)?,
                output: rate(model, TokenClass::Output).unwrap_or_default(),
            })
        });
        priced.collect()
    }

    fn with_own<T>(&self, price: impl FnOnce(&mut Pricer) -> T) -> T {
        let in_force = self.in_force.load();
        OWN.with_borrow_mut(|own| match own {
            Some((of, pricer)) if Arc::ptr_eq(of, &in_force) => price(pricer),
            _ => {
                let fresh = (Arc::clone(&in_force), Pricer::clone(&in_force));
                price(&mut own.insert(fresh).1)
            }
        })
    }
}

/// Builds price books from the topic's records.
#[derive(Default)]
pub(crate) struct PriceFollower {
    books: FollowedBooks,
}

impl PriceFollower {
    /// Takes a record.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn take(
        &mut self,
        key: &str,
        value: &[u8],
        prices: &Prices,
    ) -> Result<(), BookError> {
        let completed = self.books.accept(key, value)?;
        activate(completed, prices);
        Ok(())
    }

    /// The topic is about to be read again; the book in force stays.
    pub(crate) fn begin_again(&mut self) {
        self.books.begin_again();
    }

    /// The topic has been read.
    pub(crate) fn caught_up(&mut self, prices: &Prices) {
        activate(self.books.caught_up(), prices);
    }
}

fn activate(book: Option<PriceBook>, prices: &Prices) {
    if let Some(book) = book {
        tracing::info!(version = book.version(), "price book in force");
        prices.activate(book);
    }
}

/// Whether a price is a ceiling, because the book does not know the model.
pub(crate) fn is_unpriced(priced: &Priced) -> bool {
    priced.flags.contains(Flags::UNPRICED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spendfuse_pricing::Multiplier;

    #[test]
    fn a_thread_prices_by_what_is_in_force_where_it_is_asked() {
        let twice = Multiplier::parse("2").unwrap();
        let list = Prices::new(PricingPolicy::default());
        let dear = Prices::new(PricingPolicy {
            price_multiplier: [("eu".to_owned(), twice)].into(),
            ..PricingPolicy::default()
        });
        let call = Announced {
            account: "eu",
            model: "gpt-4o-mini",
            input_tokens: 1_000_000,
            ..Announced::default()
        };
        let cost = |prices: &Prices| {
            let priced = prices.estimate(call, UnixMillis(1_795_000_000_000));
            priced.unwrap().parts.total().get()
        };
        for _ in 0..2 {
            assert!(cost(&list) > 0);
            assert_eq!(cost(&dear), 2 * cost(&list));
            dear.activate(PriceBook::snapshot());
        }
    }
}
