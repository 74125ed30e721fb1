//! Price books over the year, and what a call costs by them, in the year's own arithmetic.

use std::collections::BTreeMap;
use std::sync::Arc;

use spendfuse_pricing::PriceBook;

use crate::random::Random;
use crate::traffic::Call;

pub(crate) const MODELS: [&str; 3] = ["small", "large", "thinker"];

/// Nano-dollars per million tokens: input, cached input, output.
type Rates = [i128; 3];

#[derive(Debug, Default)]
pub(crate) struct Prices {
    versions: BTreeMap<String, BTreeMap<&'static str, Rates>>,
    /// When each came into force, the newest last.
    pub(crate) since: Vec<(i64, String)>,
}

impl Prices {
    /// A new book with other rates; its records.
    pub(crate) fn draw(&mut self, now: i64, random: &mut Random) -> Arc<PriceBook> {
        let mut rates = BTreeMap::new();
        let mut text = format!(
            "{{\"spendfuse_prices\":1,\"label\":\"year-{}\",\"source\":\"drawn\",\"models\":3,\"aliases\":0}}\n",
            self.versions.len()
        );
        let mut models = MODELS;
        models.sort_unstable();
        for model in models {
            let input = i128::from(random.between(100_000_000, 5_000_000_000));
            let own = [input, input / 4 + 1, input * 4 + 3];
            let [input, cached, output] = own;
            text += &format!(
                "{{\"provider\":\"openai\",\"model\":\"{model}\",\"mode\":\"chat\",\"rates\":{{\"input\":{input},\"cache_read\":{cached},\"output\":{output}}}}}\n"
            );
            rates.insert(model, own);
        }
        let book = PriceBook::parse(&text).expect("the text is canonical");
        self.since.push((now, book.version().to_owned()));
        self.versions.insert(book.version().to_owned(), rates);
        Arc::new(book)
    }

    /// Nano-dollars, rounded up once; `None` for a book that was never made.
    pub(crate) fn cost(&self, version: &str, call: &Call) -> Option<i128> {
        let [input, cached, output] = self.versions.get(version)?.get(call.model)?;
        let millionths =
            (call.input - call.cached) * input + call.cached * cached + call.output * output;
        Some((millionths + 999_999).div_euclid(1_000_000))
    }

    /// The version in force at `time`.
    pub(crate) fn at(&self, time: i64) -> Option<&str> {
        let known = self.since.iter().rev().find(|(since, _)| *since <= time);
        known.map(|(_, version)| version.as_str())
    }
}
