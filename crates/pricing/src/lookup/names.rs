//! A provider and a model as the key of a table, owned and borrowed.

use hashbrown::Equivalent;

/// Names of a provider and of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Names {
    pub(crate) provider: String,
    pub(crate) model: String,
}

/// [`Names`], borrowed. Must hash like them: two texts, in this order.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct NamesRef<'a> {
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
}

impl Equivalent<Names> for NamesRef<'_> {
    fn equivalent(&self, key: &Names) -> bool {
        self.provider == key.provider && self.model == key.model
    }
}
