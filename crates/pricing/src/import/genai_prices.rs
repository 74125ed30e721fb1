//! genai-prices' `data.json`: a list of providers, each with its `models`, whose prices may change
//! at a date, by the hour, and with how a call is served.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use spendfuse_domain::{UnitKind, UnixMillis};

use super::{Imported, PER_MILLION, decimal, number, refused};
use crate::book::Alias;
use crate::error::BookError;
use crate::provider;
use crate::rate::{Billable, RateKey, ServiceLevel, Tier, TokenClass};

/// Providers that others call otherwise.
const PROVIDERS: &[(&str, &str)] = &[("voyageai", "voyage"), ("meta", "meta_llama")];

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
type Rates = BTreeMap<RateKey, u64>;

#[derive(Deserialize)]
struct Provider<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    models: Vec<Model<'a>>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "match", default)]
    clause: Clause<'a>,
    #[serde(borrow)]
    prices: &'a RawValue,
    #[serde(borrow, default)]
    price_variants: Option<Vec<Variant<'a>>>,
}

/// By which names a model is known; only whole names are taken over.
#[derive(Default, Deserialize)]
struct Clause<'a> {
    #[serde(borrow, default)]
    equals: Cow<'a, str>,
    #[serde(borrow, default)]
    starts_with: Cow<'a, str>,
    #[serde(borrow, default)]
    or: Vec<Clause<'a>>,
}

#[derive(Deserialize)]
struct Variant<'a> {
    #[serde(borrow)]
    when: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow)]
    prices: Fields<'a>,
    #[serde(borrow, default)]
    constraint: Option<Constraint<'a>>,
}

#[derive(Deserialize)]
struct Conditional<'a> {
    #[serde(borrow)]
    prices: Fields<'a>,
    #[serde(borrow, default)]
    constraint: Option<Constraint<'a>>,
}

#[derive(Deserialize)]
struct Constraint<'a> {
    #[serde(borrow, default)]
    start_date: Cow<'a, str>,
    #[serde(borrow, default)]
    start_time: Cow<'a, str>,
}

/// Prices by size of the context: all tokens of a call cost those of the last tier that begins below
/// its input.
#[derive(Deserialize)]
struct Tiered<'a> {
    #[serde(borrow)]
    base: &'a RawValue,
    #[serde(borrow)]
    tiers: Vec<Step<'a>>,
}

#[derive(Deserialize)]
struct Step<'a> {
    start: u64,
    #[serde(borrow)]
    price: &'a RawValue,
}

pub(super) fn read(bytes: &[u8], label: &str, source: &str) -> Result<Imported, BookError> {
    let providers: Vec<Provider<'_>> = serde_json::from_slice(bytes)
        .map_err(|error| refused(format!("not a list of providers with models: {error}")))?;
    let mut imported = Imported::new(label, source);
    for given in &providers {
        let known = PROVIDERS.iter().find(|(name, _)| *name == given.id);
        let name = known.map_or_else(
            || provider::canonical(&given.id).into_owned(),
            |(_, known)| (*known).to_owned(),
        );
        for model in &given.models {
            imported.report.models_read += 1;
            let entry = format!("{}/{}", given.id, model.id);
            let rates = imported.rates_of_model(&entry, model);
            imported.take_model(&name, &model.id, "chat", "", rates);
            imported.take_names(&name, model);
        }
    }
    imported.report.models_priced = imported.draft.models.len();
    Ok(imported)
}

impl Imported {
    /// Other whole names of a model as aliases.
    fn take_names(&mut self, provider: &str, model: &Model<'_>) {
        let is_priced = |draft: &crate::BookDraft| {
            let name = (provider.to_owned(), model.id.to_string());
            draft.models.contains_key(&name)
        };
        if !is_priced(&self.draft) {
            return;
        }
        let names = { model.clause.or.iter() }
            .chain([&model.clause])
            .flat_map(|clause| [&clause.equals, &clause.starts_with]);
        for name in names.filter(|name| !name.is_empty() && **name != model.id) {
            self.draft.aliases.insert(Alias {
                provider: provider.to_owned(),
                model: name.to_string(),
                to_provider: provider.to_owned(),
                to_model: model.id.to_string(),
            });
        }
    }

    fn rates_of_model(&mut self, entry: &str, model: &Model<'_>) -> Rates {
        let given = model.prices.get();
        let mut prices: Vec<Conditional<'_>> = match given.trim_start().starts_with('[') {
            true => serde_json::from_str(given).unwrap_or_default(),
            false => Vec::new(),
        };
        if let Ok(prices_of_all_times) = serde_json::from_str::<Fields<'_>>(given) {
            prices.push(Conditional {
                prices: prices_of_all_times,
                constraint: None,
            });
        }
        if prices.is_empty() {
            self.report
                .skip("prices", "in a form that is not known", entry);
        }
        let mut rates = Rates::new();
        let mut by_the_hour = Rates::new();
        for one in &prices {
            let own = self.rates_of(entry, &one.prices, Tier::Default);
            match &one.constraint {
                None => rates.extend(own),
                Some(hours) if !hours.start_time.is_empty() => by_the_hour.extend(own),
                Some(from) => self.begin(entry, &from.start_date, own, &mut rates),
            }
        }
        // Prices by the hour: the dearest hold, so that none is charged too little.
        for (key, nanos) in by_the_hour {
            let reason = "prices by the hour; the dearest are charged";
            self.report.skip("start_time", reason, entry);
            let newest = rates.keys().rfind(|known| same_line(known, &key)).cloned();
            let rate = rates.entry(newest.unwrap_or(key)).or_insert(nanos);
            *rate = nanos.max(*rate);
        }
        let variants = model.price_variants.as_deref().unwrap_or_default();
        self.take_variants(entry, variants, &mut rates);
        rates
    }

    /// Prices of other tiers. Since when the oldest one is known is not since when it is sold, so it
    /// holds before its day, too; the newest may stand first.
    fn take_variants(&mut self, entry: &str, variants: &[Variant<'_>], rates: &mut Rates) {
        let mut by_tier: BTreeMap<Tier, Vec<(&str, &Fields<'_>)>> = BTreeMap::new();
        for variant in variants {
            let said: Vec<(&str, &str)> = { variant.when.iter() }
                .map(|(name, value)| (&**name, &**value))
                .collect();
            let tier = match said[..] {
                [("processing", "batch")] => Some(Tier::Batch),
                [("service_tier", word)] => match ServiceLevel::of_word(word) {
                    ServiceLevel::Tier(tier) => Some(tier),
                    _ => None,
                },
                _ => None,
            };
            let constraint = variant.constraint.as_ref();
            let by_the_hour = constraint.is_some_and(|one| !one.start_time.is_empty());
            match tier.filter(|_| !by_the_hour) {
                Some(Tier::Default) => {}
                Some(tier) => {
                    let day = constraint.map_or("", |one| &*one.start_date);
                    by_tier
                        .entry(tier)
                        .or_default()
                        .push((day, &variant.prices));
                }
                None => {
                    let reason = "a condition that calls do not say";
                    self.report.skip("price_variants", reason, entry);
                }
            }
        }
        for (tier, mut of_tier) in by_tier {
            // Days as written sort by time.
            of_tier.sort_by_key(|(day, _)| *day);
            for (place, (day, prices)) in of_tier.into_iter().enumerate() {
                let own = self.rates_of(entry, prices, tier);
                match place {
                    0 => rates.extend(own),
                    _ => self.begin(entry, day, own, rates),
                }
            }
        }
    }

    /// `own` are in force from the day `start` on. A threshold that they do not have is gone: its
    /// contexts cost what all cost.
    fn begin(&mut self, entry: &str, start: &str, own: Rates, rates: &mut Rates) {
        let Ok(from) = UnixMillis::parse_rfc3339(&format!("{start}T00:00:00Z")) else {
            self.report.skip("start_date", "not a day", entry);
            return;
        };
        let mut begun = Rates::new();
        for known in rates.keys().filter(|key| key.above > 0) {
            let plain = known.clone().above(0);
            let of_all = own.iter().find(|(key, _)| same_line(key, &plain));
            if let Some((_, nanos)) = of_all {
                let ended = RateKey {
                    from,
                    ..known.clone()
                };
                begun.insert(ended, *nanos);
            }
        }
        let own = own.into_iter();
        begun.extend(own.map(|(key, nanos)| (RateKey { from, ..key }, nanos)));
        // What costs the same as before has no new day.
        begun.retain(|key, nanos| {
            let before = rates.iter().rfind(|(known, _)| same_line(known, key));
            before.map(|(_, before)| *before) != Some(*nanos)
        });
        rates.extend(begun);
    }

    fn rates_of(&mut self, entry: &str, prices: &Fields<'_>, tier: Tier) -> Rates {
        let mut rates = Rates::new();
        for (field, raw) in prices {
            if raw.get() == "null" {
                continue;
            }
            let Some((billable, nanos_of)) = meaning(field) else {
                self.report
                    .skip(field, "usage events have no class or unit for it", entry);
                continue;
            };
            let key = RateKey::new(billable).in_tier(tier);
            let mut take = |key: RateKey, raw: &RawValue| match nanos_of(number(raw)) {
                Some(nanos) => {
                    // Two names of one price: seconds of audio.
                    let rate = rates.entry(key).or_insert(nanos);
                    *rate = nanos.max(*rate);
                }
                None => self.report.skip(field, "not a number", entry),
            };
            match serde_json::from_str::<Tiered<'_>>(raw.get()) {
                Ok(tiered) => {
                    take(key.clone(), tiered.base);
                    for step in &tiered.tiers {
                        take(key.clone().above(step.start), step.price);
                    }
                }
                Err(_) => take(key, raw),
            }
        }
        rates
    }
}

/// The same rate at another time.
fn same_line(one: &RateKey, other: &RateKey) -> bool {
    one.without_day() == other.without_day()
}

/// Reads an amount; `None` where it is none.
type Reader = fn(&str) -> Option<u64>;

/// What a field prices, and its amount in nano-dollars per million tokens or per unit.
fn meaning(field: &str) -> Option<(Billable, Reader)> {
    const PER_THOUSAND: i32 = PER_MILLION - 3;
    const PER_UNIT_OF_A_MILLION: i32 = PER_MILLION - 6;
    const SECONDS_OF_AN_HOUR: u64 = 3600;
    let of_million: Reader = |text| decimal::scaled(text, PER_MILLION);
    let of_thousand: Reader = |text| decimal::scaled(text, PER_THOUSAND);
    let unit = |kind: UnitKind| (Billable::Units(kind), of_thousand);
    let class = match field {
        "input_mtok" => TokenClass::Input,
        "output_mtok" => TokenClass::Output,
        "cache_read_mtok" => TokenClass::CacheRead,
        "cache_write_mtok" | "cache_write_5m_mtok" => TokenClass::CacheWrite5m,
        "cache_write_1h_mtok" => TokenClass::CacheWrite1h,
        "input_audio_mtok" => TokenClass::AudioInput,
        "output_audio_mtok" => TokenClass::AudioOutput,
        "input_image_mtok" => TokenClass::ImageInput,
        "output_image_mtok" => TokenClass::ImageOutput,
        "input_video_mtok" => TokenClass::VideoInput,
        "output_reasoning_mtok" => TokenClass::Reasoning,
        "requests_kcount" => return Some(unit(UnitKind::Requests)),
        "web_searches_kcount" => return Some(unit(UnitKind::WebSearchCalls)),
        "input_document_kpages" => return Some(unit(UnitKind::Pages)),
        "input_mchars" => {
            return Some((Billable::Units(UnitKind::Characters), |text| {
                decimal::scaled(text, PER_UNIT_OF_A_MILLION)
            }));
        }
        "audio_hours" | "input_audio_hours" => {
            return Some((Billable::Units(UnitKind::AudioSeconds), |text| {
                let an_hour = decimal::scaled(text, PER_MILLION)?;
                Some(an_hour.div_ceil(SECONDS_OF_AN_HOUR))
            }));
        }
        _ => return None,
    };
    Some((Billable::Tokens(class), of_million))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(model: &str) -> (String, Imported) {
        let json = format!(r#"[{{"id":"x-ai","models":[{model}]}}]"#);
        let imported = read(json.as_bytes(), "t", "test").unwrap();
        let name = ("xai".to_owned(), "m".to_owned());
        let rates = imported.draft.models[&name].rates.iter();
        let rates: Vec<String> = rates.map(|(key, nanos)| format!("{key}={nanos}")).collect();
        (rates.join(" "), imported)
    }

    #[test]
    fn a_threshold_that_a_later_price_does_not_have_is_gone_from_its_day_on() {
        let (rates, _) = rates(
            r#"{"id":"m","match":{"equals":"m"},"prices":[
              {"prices":{"input_mtok":{"base":5,"tiers":[{"start":200000,"price":10}]},"output_mtok":25}},
              {"constraint":{"start_date":"2026-03-13"},"prices":{"input_mtok":4,"output_mtok":25}}]}"#,
        );
        assert_eq!(
            rates,
            "input=5000000000 input@2026-03-13T00:00:00Z=4000000000 \
             input>200000=10000000000 input>200000@2026-03-13T00:00:00Z=4000000000 \
             output=25000000000"
        );
    }

    #[test]
    fn tiers_units_hours_and_names_are_read() {
        let (rates, imported) = rates(
            r#"{"id":"m","match":{"or":[{"equals":"m-latest"},{"starts_with":"m.1"},{"contains":"x"}]},
              "prices":[{"prices":{"input_mtok":0.5,"output_mtok":1,"web_searches_kcount":10,"input_audio_hours":0.36,"storage_searches_kcount":1}},
                {"constraint":{"start_time":"01:00:00Z","end_time":"04:00:00Z"},"prices":{"input_mtok":0.9}}],
              "price_variants":[
                {"when":{"processing":"batch"},"prices":{"input_mtok":"0.3"},"constraint":{"start_date":"2026-10-29"}},
                {"when":{"processing":"batch"},"prices":{"input_mtok":"0.25"},"constraint":{"start_date":"2026-10-14"}},
                {"when":{"route":"eu"},"prices":{"input_mtok":2}}]}"#,
        );
        assert_eq!(
            rates,
            "input=900000000 input:batch=250000000 input:batch@2026-10-29T00:00:00Z=300000000 output=1000000000 \
             web_search_calls=10000000 audio_seconds=100000"
        );
        let names: Vec<&str> = { imported.draft.aliases.iter() }
            .map(|alias| &*alias.model)
            .collect();
        assert_eq!(names, ["m-latest", "m.1"]);
        let skipped: Vec<&String> = imported.report.skipped_fields.keys().collect();
        assert_eq!(
            skipped,
            ["price_variants", "start_time", "storage_searches_kcount"]
        );
    }
}
