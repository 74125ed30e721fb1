//! The configuration in force: `spendfuse.toml`, then `SPENDFUSE_…` variables, then `--set`.
//!
//! [`table`] lists every setting, [`resolve`] finds each value and where it came from, [`kinds`]
//! reads them as what they are, and [`Settings`] holds them.

mod environment;
mod instance;
mod keys;
mod kinds;
mod notifier;
mod proxy;
mod resolve;
mod secrets;
mod table;
mod unknown;
mod values;

use std::path::PathBuf;

pub use environment::ProcessEnvironment;
pub use instance::{host_name, name_instance};
pub use keys::{check as check_keys, is_name as is_key_name};
pub use kinds::Kind;
pub use resolve::{Resolved, ResolvedSettings, Source, resolve};
pub use secrets::{shown, split_credentials};
pub use table::SETTINGS;
use table::variable;
pub use unknown::unknown_variables;
pub use values::Settings;
#[cfg(test)]
pub use {table::FREE_TABLES, unknown::is_known as is_known_variable};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file that cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown setting `{key}` in {place}; {hint}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        place: String,
        /// What may have been meant.
        hint: String,
    },
    /// A variable, and one that names a file with its value.
    #[error("${0} and ${0}_FILE are both set; keep one of them")]
    Twice(String),
    /// `--set` without `=`.
    #[error("--set {0}: write KEY=VALUE, such as --set partitions=8")]
    Override(String),
    /// A value that cannot be read.
    #[error("{key} = \"{value}\" (from {place}): {reason}")]
    Value {
        /// The key.
        key: String,
        /// The value; hidden where secret.
        value: String,
        /// Where it came from.
        place: String,
        /// What is wrong, and what to write.
        reason: String,
    },
}

/// An error about the value of `key`.
fn wrong(resolved: &ResolvedSettings, key: &str, reason: &str) -> SettingsError {
    let found = resolved.get(key);
    SettingsError::Value {
        key: key.to_owned(),
        value: shown(key, found.map_or("", |found| &found.value)),
        place: found.map_or_else(|| variable(key), |found| found.source.to_string()),
        reason: reason.to_owned(),
    }
}

/// The name most like `name`, where one is like enough to have been meant.
fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similarity = |one: &str| (strsim::jaro_winkler(one, name) * 1000.0) as u32;
    let nearest = known.max_by_key(|one| similarity(one))?;
    (similarity(nearest) > 800).then_some(nearest)
}
