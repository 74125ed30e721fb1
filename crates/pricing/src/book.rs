//! A price book: an immutable, named set of prices.

use std::sync::Arc;

/// An immutable version of all prices.
#[derive(Debug)]
pub struct PriceBook {
    version: String,
}

impl PriceBook {
    /// The book inside the binary.
    pub fn snapshot() -> Arc<Self> {
        Arc::new(Self {
            version: "snapshot".into(),
        })
    }

    /// The version's name.
    pub fn version(&self) -> &str {
        &self.version
    }
}
