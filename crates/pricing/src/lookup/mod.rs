//! From the names in a call to the prices of a model.
//!
//! In this order: exactly (provider, model) → alias → the model without date or version → without
//! the prefixes of resellers and regions → the same provider under a longer name → the provider that
//! a gateway's name has in front or behind → Bedrock, for names with its regions, and for its own
//! where no provider is said → the bare name at any provider that is not free: its maker wins, else
//! the dearest → nothing (`None`: unpriced). Each with other [spellings](name::spellings) of the
//! name, too. [`ceiling`] says what an unpriced call costs. All of this runs once per name;
//! [`crate::Pricer`] remembers it.

pub(crate) mod ceiling;
mod family;
mod index;
mod name;
pub(crate) mod names;
mod regions;

pub(crate) use index::{Index, WORLD};
pub(crate) use name::{Variant, bare, bare_forms};

/// How a model's prices were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Provider and model as they are in the book.
    Exact,
    /// By an alias.
    Alias,
    /// Without a date, version, region or reseller's prefix; the same provider.
    Shortened,
    /// By the bare name, at the model's maker.
    Maker,
    /// By the bare name, at another provider.
    Bare,
    /// In one of the ways above, and the region of the call has prices of its own.
    Region,
}

impl Match {
    /// In words, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact name",
            Self::Alias => "alias",
            Self::Shortened => "name without date, version or prefix",
            Self::Maker => "bare name at its maker",
            Self::Bare => "bare name at another provider",
            Self::Region => "prices of the region",
        }
    }
}
