//! Where a setting's value comes from: command line, environment, file, default, in this order.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::environment::{Environment, add_environment};
use super::keys::KEYS;
use super::table::{FREE_TABLES, SETTINGS, not_yet};
use super::{SettingsError, similar};

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "spendfuse.toml";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing was given.
    Default,
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// `--set`.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment(variable) => write!(formatter, "${variable}"),
            Self::CommandLine => formatter.write_str("--set"),
        }
    }
}

/// A value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The value, as text.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// All settings, by key.
pub type ResolvedSettings = BTreeMap<String, Resolved>;

/// Resolves every setting. `file` must exist where it is named; without it `spendfuse.toml` is read
/// if it is there. `overrides` are `KEY=VALUE`.
///
/// # Errors
/// [`SettingsError`] for a file that cannot be read, an unknown key, a malformed override.
pub fn resolve(
    file: Option<&Path>,
    environment: &dyn Environment,
    overrides: &[String],
) -> Result<ResolvedSettings, SettingsError> {
    let mut resolved: ResolvedSettings = SETTINGS
        .iter()
        .map(|setting| {
            (
                setting.key.to_owned(),
                Resolved {
                    value: setting.default.to_owned(),
                    source: Source::Default,
                },
            )
        })
        .collect();
    add_file(&mut resolved, file)?;
    add_environment(&mut resolved, environment)?;
    for one in overrides {
        let (key, value) = one
            .split_once('=')
            .ok_or_else(|| SettingsError::Override(one.clone()))?;
        known_key(key).map_err(|suggestion| unknown(key, "--set", suggestion))?;
        insert(&mut resolved, key, value.to_owned(), Source::CommandLine);
    }
    Ok(resolved)
}

fn add_file(resolved: &mut ResolvedSettings, file: Option<&Path>) -> Result<(), SettingsError> {
    let path = match file {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).exists() => Path::new(DEFAULT_FILE),
        None => return Ok(()),
    };
    let failed = |reason: String| SettingsError::File {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut tree: Table = text
        .parse()
        .map_err(|error: toml::de::Error| failed(no_toml(&text, &error)))?;
    let mut values = Vec::new();
    match tree.remove(KEYS) {
        Some(Value::Array(keys)) => values.push((KEYS.to_owned(), keys.len().to_string())),
        Some(_) => return Err(failed("each key begins with [[keys]]".to_owned())),
        None => {}
    }
    flatten("", &Value::Table(tree), &mut values);
    for (key, value) in values {
        if key == KEYS {
            insert(resolved, &key, value, Source::File(path.to_owned()));
            continue;
        }
        known_key(&key)
            .map_err(|suggestion| unknown(&key, &path.display().to_string(), suggestion))?;
        insert(resolved, &key, value, Source::File(path.to_owned()));
    }
    Ok(())
}

/// What is wrong and where. toml's own words show the line, which may hold a password.
pub(super) fn no_toml(text: &str, error: &toml::de::Error) -> String {
    let begin = error.span().map_or(0, |span| span.start);
    format!("line {}: {}", line_of(text, begin), error.message())
}

/// The number of the line with this byte.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    let before = &text.as_bytes()[..byte.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Leaves of the tree as dotted keys; a list becomes its items with commas.
fn flatten(prefix: &str, tree: &Value, values: &mut Vec<(String, String)>) {
    match tree {
        Value::Table(entries) => {
            for (name, value) in entries {
                let key = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&key, value, values);
            }
        }
        Value::Array(items) => {
            let texts: Vec<_> = items.iter().map(plain_text).collect();
            values.push((prefix.to_owned(), texts.join(",")));
        }
        leaf => values.push((prefix.to_owned(), plain_text(leaf))),
    }
}

fn plain_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn insert(resolved: &mut ResolvedSettings, key: &str, value: String, source: Source) {
    resolved.insert(key.to_owned(), Resolved { value, source });
}

/// `Err` carries the most similar known key.
fn known_key(key: &str) -> Result<(), Option<&'static str>> {
    let free = FREE_TABLES
        .iter()
        .any(|(prefix, _)| key.starts_with(prefix));
    if free || SETTINGS.iter().any(|setting| setting.key == key) {
        return Ok(());
    }
    Err(similar(key, SETTINGS.iter().map(|setting| setting.key)))
}

fn unknown(key: &str, place: &str, suggestion: Option<&str>) -> SettingsError {
    SettingsError::Unknown {
        key: key.to_owned(),
        place: place.to_owned(),
        hint: match (not_yet(|known| known == key), suggestion) {
            (Some(why), _) => why.to_owned(),
            (None, Some(name)) => format!("did you mean `{name}`?"),
            (None, None) => "`spendfuse config` lists all settings".to_owned(),
        },
    }
}
