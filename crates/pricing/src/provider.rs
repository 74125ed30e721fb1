//! Names of providers.

/// The book's name for `provider`.
pub fn canonical(provider: &str) -> &str {
    provider
}
