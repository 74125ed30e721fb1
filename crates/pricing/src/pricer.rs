//! Prices calls: the entry point for everybody else.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::event::{Particulars, Rare};
use spendfuse_domain::row::{CostParts, PriceBasis};
use spendfuse_domain::{Call, Flags, Nanos, UnixMillis};

use crate::book::PriceBook;
use crate::charge::{Line, LineSink, NoLines};
use crate::detail::{self, Circumstances, Grounds, Told, Written};
use crate::error::PricingError;
use crate::lookup::Match;
use crate::lookup::names::Names;
use crate::policy::PricingPolicy;
use crate::resolved::{AtCeiling, Charged, NeedsCeiling, Resolved};
use crate::sheet::CompiledModel;

mod known;

/// Names that one pricer remembers. Apps use a few dozen; the bound is against names that change
/// with every call.
const REMEMBERED_NAMES: usize = 16_384;
const TOO_DEAR: Nanos = Nanos::from_dollars(1_000_000);

/// What a call costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The cost by part; the parts add up exactly.
    pub parts: CostParts,
    /// The part of the cost that is charged at a ceiling, because no rate is known for it: all of
    /// it for an unknown model, the units for one that has no rate for a unit.
    pub at_ceiling: Nanos,
    /// Where the price came from.
    pub basis: PriceBasis,
    /// `UNPRICED` and `AMBIGUOUS_PRICE`, where they apply.
    pub flags: Flags,
}

/// What a call costs, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The cost, as [`Pricer::price`] says it.
    pub priced: Priced,
    /// Provider and model whose rates were charged; `None`: the configured ceiling.
    pub charged_as: Option<(String, String)>,
    /// How they were found; `None`: at a ceiling.
    pub how: Option<Match>,
    /// Why, in a line: column `price_detail`.
    pub detail: String,
    /// The bill. Where the basis is `reported` it is what the book would have charged; a multiplier
    /// is not in it.
    pub lines: Vec<Line>,
}

/// One worker's view of a price book: remembers the names that it has resolved. Cloning shares the
/// book and the policy.
#[derive(Clone, Debug)]
pub struct Pricer {
    book: Arc<PriceBook>,
    policy: Arc<PricingPolicy>,
    /// Names → indexes in `resolved`.
    names: HashMap<Names, usize>,
    resolved: Vec<Resolved>,
    /// Place in the book → rates, so that names of one model share them.
    compiled: HashMap<usize, Arc<CompiledModel>>,
    /// What the call that was priced last went by.
    last: Grounds,
    /// Usual calls → places in `lines`.
    written: HashMap<Grounds, usize>,
    /// The first is that of the last call that was not a usual one.
    lines: Vec<Written>,
}

impl Pricer {
    /// A pricer for `book` under `policy`.
    pub fn new(book: Arc<PriceBook>, policy: Arc<PricingPolicy>) -> Self {
        Self {
            book,
            policy,
            names: HashMap::new(),
            resolved: Vec::new(),
            compiled: HashMap::new(),
            last: Grounds::default(),
            written: HashMap::new(),
            lines: vec![Written::default()],
        }
    }

    /// The version of the book in use.
    pub fn version(&self) -> &str {
        self.book.version()
    }

    /// The book in use.
    pub fn book(&self) -> &Arc<PriceBook> {
        &self.book
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
        self.price_into(provider, account, call, model, at, &mut NoLines)
    }

    /// The same with its rate lines.
    ///
    /// # Errors
    /// As [`Pricer::price`].
    pub fn explain(
        &mut self,
        provider: &str,
        account: &str,
        call: &Call<'_>,
        model: &str,
        at: UnixMillis,
    ) -> Result<Explained, PricingError> {
        let mut lines = Vec::new();
        let priced = self.price_into(provider, account, call, model, at, &mut lines)?;
        let resolved = self.resolve(provider, model, &call.region);
        let resolved = &self.resolved[resolved];
        let index = match (priced.basis, &resolved.prices, &resolved.ceiling) {
            (_, Some((index, _)), _) => Some(*index),
            (_, None, Some(ceiling)) => ceiling.tokens.as_ref().map(|tokens| tokens.model),
            (_, None, None) => None,
        };
        let models = self.book.models();
        let name = |index: usize| (models[index].provider.clone(), models[index].model.clone());
        let mut explained = Explained {
            priced,
            charged_as: index.map(name),
            how: resolved.how,
            detail: String::new(),
            lines,
        };
        let circumstances = Circumstances {
            call,
            variant: resolved.variant,
            grounds: self.last.of_call(call),
        };
        explained.detail = detail::write(&explained, &circumstances);
        Ok(explained)
    }

    /// What the row of the call says that was priced last, by [`Pricer::price`] with these same
    /// arguments.
    #[inline]
    pub fn told(
        &mut self,
        provider: &str,
        account: &str,
        call: &Call<'_>,
        model: &str,
        at: UnixMillis,
    ) -> Told<'_> {
        let grounds = self.last.of_call(call);
        let is_usual = detail::is_usual(call, &grounds);
        let known = self.written.get(&grounds).filter(|_| is_usual).copied();
        let place = known.unwrap_or_else(|| {
            let written = self.write_detail(provider, account, call, model, at);
            // It may have emptied the memory of names, and the name has another place since.
            let grounds = self.last.of_call(call);
            self.keep(written, is_usual.then_some(grounds))
        });
        let written = &self.lines[place];
        Told {
            version: self.book.version(),
            priced_as: &written.priced_as,
            detail: &written.detail,
        }
    }

    #[cold]
    fn write_detail(
        &mut self,
        provider: &str,
        account: &str,
        call: &Call<'_>,
        model: &str,
        at: UnixMillis,
    ) -> Written {
        // What has a price has an explanation.
        let explained = self.explain(provider, account, call, model, at);
        let of = |explained: Explained| Written {
            priced_as: detail::priced_as(&explained),
            detail: explained.detail,
        };
        explained.map(of).unwrap_or_default()
    }

    /// Keeps a line under its grounds, or in the place of the last call that was not a usual one.
    fn keep(&mut self, written: Written, grounds: Option<Grounds>) -> usize {
        if self.lines.len() > REMEMBERED_NAMES {
            self.forget_lines();
        }
        let Some(grounds) = grounds else {
            self.lines[0] = written;
            return 0;
        };
        self.written.insert(grounds, self.lines.len());
        self.lines.push(written);
        self.lines.len() - 1
    }

    fn forget_lines(&mut self) {
        self.written.clear();
        self.lines.truncate(1);
    }

    fn price_into<L: LineSink + Default>(
        &mut self,
        provider: &str,
        account: &str,
        call: &Call<'_>,
        model: &str,
        at: UnixMillis,
        lines: &mut L,
    ) -> Result<Priced, PricingError> {
        let too_dear = |cost: Nanos| PricingError::TooDear {
            provider: provider.into(),
            model: model.into(),
            cost,
        };
        // Only between two calls: a call and its parts are known by their places.
        if self.names.len() >= REMEMBERED_NAMES {
            self.names.clear();
            self.resolved.clear();
            self.forget_lines();
        }
        let index = self.resolve(provider, model, &call.region);
        let mut charged = self.charge(index, provider, call, model, at, lines);
        if !call.rare.sub_calls.is_empty() {
            self.charge_sub_calls(&mut charged, provider, call, model, at, lines);
        }
        let multiplier = self.policy.multiplier(account);
        let resolved = &self.resolved[index];
        self.last = Grounds {
            name: index,
            rates: charged.rates,
            at_ceiling: charged.at_ceiling,
            is_guess: charged.guessed,
            multiplier: multiplier.millionths(),
            ..Grounds::default()
        };
        if let Some(reported) = resolved.reported(call) {
            if reported >= TOO_DEAR {
                return Err(too_dear(reported));
            }
            self.last.basis = PriceBasis::Reported;
            return Ok(Priced {
                parts: charged.bill.proportions_of(reported),
                at_ceiling: Nanos::ZERO,
                basis: PriceBasis::Reported,
                flags: Flags::default(),
            });
        }
        let mut flags = Flags::default();
        if resolved.ambiguous || charged.guessed {
            flags.insert(Flags::AMBIGUOUS_PRICE);
        }
        if charged.at_ceiling != AtCeiling::Nothing {
            flags.insert(Flags::UNPRICED);
        }
        let parts = charged.bill.parts(multiplier).map_err(too_dear)?;
        Ok(Priced {
            at_ceiling: match charged.at_ceiling {
                AtCeiling::Nothing => Nanos::ZERO,
                AtCeiling::Units => parts.units,
                AtCeiling::Everything => parts.total(),
            },
            parts,
            basis: if charged.at_ceiling == AtCeiling::Nothing {
                PriceBasis::Book
            } else {
                PriceBasis::Ceiling
            },
            flags,
        })
    }

    /// The bill of `call` by the rates of the name with this index.
    #[inline]
    fn charge<L: LineSink + Default>(
        &mut self,
        index: usize,
        provider: &str,
        call: &Call<'_>,
        model: &str,
        at: UnixMillis,
        lines: &mut L,
    ) -> Charged {
        match self.resolved[index].charge(&self.policy, call, at, lines) {
            Ok(charged) => charged,
            Err(NeedsCeiling) => {
                self.work_out_ceiling(index, provider, model);
                *lines = L::default();
                let charged = self.resolved[index].charge(&self.policy, call, at, lines);
                charged.unwrap_or_else(|NeedsCeiling| unreachable!("the ceiling is there now"))
            }
        }
    }

    /// Adds the parts of `call` that have rates of their own; each is a context of its own.
    #[cold]
    fn charge_sub_calls<L: LineSink + Default>(
        &mut self,
        charged: &mut Charged,
        provider: &str,
        call: &Call<'_>,
        model: &str,
        at: UnixMillis,
        lines: &mut L,
    ) {
        for part in &call.rare.sub_calls {
            let named = if part.model.is_empty() {
                model
            } else {
                &part.model
            };
            let part = Call {
                tokens: part.tokens,
                service_tier: Cow::Borrowed(&*call.service_tier),
                rare: Rare::from(Particulars {
                    speed: Cow::Borrowed(&*call.rare.speed),
                    inference_geo: Cow::Borrowed(&*call.rare.inference_geo),
                    ..Particulars::default()
                }),
                region: Cow::Borrowed(&*call.region),
                ..Call::default()
            };
            let index = self.resolve(provider, named, &call.region);
            let mut own_lines = L::default();
            let mut bill = self.charge(index, provider, &part, named, at, &mut own_lines);
            bill.guessed |= self.resolved[index].ambiguous;
            charged.add(&bill);
            lines.take_over(own_lines, named);
        }
    }
}
