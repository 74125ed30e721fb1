//! What a call of a model costs by rates that are found: token rates, units, and ceilings for what has
//! no rate.

use std::sync::Arc;

use spendfuse_domain::units::Quantity;
use spendfuse_domain::{Call, Nanos, UnitKind, UnixMillis};

use crate::charge::{Bill, LineSink, TokenRates};
use crate::factor;
use crate::lookup::ceiling::Ceiling;
use crate::lookup::{Match, Variant};
use crate::policy::PricingPolicy;
use crate::rate::{ServiceLevel, Tier, TokenClass};
use crate::sheet::CompiledModel;
use crate::unit_rate::unit_rate;

/// What is known about one (provider, model) as calls name it.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) trusts_reports: bool,
    pub(crate) ambiguous: bool,
    pub(crate) how: Option<Match>,
    pub(crate) variant: Variant,
    /// Place in the book and rates; `None`: unpriced.
    pub(crate) prices: Option<(usize, Arc<CompiledModel>)>,
    /// The regions that sell it at prices of their own; empty for nearly all.
    pub(crate) regions: Vec<Regional>,
    /// The region that the name itself says, in lower case; empty for nearly all.
    pub(crate) named_region: String,
    /// Worked out when it is first needed.
    pub(crate) ceiling: Option<Ceiling>,
}

/// A region that sells a model at prices of its own.
#[derive(Clone, Debug)]
pub(crate) struct Regional {
    /// As calls say it.
    pub(crate) name: String,
    /// Place in the book.
    pub(crate) place: usize,
    /// Place among what the pricer knows, from the first call there on.
    pub(crate) known: Option<usize>,
}

/// A bill that is not finished: something needs the ceiling, which is not there yet.
pub(crate) struct NeedsCeiling;

/// What of a call has no rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AtCeiling {
    #[default]
    Nothing,
    Units,
    Everything,
}

pub(crate) struct Charged {
    pub(crate) bill: Bill,
    /// Which token rates were taken.
    pub(crate) rates: TokenRates,
    pub(crate) at_ceiling: AtCeiling,
    pub(crate) guessed: bool,
}

impl Charged {
    /// Adds what a part of the call is charged.
    pub(crate) fn add(&mut self, part: &Self) {
        self.bill.add(&part.bill);
        self.at_ceiling = self.at_ceiling.max(part.at_ceiling);
        self.guessed |= part.guessed;
    }
}

impl Resolved {
    /// The app's own figure, where it counts. A negative one does not.
    pub(crate) fn reported(&self, call: &Call<'_>) -> Option<Nanos> {
        let reported = call.reported_cost.filter(|_| self.trusts_reports)?;
        (reported >= Nanos::ZERO).then_some(reported)
    }

    /// Where `call` was served; empty = not said. A name goes before what an event says, which may be
    /// where its app runs.
    #[inline]
    fn region<'c>(&'c self, call: &'c Call<'_>) -> &'c str {
        match self.named_region.is_empty() {
            true => &call.region,
            false => &self.named_region,
        }
    }

    pub(crate) fn charge(
        &self,
        policy: &PricingPolicy,
        call: &Call<'_>,
        at: UnixMillis,
        lines: &mut impl LineSink,
    ) -> Result<Charged, NeedsCeiling> {
        let mut charged = Charged {
            bill: Bill::default(),
            rates: TokenRates::default(),
            at_ceiling: AtCeiling::Nothing,
            guessed: false,
        };
        let level = ServiceLevel::of_word(&call.service_tier);
        if self.variant == Variant::Free || level == ServiceLevel::Provisioned {
            return Ok(charged);
        }
        charged.guessed = level == ServiceLevel::Unknown;
        let has_tokens = call.tokens.total() > 0;
        let tier = match level {
            ServiceLevel::Tier(tier) if tier != Tier::Default => tier,
            _ if self.variant == Variant::Batch => Tier::Batch,
            _ => Tier::Default,
        };
        let Some((_, model)) = &self.prices else {
            self.charge_ceiling(policy, call, &mut charged, lines)?;
            return Ok(charged);
        };
        let era = model.era(at);
        let by_token = has_tokens && era.has_token_rates();
        if by_token {
            let applied = model.factors.of_call(call, self.region(call));
            charged.guessed |= applied.unknown_word;
            charged.rates = charged
                .bill
                .charge_tokens(era, call, tier, applied.factor, lines);
            charged.guessed |= charged.rates.is_guess;
            let has_cached_media = |(kind, _): &(UnitKind, Quantity)| kind.is_cached_media();
            if call.units.entries.iter().any(has_cached_media) {
                let bill = &mut charged.bill;
                charged.guessed |= bill.charge_cached_media(era, call, tier, applied.factor, lines);
            }
        }
        let mut by_unit = false;
        let mut missing: u32 = 0;
        for (index, (kind, quantity)) in call.units.entries.iter().enumerate() {
            let counted_as_tokens =
                (has_tokens && kind.is_cached_media()) || (by_token && era.is_other_count(*kind));
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
            self.charge_ceiling(policy, call, &mut charged, lines)?;
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
            // Mistral's audio has seconds and no tokens.
            let is_audio = *kind == UnitKind::AudioSeconds && !has_audio(call);
            let is_extra = kind.is_beside_tokens() || is_audio || !charged_otherwise;
            if is_missing && is_extra {
                let ceiling = self.ceiling.as_ref().ok_or(NeedsCeiling)?;
                let rate = ceiling.unit(*kind);
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
        charged: &mut Charged,
        lines: &mut impl LineSink,
    ) -> Result<(), NeedsCeiling> {
        let ceiling = self.ceiling.as_ref().ok_or(NeedsCeiling)?;
        charged.at_ceiling = AtCeiling::Everything;
        // A ceiling knows no discount: batch and flex cost the default rates.
        let tier = match ServiceLevel::of_word(&call.service_tier) {
            ServiceLevel::Tier(tier @ (Tier::Priority | Tier::Ultrafast)) => tier,
            _ => Tier::Default,
        };
        match &ceiling.tokens {
            Some(tokens) => {
                let served = tokens.factors.of_call(call, self.region(call));
                let context = call.tokens.context();
                let rate = |class| factor::times(tokens.rate(context, tier, class), served);
                let bill = &mut charged.bill;
                bill.charge_tokens_at(rate, "ceiling", call, lines);
                bill.charge_cached_media_at(rate, call, lines);
                charged.rates.tier = tier;
                charged.rates.factor = served;
            }
            None => {
                let rates = &policy.ceiling;
                let rate = |class: TokenClass| match class.is_input() {
                    true => rates.input,
                    false => rates.output,
                };
                let bill = &mut charged.bill;
                bill.charge_tokens_at(rate, "configured ceiling", call, lines);
            }
        }
        let has_tokens = call.tokens.total() > 0;
        for (kind, quantity) in &call.units.entries {
            // Beside tokens, units that are not sold so describe the same thing once more.
            if kind.is_beside_tokens() || !has_tokens {
                let rate = ceiling.unit(*kind);
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

fn has_audio(call: &Call<'_>) -> bool {
    call.tokens.audio_input + call.tokens.audio_output > 0
}
