//! A price book: an immutable, named set of all prices.
//!
//! What goes in: a [`BookDraft`] (from an import, a patch) or canonical text (from the binary, from
//! topic `spendfuse.prices`). What comes out: a [`PriceBook`] whose name contains the hash of that
//! text, so that two books of one name are equal. Old versions stay in the topic; history can be
//! priced again with any of them.

mod diff;
mod draft;
mod patch;
pub mod records;
mod renew;
mod rows;
mod text;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

pub use diff::{Comparison, RateChange, RateDifference};
pub use draft::{Alias, BookDraft, ModelPrices, Origins, Source};
pub use patch::{Change, OPERATOR, Patch};
pub use renew::{Jump, Renewal};
pub use rows::PriceRow;

use crate::error::BookError;
use crate::lookup::{Index, Match};
use crate::rate::RateKey;

/// The prices that the binary brings along: canonical text, see `data/prices/README.md`.
const SNAPSHOT: &str = include_str!("../../../../data/prices/snapshot.jsonl");

/// An immutable version of all prices.
#[derive(Debug)]
pub struct PriceBook {
    version: String,
    sha256: String,
    label: String,
    source: String,
    sources: Vec<Source>,
    /// Canonical text: what the hash is over.
    text: String,
    /// Sorted by provider, then model.
    models: Vec<ModelPrices>,
    aliases: Vec<Alias>,
    unpriced: BTreeSet<(String, String)>,
    index: Index,
}

impl PriceBook {
    /// The book inside the binary; read once per process (some 60 ms).
    pub fn snapshot() -> Arc<Self> {
        static BOOK: LazyLock<Arc<PriceBook>> = LazyLock::new(|| {
            let book = PriceBook::parse(SNAPSHOT).expect("the snapshot is checked by tests");
            Arc::new(book)
        });
        Arc::clone(&BOOK)
    }

    /// The version's name: label and the first 12 hex digits of the SHA-256 of the canonical text.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of the canonical text, 64 hex digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Who named it what.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where the prices come from, in words.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The sources that rates name; empty where all are from one.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Who says what the rate `key` of `prices` is, and of which day it is; empty where the book does
    /// not say.
    pub fn origin<'a>(&'a self, prices: &'a ModelPrices, key: &RateKey) -> (&'a str, &'a str) {
        let of_rate = prices.origins.rates.get(key);
        let name = of_rate.unwrap_or(&prices.origins.model).as_str();
        if of_rate.is_none() && !prices.origins.date.is_empty() {
            return (name, &prices.origins.date);
        }
        let source = self.sources.iter().find(|source| source.name == name);
        (name, source.map_or("", |source| &source.date))
    }

    /// Canonical text: a header line, then one JSON line per model and alias, sorted.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All models, sorted by provider and name.
    pub fn models(&self) -> &[ModelPrices] {
        &self.models
    }

    /// All aliases, sorted.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// Providers and models that there are, but whose price is not known.
    pub fn unpriced(&self) -> &BTreeSet<(String, String)> {
        &self.unpriced
    }

    /// The prices that a call of `model` at `provider` (which may be empty) is charged by, how they
    /// were found, and whether the price is ambiguous; `None` = unpriced.
    pub fn find(&self, provider: &str, model: &str) -> Option<(&ModelPrices, Match, bool)> {
        let found = self.index.find(&self.models, provider, model)?;
        Some((&self.models[found.index], found.how, found.ambiguous))
    }

    /// Works out what models are charged by that it does not have: otherwise the first call of one
    /// waits for it, some tens of milliseconds.
    pub fn prepare(&self) {
        self.index.ceilings(&self.models);
    }

    /// How names are found.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Everything in this book, to be changed into another one.
    pub fn to_draft(&self) -> BookDraft {
        BookDraft {
            label: self.label.clone(),
            source: self.source.clone(),
            sources: self.sources.clone(),
            models: self
                .models
                .iter()
                .map(|prices| {
                    let name = (prices.provider.clone(), prices.model.clone());
                    (name, prices.clone())
                })
                .collect(),
            aliases: self.aliases.iter().cloned().collect(),
            unpriced: self.unpriced.clone(),
        }
    }

    /// Reads canonical text.
    ///
    /// # Errors
    /// [`BookError::Line`] with the line that is wrong, [`BookError::Label`].
    pub fn parse(text: &str) -> Result<Self, BookError> {
        text::parse(text)
    }
}

impl BookDraft {
    /// Makes an immutable version of this draft.
    ///
    /// # Errors
    /// [`BookError::Label`] where the label cannot be part of a version's name, [`BookError::Line`]
    /// where a rate is out of range.
    pub fn finish(&self) -> Result<PriceBook, BookError> {
        PriceBook::parse(&text::write(self))
    }
}
