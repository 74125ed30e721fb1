//! Keys: `[[keys]]` of the configuration file and of `keys_file`, which are read again while roles run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use metrics::gauge;
use serde::Deserialize;
use spendfuse_bus::Shutdown;
use spendfuse_domain::event::MAX_TEXT_BYTES;
use spendfuse_domain::scope::Dimension;
use spendfuse_sidecar::keys::{Key, KeyHash, Keyring, PREFIX, Place, Right};
use spendfuse_sidecar::metrics::KEYS_UNREADABLE;
use toml::Spanned;

use super::resolve::{line_of, no_toml};
use super::{ResolvedSettings, SettingsError, Source};

/// The setting whose value is how many keys the configuration file has.
pub(super) const KEYS: &str = "keys";
/// How often the files are looked at: a key that is taken away is worth nothing a moment later.
const EVERY: Duration = Duration::from_secs(1);
const LONGEST_NAME: usize = 64;

/// Where keys are read from.
#[derive(Clone, Debug, Default)]
pub struct KeyFiles {
    paths: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    keys: Vec<Spanned<Entry>>,
}

/// A key as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hash: String,
    name: String,
    workspace: Option<String>,
    rights: Option<Vec<String>>,
    accept: Option<Vec<String>>,
    #[serde(default)]
    attribution: BTreeMap<String, String>,
    #[serde(default)]
    upstream: Names,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "upstream: write a name or a list of names")]
enum Names {
    One(String),
    Many(Vec<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl KeyFiles {
    /// The configuration file, if there is one, and the file of keys alone.
    pub(super) fn new(resolved: &ResolvedSettings, keys_file: Option<&PathBuf>) -> Self {
        let from_file = resolved.values().find_map(|found| match &found.source {
            Source::File(path) => Some(path),
            _ => None,
        });
        let paths = from_file.into_iter().chain(keys_file);
        Self {
            paths: paths.cloned().collect(),
        }
    }

    /// All keys.
    ///
    /// # Errors
    /// [`SettingsError::File`] for the first thing that is wrong, and where.
    pub fn read(&self) -> Result<Vec<Key>, SettingsError> {
        let mut keys = Vec::new();
        for (path, text) in self.paths.iter().zip(self.texts()?) {
            keys.extend(keys_of(path, &text)?);
        }
        Ok(keys)
    }

    /// An error about all of them together.
    pub(super) fn wrong(&self, reason: &str) -> SettingsError {
        SettingsError::File {
            path: self.paths.last().cloned().unwrap_or_default(),
            reason: reason.to_owned(),
        }
    }

    fn texts(&self) -> Result<Vec<String>, SettingsError> {
        let text = |path: &PathBuf| {
            fs::read_to_string(path).map_err(|error| SettingsError::File {
                path: path.clone(),
                reason: error.to_string(),
            })
        };
        self.paths.iter().map(text).collect()
    }

    /// Reads the keys again whenever a file changes, until the process stops. What cannot be read
    /// changes nothing.
    pub fn follow(&self, keyring: &Keyring, shutdown: &Shutdown) {
        if self.paths.is_empty() {
            return;
        }
        let (files, keyring, shutdown) = (self.clone(), keyring.clone(), shutdown.clone());
        let following = move || {
            // Read once more: a file may have changed since the start.
            let mut last = None;
            while !shutdown.wait(EVERY) {
                let texts = files.texts().map_err(|error| error.to_string());
                if last.as_ref() != Some(&texts) {
                    files.read_again(&keyring);
                    last = Some(texts);
                }
            }
        };
        let spawned = thread::Builder::new().name(KEYS.to_owned());
        if let Err(error) = spawned.spawn(following) {
            tracing::warn!(%error, "keys are not read again");
        }
    }

    fn read_again(&self, keyring: &Keyring) {
        let read = self.read().map_err(|error| error.to_string());
        let replaced = read.and_then(|keys| {
            let count = keys.len();
            let replaced = keyring.replace(keys).map_err(|error| error.to_string());
            replaced.map(|()| count)
        });
        gauge!(KEYS_UNREADABLE).set(f64::from(u8::from(replaced.is_err())));
        match replaced {
            Ok(count) => tracing::info!(count, "keys were read"),
            Err(error) => tracing::error!(error, "keys stay as they were"),
        }
    }
}

/// Whether this text is keys as their files have them.
///
/// # Errors
/// What is wrong, in words.
pub fn check(text: &str) -> Result<(), String> {
    let keys = keys_of(Path::new("the key"), text);
    keys.map(drop).map_err(|error| error.to_string())
}

fn keys_of(path: &Path, text: &str) -> Result<Vec<Key>, SettingsError> {
    let failed = |reason: String| SettingsError::File {
        path: path.to_owned(),
        reason,
    };
    let file: File = toml::from_str(text).map_err(|error| failed(no_toml(text, &error)))?;
    let entries = file.keys.into_iter();
    entries
        .map(|entry| {
            let line = line_of(text, entry.span().start);
            let read = key(entry.into_inner());
            read.map_err(|reason| failed(format!("line {line}: {reason}")))
        })
        .collect()
}

fn key(entry: Entry) -> Result<Key, String> {
    let hash = KeyHash::parse(&entry.hash).ok_or(
        "hash has 64 hexadecimal digits, the SHA-256 of a key: `spendfuse keys new` prints one",
    )?;
    if !is_name(&entry.name) {
        return Err(format!(
            "name has 1 to {LONGEST_NAME} letters, digits, - . _ or spaces, and is not the key itself"
        ));
    }
    if entry
        .workspace
        .as_deref()
        .is_some_and(|name| !is_value(name))
    {
        return Err(format!("workspace has 1 to {MAX_TEXT_BYTES} bytes"));
    }
    for (name, value) in &entry.attribution {
        // Whose calls they are, not which: a key that named a model would change what they cost.
        let is_no_owner = |dimension| {
            matches!(
                dimension,
                Dimension::Workspace | Dimension::Model | Dimension::Provider
            )
        };
        if Dimension::from_name(name).is_none_or(is_no_owner) {
            return Err(format!(
                "attribution has dimensions such as customer or \"tags.team\", and no `{}`",
                name.escape_debug()
            ));
        }
        if !is_value(value) {
            return Err(format!(
                "attribution.{name} has 1 to {MAX_TEXT_BYTES} bytes"
            ));
        }
    }
    Ok(Key {
        hash,
        name: entry.name,
        workspace: entry.workspace,
        rights: all_named(
            "rights",
            entry.rights,
            Right::from_name,
            Right::ALL,
            &Key::USUAL_RIGHTS,
        )?,
        accept: all_named(
            "accept",
            entry.accept,
            Place::from_name,
            Place::ALL,
            &Key::USUAL_PLACES,
        )?,
        attribution: entry.attribution,
        upstreams: match entry.upstream {
            Names::One(name) => vec![name],
            Names::Many(names) => names,
        },
    })
}

fn all_named<T: Copy>(
    field: &str,
    names: Option<Vec<String>>,
    named: fn(&str) -> Option<T>,
    all: &[(&str, T)],
    usual: &[T],
) -> Result<Vec<T>, String> {
    let Some(names) = names else {
        return Ok(usual.to_vec());
    };
    let found: Option<Vec<T>> = names.iter().map(|name| named(name)).collect();
    found.filter(|found| !found.is_empty()).ok_or_else(|| {
        let all: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        format!("{field} are a list of {}", all.join(", "))
    })
}

/// Whether a key may have this name: it becomes the source of events.
pub fn is_name(name: &str) -> bool {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-._ ".contains(one);
    let is_short = (1..=LONGEST_NAME).contains(&name.len());
    is_short && name.chars().all(plain) && !name.starts_with(PREFIX)
}

/// Whether a dimension may have this value, to the byte.
fn is_value(value: &str) -> bool {
    let is_short = (1..=MAX_TEXT_BYTES).contains(&value.len());
    is_short && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Key>, String> {
        keys_of(Path::new("keys.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_read_with_what_is_usual_for_those_that_do_not_say() {
        let hash = "0".repeat(64);
        let text = format!(
            "partitions = 8\n[[keys]]\nhash = \"{hash}\"\nname = \"checkout\"\nworkspace = \"acme\"\n\
             rights = [\"check\"]\nattribution = {{customer = \"c-42\", \"tags.team\" = \"x\"}}\n\
             upstream = \"openai-a\"\n[[keys]]\nhash = \"{hash}\"\nname = \"ops\"\n"
        );
        let keys = read(&text).unwrap();
        assert_eq!(keys[0].rights, [Right::Check]);
        assert_eq!(keys[0].upstreams, ["openai-a"]);
        let imposed: Vec<_> = keys[0].imposed().collect();
        let wanted = [
            ("workspace", "acme"),
            ("customer", "c-42"),
            ("tags.team", "x"),
        ];
        assert_eq!(imposed, wanted);
        assert_eq!(keys[1].rights, Key::USUAL_RIGHTS);
        assert_eq!(keys[1].accept, Key::USUAL_PLACES);
        assert_eq!(keys[1].workspace, None);
        // One hash for two: neither is in force.
        assert!(Keyring::new(keys).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_key_is_told_with_its_line() {
        let hash = "0".repeat(64);
        for (field, wanted) in [
            ("hash = \"sf-secret\"", "hash has 64"),
            ("name = \"sf-0\"", "not the key itself"),
            ("workspace = \"\"", "workspace has"),
            ("rights = [\"chek\"]", "check, usage"),
            ("rights = []", "check, usage"),
            ("accept = [\"cookie\"]", "bearer, header, query"),
            ("attribution = {workspace = \"b\"}", "no `workspace`"),
            ("attribution = {model = \"m\"}", "no `model`"),
            ("attribution = {custmer = \"b\"}", "no `custmer`"),
            ("workspce = \"a\"", "unknown field"),
            ("upstream = 7", "a name or a list"),
        ] {
            let mut lines = vec![format!("hash = \"{hash}\""), "name = \"a\"".to_owned()];
            let own = field.split(' ').next().unwrap_or_default();
            lines.retain(|line| !line.starts_with(own));
            lines.push(field.to_owned());
            let text = format!("\n[[keys]]\n{}\n", lines.join("\n"));
            let error = read(&text).unwrap_err();
            assert!(
                error.contains("line ") && error.contains(wanted),
                "{field}: {error}"
            );
            assert!(!error.contains("sf-secret"), "{error}");
        }
    }

    #[test]
    fn keys_are_read_again_when_a_file_changes_and_stay_where_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let text = |name: &str| {
            let hash = KeyHash::of(name.as_bytes());
            format!("[[keys]]\nhash = \"{hash}\"\nname = \"{name}\"\n")
        };
        fs::write(&path, text("one")).unwrap();
        let files = KeyFiles {
            paths: vec![path.clone()],
        };
        let keyring = Keyring::new(files.read().unwrap()).unwrap();
        let names = || -> Vec<String> {
            let keys = keyring.keys();
            keys.iter().map(|key| key.name.clone()).collect()
        };
        assert_eq!(names(), ["one"]);
        for (text, wanted) in [
            (text("one") + &text("two"), vec!["one", "two"]),
            ("[[keys]]\nname = 7\n".to_owned(), vec!["one", "two"]),
            (text("two"), vec!["two"]),
            (String::new(), vec![]),
        ] {
            fs::write(&path, text).unwrap();
            files.read_again(&keyring);
            assert_eq!(names(), wanted);
        }
        assert!(keyring.is_used(), "without keys nobody may ask any more");
    }
}
