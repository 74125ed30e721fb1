//! Canonical text of a price book: JSON lines, sorted, each fact written in one way only.
//!
//! ```text
//! {"spendfuse_prices":1,"label":"snapshot-2026-11-28","source":"…","models":9100,"aliases":0}
//! {"provider":"openai","model":"gpt-4o","mode":"chat","rates":{"input":2500000000,"input:batch":1250000000}}
//! {"provider":"vertex_ai",…,"factors":{"region":1100000}}
//! {"provider":"deepseek",…,"off_peak":{"windows":["6 00:00-24:00"],"rates":{"input":660000000}}}
//! {"provider":"zai",…,"source":"models.dev","date":"2026-08-06","rate_sources":{"cache_read":"genai-prices"}}
//! {"alias":"fast","provider":"","to_provider":"openai","to_model":"gpt-4o-mini"}
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Alias, BookDraft, ModelPrices, Origins, PriceBook, Source};
use crate::error::BookError;
use crate::lookup::Index;
use crate::off_peak::OffPeak;
use crate::rate::{Billable, RateKey};

/// Ten dollars a token, which nothing costs; keeps the sum of one call inside `i128`.
const LARGEST_TOKEN_RATE: u64 = 10_000_000_000_000_000;
/// A thousand dollars a unit, which nothing costs; keeps the sum of one call inside `i128`.
const LARGEST_UNIT_RATE: u64 = 1_000_000_000_000;
/// Ten times the rate; two of them keep the sum of one call inside `i128`.
const LARGEST_FACTOR: u32 = 10_000_000;
const LONGEST_LABEL: usize = 40;
const HASH_DIGITS_IN_VERSION: usize = 12;

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    spendfuse_prices: u32,
    #[serde(borrow)]
    label: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    models: usize,
    aliases: usize,
    /// Provider → models that there are, but whose price is not known. Not lines of their own, which
    /// readers of the first releases would refuse.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    unpriced: BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<SourcePart<'a>>,
}

#[derive(Serialize, Deserialize)]
struct SourcePart<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    date: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    text: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct ModelLine<'a> {
    #[serde(borrow)]
    provider: Cow<'a, str>,
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    mode: Cow<'a, str>,
    rates: BTreeMap<Cow<'a, str>, u64>,
    /// Books of the first release have none.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    factors: BTreeMap<Cow<'a, str>, u32>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    off_peak: Option<OffPeakPart<'a>>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    source: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    date: Cow<'a, str>,
    /// Of single rates.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    rate_sources: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct OffPeakPart<'a> {
    #[serde(borrow)]
    windows: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    rates: BTreeMap<Cow<'a, str>, u64>,
}

#[derive(Serialize, Deserialize)]
struct AliasLine<'a> {
    #[serde(borrow)]
    alias: Cow<'a, str>,
    #[serde(borrow)]
    provider: Cow<'a, str>,
    #[serde(borrow)]
    to_provider: Cow<'a, str>,
    #[serde(borrow)]
    to_model: Cow<'a, str>,
}

/// The canonical text of `draft`.
pub(super) fn write(draft: &BookDraft) -> String {
    let mut unpriced: BTreeMap<Cow<'_, str>, Vec<Cow<'_, str>>> = BTreeMap::new();
    for name in &draft.unpriced {
        // One that has a price by now is not among them.
        if !draft.models.contains_key(name) {
            let of_provider = unpriced.entry((&name.0).into()).or_default();
            of_provider.push((&name.1).into());
        }
    }
    let header = Header {
        spendfuse_prices: 1,
        label: (&draft.label).into(),
        source: (&draft.source).into(),
        models: draft.models.len(),
        aliases: draft.aliases.len(),
        unpriced,
        sources: { draft.sources.iter() }
            .map(|source| SourcePart {
                name: (&source.name).into(),
                date: (&source.date).into(),
                text: (&source.text).into(),
            })
            .collect(),
    };
    let mut text = to_line(&header);
    for prices in draft.models.values() {
        text += &to_line(&ModelLine {
            provider: (&prices.provider).into(),
            model: (&prices.model).into(),
            mode: (&prices.mode).into(),
            rates: written(&prices.rates),
            off_peak: prices.off_peak.as_ref().map(|off_peak| OffPeakPart {
                windows: { off_peak.windows.iter() }
                    .map(|window| window.to_string().into())
                    .collect(),
                rates: written(&off_peak.rates),
            }),
            source: (&prices.origins.model).into(),
            date: (&prices.origins.date).into(),
            rate_sources: { prices.origins.rates.iter() }
                .map(|(key, source)| (key.to_string().into(), source.into()))
                .collect(),
            factors: prices
                .factors
                .iter()
                .map(|(name, millionths)| (name.into(), *millionths))
                .collect(),
        });
    }
    for alias in &draft.aliases {
        text += &to_line(&AliasLine {
            alias: (&alias.model).into(),
            provider: (&alias.provider).into(),
            to_provider: (&alias.to_provider).into(),
            to_model: (&alias.to_model).into(),
        });
    }
    text
}

fn written(rates: &BTreeMap<RateKey, u64>) -> BTreeMap<Cow<'_, str>, u64> {
    let rates = rates.iter();
    rates
        .map(|(key, rate)| (key.to_string().into(), *rate))
        .collect()
}

fn to_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("texts and integers always serialise");
    line.push('\n');
    line
}

/// The book with this canonical text.
pub(super) fn parse(text: &str) -> Result<PriceBook, BookError> {
    let mut lines = text.lines().enumerate();
    let (_, first) = lines.next().unwrap_or((0, ""));
    let header: Header<'_> = read(0, first)?;
    if header.spendfuse_prices != 1 {
        return Err(wrong(0, "written by a newer version of spendfuse"));
    }
    check_label(&header.label)?;
    let mut models = Vec::with_capacity(header.models.min(1 << 16));
    let mut aliases = Vec::new();
    for (number, line) in lines {
        if line.starts_with("{\"alias\":") {
            let alias: AliasLine<'_> = read(number, line)?;
            aliases.push(Alias {
                provider: alias.provider.into_owned(),
                model: alias.alias.into_owned(),
                to_provider: alias.to_provider.into_owned(),
                to_model: alias.to_model.into_owned(),
            });
        } else {
            models.push(parse_model(number, line)?);
        }
    }
    if (models.len(), aliases.len()) != (header.models, header.aliases) {
        return Err(wrong(
            0,
            "the counts of models and aliases do not fit the lines",
        ));
    }
    let name = |prices: &ModelPrices| (prices.provider.clone(), prices.model.clone());
    if let Some(index) = models
        .windows(2)
        .position(|pair| name(&pair[0]) >= name(&pair[1]))
    {
        return Err(wrong(
            index + 2,
            "models are not sorted, or one is there twice",
        ));
    }
    let sha256 = hex(&Sha256::digest(text.as_bytes()));
    let unpriced: BTreeSet<(String, String)> = { header.unpriced.iter() }
        .flat_map(|(provider, models)| {
            let models = models.iter();
            models.map(move |model| (provider.to_string(), model.to_string()))
        })
        .collect();
    let index = Index::new(&models, &aliases, &unpriced);
    Ok(PriceBook {
        version: format!("{}-{}", header.label, &sha256[..HASH_DIGITS_IN_VERSION]),
        sha256,
        label: header.label.into_owned(),
        source: header.source.into_owned(),
        sources: { header.sources.into_iter() }
            .map(|source| Source {
                name: source.name.into_owned(),
                date: source.date.into_owned(),
                text: source.text.into_owned(),
            })
            .collect(),
        text: text.to_owned(),
        models,
        aliases,
        unpriced,
        index,
    })
}

fn parse_model(number: usize, line: &str) -> Result<ModelPrices, BookError> {
    let parsed: ModelLine<'_> = read(number, line)?;
    let rates = parse_rates(number, &parsed.rates)?;
    if rates.is_empty() {
        return Err(wrong(number, "a model without any rate"));
    }
    let off_peak = parsed.off_peak.map(|part| parse_off_peak(number, &part));
    let origins = parsed.rate_sources.into_iter().map(|(text, source)| {
        let key = text.parse().map_err(|reason: String| wrong(number, reason));
        Ok((key?, source.into_owned()))
    });
    let origins: Result<BTreeMap<RateKey, String>, BookError> = origins.collect();
    if let Some((name, factor)) = parsed
        .factors
        .iter()
        .find(|(_, factor)| **factor > LARGEST_FACTOR)
    {
        let reason = format!("factor {name} is {factor}, more than {LARGEST_FACTOR} millionths");
        return Err(wrong(number, reason));
    }
    let factors = parsed.factors.into_iter();
    Ok(ModelPrices {
        provider: parsed.provider.into_owned(),
        model: parsed.model.into_owned(),
        mode: parsed.mode.into_owned(),
        rates,
        factors: factors
            .map(|(name, millionths)| (name.into_owned(), millionths))
            .collect(),
        off_peak: off_peak.transpose()?,
        origins: Origins {
            model: parsed.source.into_owned(),
            rates: origins?,
            date: parsed.date.into_owned(),
        },
    })
}

fn parse_off_peak(number: usize, part: &OffPeakPart<'_>) -> Result<OffPeak, BookError> {
    let windows = part.windows.iter().map(|window| window.parse());
    let windows: Result<Vec<_>, String> = windows.collect();
    Ok(OffPeak {
        windows: windows.map_err(|reason| wrong(number, reason))?,
        rates: parse_rates(number, &part.rates)?,
    })
}

fn parse_rates(
    number: usize,
    written: &BTreeMap<Cow<'_, str>, u64>,
) -> Result<BTreeMap<RateKey, u64>, BookError> {
    let mut rates = BTreeMap::new();
    for (text, rate) in written {
        let key: RateKey = text
            .parse()
            .map_err(|reason: String| wrong(number, reason))?;
        let largest = match key.billable {
            Billable::Tokens(_) => LARGEST_TOKEN_RATE,
            Billable::Units(_) => LARGEST_UNIT_RATE,
        };
        if *rate > largest {
            let reason = format!("rate {text} is {rate}, more than {largest} nano-dollars");
            return Err(wrong(number, reason));
        }
        rates.insert(key, *rate);
    }
    Ok(rates)
}

fn read<'a, T: Deserialize<'a>>(number: usize, line: &'a str) -> Result<T, BookError> {
    serde_json::from_str(line).map_err(|error| wrong(number, error.to_string()))
}

fn wrong(number: usize, reason: impl Into<String>) -> BookError {
    BookError::Line {
        line: number + 1,
        reason: reason.into(),
    }
}

fn check_label(label: &str) -> Result<(), BookError> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let fits = (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(allowed);
    if fits {
        return Ok(());
    }
    Err(BookError::Label {
        label: label.chars().take(80).collect(),
    })
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "{\"spendfuse_prices\":1,\"label\":\"t\",\"source\":\"\",\"models\":1,\"aliases\":0}\n";

    #[test]
    fn a_wrong_line_is_named() {
        for (line, reason) in [
            (
                "{\"provider\":\"p\",\"model\":\"m\",\"mode\":\"chat\",\"rates\":{}}",
                "without any rate",
            ),
            (
                "{\"provider\":\"p\",\"model\":\"m\",\"mode\":\"chat\",\"rates\":{\"inputs\":1}}",
                "no token class",
            ),
            (
                "{\"provider\":\"p\",\"model\":\"m\",\"mode\":\"chat\",\"rates\":{\"images\":1000000000001}}",
                "more than",
            ),
        ] {
            let error = parse(&format!("{HEADER}{line}\n")).unwrap_err().to_string();
            assert!(
                error.contains("line 2") && error.contains(reason),
                "{error}"
            );
        }
        assert!(parse(HEADER).unwrap_err().to_string().contains("counts"));
    }

    #[test]
    fn the_version_names_the_content() {
        let model =
            "{\"provider\":\"p\",\"model\":\"m\",\"mode\":\"chat\",\"rates\":{\"input\":1}}\n";
        let one = parse(&format!("{HEADER}{model}")).unwrap();
        let other = parse(&format!("{HEADER}{}", model.replace(":1}", ":2}"))).unwrap();
        assert!(one.version().starts_with("t-") && one.version().len() == 14);
        assert_ne!(one.version(), other.version());
        assert_eq!(one.to_draft().finish().unwrap().text(), one.text());
    }
}
