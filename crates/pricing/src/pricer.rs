//! Prices calls: the entry point for everybody else.

use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::row::{CostParts, PriceBasis};
use spendfuse_domain::units::Quantity;
use spendfuse_domain::{Call, Flags, Nanos, UnitKind, UnixMillis};

use crate::book::PriceBook;
use crate::charge::{Bill, Line, LineSink, NoLines, unit_rate};
use crate::error::PricingError;
use crate::lookup::Match;
use crate::lookup::ceiling::Ceiling;
use crate::lookup::names::{Names, NamesRef};
use crate::policy::PricingPolicy;
use crate::provider;
use crate::rate::Tier;
use crate::sheet::CompiledModel;

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
}

/// What is known about one (provider, model) as calls name it.
#[derive(Clone, Debug)]
struct Resolved {
    trusts_reports: bool,
    ambiguous: bool,
    how: Option<Match>,
    /// Place in the book and rates; `None`: unpriced.
    prices: Option<(usize, Arc<CompiledModel>)>,
    /// Worked out when it is first needed.
    ceiling: Option<CompiledCeiling>,
}

#[derive(Clone, Debug)]
struct CompiledCeiling {
    ceiling: Ceiling,
    tokens: Option<Arc<CompiledModel>>,
}

/// A bill that is not finished: something needs the ceiling, which is not there yet.
struct NeedsCeiling;

/// What of a call has no rate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtCeiling {
    Nothing,
    Units,
    Everything,
}

struct Charged {
    bill: Bill,
    at_ceiling: AtCeiling,
    guessed: bool,
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
        let resolved = self.resolve(provider, model);
        let resolved = &self.resolved[resolved];
        let index = match (priced.basis, &resolved.prices, &resolved.ceiling) {
            (_, Some((index, _)), _) => Some(*index),
            (_, None, Some(compiled)) => compiled.ceiling.model,
            (_, None, None) => None,
        };
        let models = self.book.models();
        let name = |index: usize| (models[index].provider.clone(), models[index].model.clone());
        Ok(Explained {
            priced,
            charged_as: index.map(name),
            how: resolved.how,
            lines,
        })
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
        let index = self.resolve(provider, model);
        let charged = match self.resolved[index].charge(&self.policy, call, at, lines) {
            Ok(charged) => charged,
            Err(NeedsCeiling) => {
                self.work_out_ceiling(index, provider, model);
                *lines = L::default();
                let charged = self.resolved[index].charge(&self.policy, call, at, lines);
                charged.unwrap_or_else(|NeedsCeiling| unreachable!("the ceiling is there now"))
            }
        };
        let resolved = &self.resolved[index];
        if let Some(reported) = resolved.reported(call) {
            if reported >= TOO_DEAR {
                return Err(too_dear(reported));
            }
            return Ok(Priced {
                parts: charged.bill.proportions_of(reported),
                at_ceiling: Nanos::ZERO,
                basis: PriceBasis::Reported,
                flags: Flags::default(),
            });
        }
        let multiplier = self.policy.multiplier(account);
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

    /// The index of what is known about the name, from memory or from the book.
    fn resolve(&mut self, provider: &str, model: &str) -> usize {
        if let Some(index) = self.names.get(&NamesRef { provider, model }) {
            return *index;
        }
        if self.names.len() >= REMEMBERED_NAMES {
            self.names.clear();
            self.resolved.clear();
        }
        let found = self.book.index().find(self.book.models(), provider, model);
        let trusted = &self.policy.trust_reported_cost;
        let name = provider::canonical(provider);
        let resolved = Resolved {
            trusts_reports: trusted
                .iter()
                .any(|other| provider::canonical(other) == name),
            ambiguous: found.is_some_and(|found| found.ambiguous),
            how: found.map(|found| found.how),
            prices: found.map(|found| (found.index, self.compile(found.index))),
            ceiling: None,
        };
        let owned = Names {
            provider: provider.to_owned(),
            model: model.to_owned(),
        };
        self.names.insert(owned, self.resolved.len());
        self.resolved.push(resolved);
        self.resolved.len() - 1
    }

    /// The rates of the model at this index of the book.
    fn compile(&mut self, index: usize) -> Arc<CompiledModel> {
        let compile = || Arc::new(CompiledModel::new(&self.book.models()[index]));
        Arc::clone(self.compiled.entry(index).or_insert_with(compile))
    }

    fn work_out_ceiling(&mut self, index: usize, provider: &str, model: &str) {
        let models = self.book.models();
        let known = self.resolved[index].prices.as_ref();
        let known_provider = known.map(|(index, _)| models[*index].provider.as_str());
        let provider = known_provider.unwrap_or(provider);
        let ceiling = Ceiling::of(&self.book, &self.policy.ceiling, provider, model);
        let tokens = ceiling.model.map(|index| self.compile(index));
        self.resolved[index].ceiling = Some(CompiledCeiling { ceiling, tokens });
    }
}

impl Resolved {
    /// The app's own figure, where it counts. A negative one does not.
    fn reported(&self, call: &Call<'_>) -> Option<Nanos> {
        let reported = call.reported_cost.filter(|_| self.trusts_reports)?;
        (reported >= Nanos::ZERO).then_some(reported)
    }

    fn charge(
        &self,
        policy: &PricingPolicy,
        call: &Call<'_>,
        at: UnixMillis,
        lines: &mut impl LineSink,
    ) -> Result<Charged, NeedsCeiling> {
        let mut charged = Charged {
            bill: Bill::default(),
            at_ceiling: AtCeiling::Nothing,
            guessed: false,
        };
        let has_tokens = call.tokens.total() > 0;
        let tier = Tier::of_call(&call.service_tier);
        let Some((_, model)) = &self.prices else {
            self.charge_ceiling(policy, call, at, &mut charged, lines)?;
            return Ok(charged);
        };
        let era = model.era(at);
        let by_token = has_tokens && era.has_token_rates();
        if by_token {
            charged.bill.charge_tokens(era, call, tier, lines);
        }
        let mut by_unit = false;
        let mut missing: u32 = 0;
        for (index, (kind, quantity)) in call.units.entries.iter().enumerate() {
            let counted_as_tokens = by_token && era.is_other_count(*kind);
            if *kind == UnitKind::Requests || counted_as_tokens || quantity.0 == 0 {
                continue;
            }
            match unit_rate(era, *kind, &call.units, tier) {
                Some((rate, guessed)) => {
                    charged.guessed |= guessed;
                    let note = if guessed {
                        "dearest quality and size"
                    } else {
                        ""
                    };
                    charged
                        .bill
                        .charge_units(*kind, *quantity, rate, note, lines);
                    by_unit = true;
                }
                None => missing |= 1 << index,
            }
        }
        // A call is one request, so a fee per request is due even where the app does not say so;
        // but a search that is counted as such is not charged again as a request.
        let request_rate = || unit_rate(era, UnitKind::Requests, &call.units, tier);
        if let Some((rate, _)) = (!by_unit).then(request_rate).flatten() {
            let given_requests = call.units.quantity(UnitKind::Requests);
            let requests = if given_requests.0 == 0 && by_token {
                Quantity::whole(1)
            } else {
                given_requests
            };
            if requests.0 > 0 {
                let kind = UnitKind::Requests;
                charged.bill.charge_units(kind, requests, rate, "", lines);
                by_unit = true;
            }
        }
        self.charge_missing(call, missing, by_token || by_unit, &mut charged, lines)?;
        let nothing_charged = !(by_token || by_unit || charged.at_ceiling != AtCeiling::Nothing);
        // A call of a model sold by token that used none (a refused one) costs nothing.
        if nothing_charged && !era.has_token_rates() {
            self.charge_ceiling(policy, call, at, &mut charged, lines)?;
            self.charge_one_unit(model, at, call, &mut charged, lines);
        }
        Ok(charged)
    }

    /// Units that the model has no rate for. Those that only describe what was charged otherwise
    /// (the pages that were read, the images that were seen) are not charged again; searches are
    /// always sold on top.
    fn charge_missing(
        &self,
        call: &Call<'_>,
        missing: u32,
        charged_otherwise: bool,
        charged: &mut Charged,
        lines: &mut impl LineSink,
    ) -> Result<(), NeedsCeiling> {
        for (index, (kind, quantity)) in call.units.entries.iter().enumerate() {
            let is_missing = missing & (1 << index) != 0;
            let is_extra = *kind == UnitKind::WebSearchCalls || !charged_otherwise;
            if is_missing && is_extra {
                let compiled = self.ceiling.as_ref().ok_or(NeedsCeiling)?;
                let rate = compiled.ceiling.unit(*kind);
                let note = "ceiling";
                charged
                    .bill
                    .charge_units(*kind, *quantity, rate, note, lines);
                charged.at_ceiling = AtCeiling::Units;
            }
        }
        Ok(())
    }

    /// Everything at the ceiling.
    fn charge_ceiling(
        &self,
        policy: &PricingPolicy,
        call: &Call<'_>,
        at: UnixMillis,
        charged: &mut Charged,
        lines: &mut impl LineSink,
    ) -> Result<(), NeedsCeiling> {
        let compiled = self.ceiling.as_ref().ok_or(NeedsCeiling)?;
        charged.at_ceiling = AtCeiling::Everything;
        // A ceiling knows no discount: batch and flex cost the default rates.
        let tier = match Tier::of_call(&call.service_tier) {
            Tier::Batch | Tier::Flex | Tier::Balanced => Tier::Default,
            tier => tier,
        };
        match &compiled.tokens {
            Some(model) => charged.bill.charge_tokens(model.era(at), call, tier, lines),
            None => charged.bill.charge_tokens_at(&policy.ceiling, call, lines),
        }
        let has_tokens = call.tokens.total() > 0;
        for (kind, quantity) in &call.units.entries {
            // Beside tokens, other units than searches describe the same thing once more.
            if *kind == UnitKind::WebSearchCalls || !has_tokens {
                let rate = compiled.ceiling.unit(*kind);
                charged
                    .bill
                    .charge_units(*kind, *quantity, rate, "ceiling", lines);
            }
        }
        Ok(())
    }

    /// A model sold by unit, and a call that says neither units nor tokens: one of its dearest unit.
    fn charge_one_unit(
        &self,
        model: &CompiledModel,
        at: UnixMillis,
        call: &Call<'_>,
        charged: &mut Charged,
        lines: &mut impl LineSink,
    ) {
        let says_nothing = call.tokens.total() == 0 && call.units.is_empty();
        let dearest = model.era(at).units.iter().max_by_key(|rate| rate.nanos);
        if let Some(rate) = dearest.filter(|_| says_nothing) {
            let (kind, one) = (rate.kind, Quantity::whole(1));
            let note = "no units given: one of the dearest";
            charged
                .bill
                .charge_units(kind, one, rate.nanos, note, lines);
        }
    }
}
