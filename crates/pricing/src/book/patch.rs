//! Changes to a book: what `spendfuse prices set` does. A patch never edits a version, it makes a
//! new one.

use super::{Alias, BookDraft, ModelPrices, Origins, PriceBook};
use crate::error::BookError;
use crate::provider;
use crate::rate::RateKey;

/// Source of a rate that `spendfuse prices set` set.
pub const OPERATOR: &str = "set";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets one rate; the model appears (as a chat model) where it was unknown.
    SetRate {
        /// Any of the provider's names.
        provider: String,
        /// Model.
        model: String,
        /// Which rate.
        key: RateKey,
        /// Nano-dollars per million tokens or per unit.
        nanos: u64,
    },
    /// Takes one rate away, and with its last rate the model; nothing happens where it is unknown.
    RemoveRate {
        /// Any of the provider's names.
        provider: String,
        /// Model.
        model: String,
        /// Which rate.
        key: RateKey,
    },
    /// Takes a model away; nothing happens where it is unknown.
    RemoveModel {
        /// Any of the provider's names.
        provider: String,
        /// Model.
        model: String,
    },
    /// Gives a model another name, replacing what the name meant.
    SetAlias(Alias),
}

/// Changes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Label of the new version; empty keeps the base's.
    pub label: String,
    /// The changes.
    pub changes: Vec<Change>,
}

impl PriceBook {
    /// The book that differs from this one by `patch`.
    ///
    /// # Errors
    /// As [`BookDraft::finish`].
    pub fn patched(&self, patch: &Patch) -> Result<Self, BookError> {
        let mut draft = self.to_draft();
        if !patch.label.is_empty() {
            draft.label.clone_from(&patch.label);
        }
        for change in &patch.changes {
            apply(&mut draft, change);
        }
        draft.finish()
    }
}

fn apply(draft: &mut BookDraft, change: &Change) {
    // As calls are looked up: without blanks around them.
    let name = |provider: &str, model: &str| {
        let provider = provider::canonical(provider.trim()).into_owned();
        (provider, model.trim().to_owned())
    };
    match change {
        Change::SetRate {
            provider,
            model,
            key,
            nanos,
        } => {
            let name = name(provider, model);
            let unknown = ModelPrices {
                provider: name.0.clone(),
                model: name.1.clone(),
                mode: "chat".into(),
                rates: Default::default(),
                factors: Default::default(),
                off_peak: None,
                origins: Origins::default(),
            };
            let prices = draft.models.entry(name).or_insert(unknown);
            if let Some(off_peak) = &mut prices.off_peak {
                // What an operator sets holds at every hour.
                off_peak.rates.remove(key);
            }
            prices.rates.insert(key.clone(), *nanos);
            let origin = OPERATOR.to_owned();
            prices.origins.rates.insert(key.clone(), origin);
        }
        Change::RemoveRate {
            provider,
            model,
            key,
        } => {
            let name = name(provider, model);
            if let Some(prices) = draft.models.get_mut(&name) {
                prices.rates.remove(key);
                prices.origins.rates.remove(key);
                if prices.rates.is_empty() {
                    draft.models.remove(&name);
                }
            }
        }
        Change::RemoveModel { provider, model } => {
            draft.models.remove(&name(provider, model));
        }
        Change::SetAlias(alias) => {
            let same_name =
                |other: &Alias| (&other.provider, &other.model) == (&alias.provider, &alias.model);
            draft.aliases.retain(|other| !same_name(other));
            draft.aliases.insert(alias.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::{Billable, TokenClass};

    #[test]
    fn a_patch_makes_a_new_version_and_leaves_the_base() {
        let base = PriceBook::snapshot();
        let input = RateKey::new(Billable::Tokens(TokenClass::Input));
        let set = Change::SetRate {
            provider: "OpenAI".into(),
            model: "gpt-4o".into(),
            key: input.clone(),
            nanos: 1,
        };
        let patch = Patch {
            label: "ours".into(),
            changes: vec![set],
        };
        let patched = base.patched(&patch).unwrap();
        let rate = |book: &PriceBook| {
            let found = book.models().iter().find(|prices| {
                (prices.provider.as_str(), prices.model.as_str()) == ("openai", "gpt-4o")
            });
            found.unwrap().rates[&input]
        };
        assert_eq!((rate(&base), rate(&patched)), (2_500_000_000, 1));
        assert!(patched.version().starts_with("ours-"));
        assert_eq!(base.models().len(), patched.models().len());
    }
}
