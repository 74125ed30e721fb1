//! One draft of several sources.
//!
//! The first source that knows a model says what it costs. A later one adds
//! - the models that no source before it finds by name at their provider;
//! - where it agrees on what plain input and output cost now: rates that those before do not have
//!   (a cache, a tier, a threshold), and the days from which a rate holds or held.
//!
//! Where it does not agree, nothing of its model is taken: it may speak of another time. A model of its
//! own that costs more than ten times what a source before it says of that name anywhere is taken for
//! a slip: its name stays known, without a price.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::UnixMillis;

use crate::book::{BookDraft, ModelPrices, PriceBook, Source};
use crate::error::BookError;
use crate::lookup::{Match, bare};
use crate::off_peak::OffPeak;
use crate::provider::same_separators;
use crate::rate::{Billable, RateKey, TokenClass};

/// A draft of several sources, and what they said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combined {
    /// The draft.
    pub draft: BookDraft,
    /// What each source after the first added.
    pub added: Vec<Added>,
}

/// What a source said that those before it did not, and what they all said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// The source's name.
    pub source: String,
    /// Models that no source before it had.
    pub models: usize,
    /// Models of which sources before it speak, too.
    pub common: usize,
    /// Of those, models whose plain input and output cost the same.
    pub agreed: usize,
    /// Rates of those that no source before it had.
    pub rates: usize,
    /// Rates whose days were taken over.
    pub dated: usize,
    /// Models whose price was taken for a slip.
    pub slips: usize,
}

/// Resellers ask up to three times of each other's prices; whoever asks more than this has slipped
/// in a unit.
const SLIP: u64 = 10;

/// What decides whether two sources speak of the same price.
const PLAIN: [TokenClass; 2] = [TokenClass::Input, TokenClass::Output];

/// One draft of `sources`, the first one first, with the rates that are in force at `at` compared.
///
/// # Errors
/// As [`BookDraft::finish`].
pub fn combine(
    sources: Vec<(Source, BookDraft)>,
    label: &str,
    at: UnixMillis,
) -> Result<Combined, BookError> {
    let mut combined = Combined {
        draft: BookDraft {
            label: label.to_owned(),
            ..BookDraft::default()
        },
        added: Vec::new(),
    };
    let mut words = Vec::new();
    for (source, draft) in sources {
        words.push(source.text.clone());
        let is_first = combined.draft.sources.is_empty();
        let added = combined.add(&source.name, draft, at)?;
        if !is_first {
            combined.added.push(added);
        }
        combined.draft.sources.push(source);
    }
    combined.draft.source = words.join("; ");
    Ok(combined)
}

impl Combined {
    fn add(&mut self, source: &str, other: BookDraft, at: UnixMillis) -> Result<Added, BookError> {
        let before = self.draft.finish()?;
        let providers = spellings(&before);
        let mut added = Added {
            source: source.to_owned(),
            ..Added::default()
        };
        let dearest = dearest_by_name(&before, at);
        let mut new = BTreeSet::new();
        for ((provider, model), mut prices) in other.models {
            let known = providers.get(&*same_separators(&provider));
            let provider = known.cloned().unwrap_or(provider);
            match same_model(&before, &provider, &model, plain_sum(&prices, at), at) {
                Some(name) => {
                    added.common += 1;
                    let known = self.draft.models.get_mut(&name);
                    known
                        .into_iter()
                        .for_each(|known| fill(known, &prices, source, at, &mut added));
                }
                None if is_slip(&dearest, &model, plain_sum(&prices, at)) => {
                    added.slips += 1;
                    self.draft.unpriced.insert((provider, model));
                }
                None => {
                    prices.provider.clone_from(&provider);
                    source.clone_into(&mut prices.origins.model);
                    new.insert((provider.clone(), model.clone()));
                    self.draft.models.insert((provider, model), prices);
                    added.models += 1;
                }
            }
        }
        let mut aliases = other.aliases;
        aliases.retain(|alias| {
            let to = (alias.to_provider.clone(), alias.to_model.clone());
            new.contains(&to) && before.find(&alias.provider, &alias.model).is_none()
        });
        self.draft.aliases.extend(aliases);
        let is_unknown =
            |(provider, model): &(String, String)| before.find(provider, model).is_none();
        let unpriced = other.unpriced.into_iter().filter(is_unknown);
        self.draft.unpriced.extend(unpriced);
        Ok(added)
    }
}

/// Providers of a book by their names with one separator for all.
fn spellings(book: &PriceBook) -> BTreeMap<String, String> {
    let names = book.models().iter().map(|prices| &prices.provider);
    names
        .map(|name| (same_separators(name).into_owned(), name.clone()))
        .collect()
}

/// The model that calls of this name are charged as, where it is the provider's own. Where only
/// another form of the name is known (`babbage-002` for `babbage`), one whose plain rates sum up to
/// more is a model of its own: a name must not be charged less than the one source says that has it.
fn same_model(
    book: &PriceBook,
    provider: &str,
    model: &str,
    plain_rates: u64,
    at: UnixMillis,
) -> Option<(String, String)> {
    let (prices, how, _) = book.find(provider, model)?;
    let is_own = match how {
        Match::Exact | Match::Alias => true,
        Match::Shortened => plain_rates <= plain_sum(prices, at),
        Match::Maker | Match::Bare | Match::Region => false,
    };
    (is_own && prices.provider == provider).then(|| (prices.provider.clone(), prices.model.clone()))
}

/// The dearest plain rates of each name, whoever sells it.
fn dearest_by_name(book: &PriceBook, at: UnixMillis) -> BTreeMap<String, u64> {
    let mut dearest = BTreeMap::new();
    for prices in book.models() {
        let highest = dearest.entry(bare(&prices.model)).or_default();
        *highest = plain_sum(prices, at).max(*highest);
    }
    dearest
}

fn is_slip(dearest: &BTreeMap<String, u64>, model: &str, plain_rates: u64) -> bool {
    let known = dearest.get(&bare(model)).copied().unwrap_or(0);
    known > 0 && plain_rates > known.saturating_mul(SLIP)
}

fn plain_sum(prices: &ModelPrices, at: UnixMillis) -> u64 {
    let lines = PLAIN.map(|class| RateKey::new(Billable::Tokens(class)));
    let rates = lines.iter().filter_map(|line| prices.in_force(line, at));
    rates.sum()
}

/// Takes over what `other` knows more of a model, where both agree on what it costs.
fn fill(
    known: &mut ModelPrices,
    other: &ModelPrices,
    source: &str,
    at: UnixMillis,
    added: &mut Added,
) {
    let plain = PLAIN.map(|class| RateKey::new(Billable::Tokens(class)));
    let now = |prices: &ModelPrices, line: &RateKey| prices.in_force(line, at);
    let is_same = plain
        .iter()
        .all(|line| now(known, line) == now(other, line));
    if !(is_same && other.has_token_rates()) {
        return;
    }
    added.agreed += 1;
    let lines: BTreeSet<RateKey> = other.rates.keys().map(RateKey::without_day).collect();
    for line in lines {
        let days = |prices: &ModelPrices| {
            let of_line = prices.rates.iter();
            let of_line = of_line.filter(|(key, _)| key.without_day() == line);
            of_line
                .map(|(key, nanos)| (key.clone(), *nanos))
                .collect::<Vec<_>>()
        };
        let (ours, theirs) = (days(known), days(other));
        let is_new = ours.is_empty();
        // Cheaper hours take the place of the line as it is there.
        let has_hours = |off_peak: &OffPeak| off_peak.rates.contains_key(&line);
        let is_by_hour = known.off_peak.as_ref().is_some_and(has_hours);
        let knows_days = theirs.len() > 1 && ours.len() == 1 && !is_by_hour;
        let is_dated = knows_days && now(known, &line) == now(other, &line);
        if !(is_new || is_dated) {
            continue;
        }
        added.rates += usize::from(is_new);
        added.dated += usize::from(!is_new);
        for (key, nanos) in theirs {
            known.origins.rates.insert(key.clone(), source.to_owned());
            known.rates.insert(key, nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{Format, read};

    const LITELLM: &str = r#"{
        "gpt-a":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":2e-6,"output_cost_per_token":8e-6},
        "gpt-b":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":1e-6,"output_cost_per_token":2e-6},
        "fireworks_ai/q":{"litellm_provider":"fireworks_ai","mode":"chat","input_cost_per_token":1e-6,"output_cost_per_token":2e-6}}"#;
    const GENAI: &str = r#"[{"id":"openai","models":[
        {"id":"gpt-a","match":{"equals":"gpt-a"},"prices":[
          {"prices":{"input_mtok":10,"output_mtok":40,"cache_read_mtok":2.5}},
          {"constraint":{"start_date":"2025-06-10"},"prices":{"input_mtok":2,"output_mtok":8,"cache_read_mtok":0.5}}]},
        {"id":"gpt-b","match":{"equals":"gpt-b"},"prices":{"input_mtok":3,"output_mtok":2,"cache_read_mtok":0.1}},
        {"id":"gpt-b-2026-01-01","match":{},"prices":{"input_mtok":4,"output_mtok":2}},
        {"id":"eu/gpt-b","match":{},"prices":{"input_mtok":25,"output_mtok":6}},
        {"id":"gpt-c","match":{"or":[{"equals":"gpt-c-old"}]},"prices":{"input_mtok":7}}]},
      {"id":"fireworks-ai","models":[{"id":"q","match":{"equals":"q"},"prices":{"input_mtok":1,"output_mtok":2}}]}]"#;

    fn book() -> (PriceBook, Combined) {
        let source = |name: &str| Source {
            name: name.into(),
            text: name.into(),
            date: "2026-11-22".into(),
        };
        let draft = |format: Format, text: &str| {
            let format_of = Format::of(text.as_bytes());
            assert_eq!(format_of, format);
            read(format, text.as_bytes(), "t", "s").unwrap().draft
        };
        let sources = vec![
            (source("litellm"), draft(Format::Litellm, LITELLM)),
            (source("genai-prices"), draft(Format::GenaiPrices, GENAI)),
        ];
        let at = UnixMillis::parse_rfc3339("2026-11-22T00:00:00Z").unwrap();
        let combined = combine(sources, "both", at).unwrap();
        (combined.draft.finish().unwrap(), combined)
    }

    fn rates(book: &PriceBook, provider: &str, model: &str) -> String {
        let (prices, _, _) = book.find(provider, model).unwrap();
        let text = |(key, nanos): (&RateKey, &u64)| {
            format!("{key}={}:{}", nanos / 1_000_000, book.origin(prices, key).0)
        };
        prices.rates.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_source_says_what_a_model_costs_and_later_ones_add_what_it_does_not_know() {
        let (book, combined) = book();
        assert_eq!(
            rates(&book, "openai", "gpt-a"),
            "input=10000:genai-prices input@2025-06-10T00:00:00Z=2000:genai-prices \
             cache_read=2500:genai-prices cache_read@2025-06-10T00:00:00Z=500:genai-prices \
             output=40000:genai-prices output@2025-06-10T00:00:00Z=8000:genai-prices \
             code_interpreter_calls=30:litellm file_search_calls=2:litellm"
        );
        assert_eq!(
            rates(&book, "openai", "gpt-b"),
            "input=1000:litellm output=2000:litellm code_interpreter_calls=30:litellm \
             file_search_calls=2:litellm"
        );
        assert_eq!(
            rates(&book, "openai", "gpt-c-old"),
            "input=7000:genai-prices"
        );
        assert_eq!(
            rates(&book, "openai", "gpt-b-2026-01-01"),
            "input=4000:genai-prices output=2000:genai-prices"
        );
        assert_eq!(book.models().len(), 5, "providers are spelt in two ways");
        let slip = ("openai".to_owned(), "eu/gpt-b".to_owned());
        assert!(book.unpriced().contains(&slip));
        let expected = Added {
            source: "genai-prices".into(),
            models: 2,
            common: 3,
            agreed: 2,
            rates: 1,
            dated: 2,
            slips: 1,
        };
        assert_eq!(combined.added, [expected]);
    }

    #[test]
    fn a_book_of_several_sources_is_read_as_it_was_written() {
        let (book, _) = book();
        let again = PriceBook::parse(book.text()).unwrap();
        assert_eq!(again.to_draft(), book.to_draft());
        assert_eq!(again.sources().len(), 2);
        let (prices, _, _) = again.find("openai", "gpt-b").unwrap();
        let output = "output".parse().unwrap();
        assert_eq!(again.origin(prices, &output), ("litellm", "2026-11-22"));
    }
}
