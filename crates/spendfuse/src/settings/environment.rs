//! `SPENDFUSE_…` variables, and the settings they name.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::SettingsError;
use super::notifier::{CHANNEL_FIELDS, ROUTE_FIELDS};
use super::proxy::UPSTREAM_FIELDS;
use super::resolve::{Resolved, ResolvedSettings, Source};
use super::table::{SETTINGS, variable};

/// Ends the name of a variable whose value is the path of a file with the setting's value.
pub(super) const FILE_SUFFIX: &str = "_FILE";
pub(super) const KAFKA_PROPERTIES: &str = "SPENDFUSE_KAFKA_PROPERTIES_";
/// Begin names of upstreams, channels and routes, which go on with a name and end with a field.
pub(super) const NAMED_TABLES: [(&str, &str, &[&str]); 3] = [
    (
        "SPENDFUSE_PROXY_UPSTREAMS_",
        "proxy.upstreams.",
        &UPSTREAM_FIELDS,
    ),
    (
        "SPENDFUSE_NOTIFIER_CHANNELS_",
        "notifier.channels.",
        &CHANNEL_FIELDS,
    ),
    (
        "SPENDFUSE_NOTIFIER_ROUTES_",
        "notifier.routes.",
        &ROUTE_FIELDS,
    ),
];
/// Tables whose keys a variable's name cannot hold, so that all stand in one value: how an entry is
/// written, and an example.
const LISTED_TABLES: [(&str, &str, &str); 2] = [
    (
        "pricing.price_multiplier",
        "ACCOUNT=FACTOR",
        "openai-main=0.85",
    ),
    ("proxy.attribution", "MEMBER=DIMENSION", "user=customer"),
];
/// Keys of tables with free keys of which there are no others.
const KNOWN_OF_FREE: [&str; 2] = [
    "proxy.on_disconnect.drain_for",
    "proxy.on_disconnect.drain_max_bytes",
];

/// librdkafka's names have dots where a variable has `_`, but for these, which hold texts or numbers
/// too (librdkafka 2.12).
const PROPERTIES_WITH_UNDERSCORE: [&str; 2] = ["log_level", "enabled_events"];
/// Properties that are paths themselves: their variables end like ones that name a file.
const PROPERTIES_NAMED_FILE: [&str; 3] = [
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
];

/// Reads variables; tests give a map.
pub trait Environment {
    /// The value of `variable`.
    fn get(&self, variable: &str) -> Option<String>;
    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// The process's environment.
#[derive(Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, variable: &str) -> Option<String> {
        std::env::var(variable).ok()
    }

    fn names(&self) -> Vec<String> {
        let names = std::env::vars_os().map(|(name, _)| name.into_string());
        names.filter_map(Result::ok).collect()
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, variable: &str) -> Option<String> {
        BTreeMap::get(self, variable).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Puts in what variables say.
///
/// # Errors
/// [`SettingsError::File`] for a file that a variable names and that cannot be read;
/// [`SettingsError::Twice`] for a variable and one that names a file with its value;
/// [`SettingsError::Value`] for a list that is none.
pub fn add_environment(
    resolved: &mut ResolvedSettings,
    environment: &dyn Environment,
) -> Result<(), SettingsError> {
    for key in fixed_keys() {
        add_setting(resolved, environment, key, &variable(key))?;
    }
    for name in environment.names() {
        if let Some(key) = kafka_property(&name) {
            let base = name.strip_suffix(FILE_SUFFIX);
            let is_path = PROPERTIES_NAMED_FILE.contains(&key.as_str());
            match base.filter(|_| !is_path) {
                Some(base) => {
                    let key = kafka_property(base).unwrap_or(key);
                    add_setting(resolved, environment, &full_key(&key), base)?;
                }
                None => add_setting(resolved, environment, &full_key(&key), &name)?,
            }
        }
    }
    for name in environment.names() {
        let base = name.strip_suffix(FILE_SUFFIX).unwrap_or(&name);
        if let Some(key) = named_key(base) {
            add_setting(resolved, environment, &key, base)?;
        }
    }
    let mut tables = LISTED_TABLES.into_iter();
    tables.try_for_each(|table| add_listed(resolved, environment, table))
}

/// Keys that have a variable each.
pub(super) fn fixed_keys() -> impl Iterator<Item = &'static str> {
    let settings = SETTINGS.iter().map(|setting| setting.key);
    settings.chain(KNOWN_OF_FREE)
}

/// Whether `name` is the variable of a whole table.
pub(super) fn is_listed(name: &str) -> bool {
    let mut tables = LISTED_TABLES.iter();
    tables.any(|(table, ..)| variable(table) == name)
}

/// The key of `SPENDFUSE_NOTIFIER_CHANNELS_SLACK_OPS_URL`: `notifier.channels.slack-ops.url`.
pub(super) fn named_key(name: &str) -> Option<String> {
    NAMED_TABLES.iter().find_map(|(prefix, table, fields)| {
        let rest = name.strip_prefix(prefix)?.to_lowercase();
        fields.iter().find_map(|field| {
            let own = rest.strip_suffix(field)?.strip_suffix('_')?;
            Some(format!("{table}{}.{field}", own.replace('_', "-")))
        })
    })
}

fn full_key(property: &str) -> String {
    format!("kafka.properties.{property}")
}

fn add_setting(
    resolved: &mut ResolvedSettings,
    environment: &dyn Environment,
    key: &str,
    name: &str,
) -> Result<(), SettingsError> {
    if let Some((value, source)) = given(environment, name)? {
        insert(resolved, key, value, &source);
    }
    Ok(())
}

/// The value of variable `name`, or else of the file that `name` with `_FILE` names, and which of the
/// two it was.
fn given(
    environment: &dyn Environment,
    name: &str,
) -> Result<Option<(String, String)>, SettingsError> {
    let file_name = format!("{name}{FILE_SUFFIX}");
    let path = match (environment.get(name), environment.get(&file_name)) {
        (Some(_), Some(_)) => return Err(SettingsError::Twice(name.to_owned())),
        (Some(value), None) => return Ok(Some((value, name.to_owned()))),
        (None, Some(path)) => path,
        (None, None) => return Ok(None),
    };
    let value = fs::read_to_string(&path).map_err(|error| SettingsError::File {
        path: PathBuf::from(&path),
        reason: format!("{error} (named by ${file_name})"),
    })?;
    let value = value.trim_end_matches(['\r', '\n']).to_owned();
    Ok(Some((value, file_name)))
}

fn insert(resolved: &mut ResolvedSettings, key: &str, value: String, name: &str) {
    let source = Source::Environment(name.to_owned());
    resolved.insert(key.to_owned(), Resolved { value, source });
}

/// librdkafka's name of `SPENDFUSE_KAFKA_PROPERTIES_…`.
fn kafka_property(name: &str) -> Option<String> {
    let property = name.strip_prefix(KAFKA_PROPERTIES)?.to_lowercase();
    let known = |text: &str| PROPERTIES_WITH_UNDERSCORE.contains(&text);
    Some(match known(&property) {
        true => property,
        false => property.replace('_', "."),
    })
}

/// The entries of a table that stand in one value, by commas.
fn add_listed(
    resolved: &mut ResolvedSettings,
    environment: &dyn Environment,
    (table, form, example): (&str, &str, &str),
) -> Result<(), SettingsError> {
    let Some((text, source)) = given(environment, &variable(table))? else {
        return Ok(());
    };
    let entries = text.split(',').map(str::trim);
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let (name, value) = entry.split_once('=').ok_or_else(|| SettingsError::Value {
            key: table.to_owned(),
            value: text.clone(),
            place: format!("${source}"),
            reason: format!("write {form}, several by commas, such as {example}"),
        })?;
        let key = format!("{table}.{}", name.trim());
        insert(resolved, &key, value.trim().to_owned(), &source);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{resolve, unknown_variables};

    fn environment(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let entries = entries.iter();
        entries
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn value(entries: &[(&str, &str)], key: &str) -> String {
        let resolved = resolve(None, &environment(entries), &[]).unwrap();
        let found = resolved.get(key);
        found
            .unwrap_or_else(|| panic!("{key} is not set by {entries:?}"))
            .value
            .clone()
    }

    #[test]
    fn every_setting_can_come_from_a_variable_or_a_file_that_one_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("value");
        fs::write(&file, "from the file\n").unwrap();
        let file = file.to_str().unwrap();
        for setting in SETTINGS {
            let name = variable(setting.key);
            assert_eq!(value(&[(&name, "given")], setting.key), "given");
            let by_file = format!("{name}_FILE");
            assert_eq!(value(&[(&by_file, file)], setting.key), "from the file");
            assert!(unknown_variables(&environment(&[(&name, ""), (&by_file, "")])).is_empty());
        }
    }

    #[test]
    fn a_value_and_a_file_with_it_are_not_taken_for_each_other() {
        for name in [
            "SPENDFUSE_SIDECAR_TOKEN",
            "SPENDFUSE_KAFKA_PROPERTIES_SASL_PASSWORD",
        ] {
            let by_file = format!("{name}_FILE");
            // An empty one, too: some settings are empty on purpose.
            let both = environment(&[(name, ""), (&by_file, "/run/secrets/token")]);
            let error = resolve(None, &both, &[]).unwrap_err().to_string();
            let said = format!("${name} and ${by_file} are both set; keep one of them");
            assert_eq!(error, said);
        }
    }

    #[test]
    fn channels_and_routes_can_come_from_variables_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        fs::write(&file, "https://hooks.example.com/T0/B0/x\n").unwrap();
        let entries = [
            (
                "SPENDFUSE_NOTIFIER_CHANNELS_SLACK_OPS_URL_FILE",
                file.to_str().unwrap(),
            ),
            ("SPENDFUSE_NOTIFIER_ROUTES_ALL_TO", "slack-ops"),
        ];
        let url = value(&entries, "notifier.channels.slack-ops.url");
        assert_eq!(url, "https://hooks.example.com/T0/B0/x");
        assert_eq!(value(&entries, "notifier.routes.all.to"), "slack-ops");
        assert!(unknown_variables(&environment(&entries)).is_empty());
        let wrong = [("SPENDFUSE_NOTIFIER_CHANNELS_OPS_COLOUR", "red")];
        assert_eq!(unknown_variables(&environment(&wrong)).len(), 1);
    }

    #[test]
    fn tables_with_free_keys_can_come_from_variables() {
        let folder = tempfile::tempdir().unwrap();
        let members = folder.path().join("members");
        fs::write(&members, "user=customer, metadata.user_id=tags.team\n").unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "s3cret\n").unwrap();
        let entries = [
            ("SPENDFUSE_KAFKA_PROPERTIES_SASL_MECHANISM", "PLAIN"),
            (
                "SPENDFUSE_KAFKA_PROPERTIES_SASL_PASSWORD_FILE",
                file.to_str().unwrap(),
            ),
            ("SPENDFUSE_KAFKA_PROPERTIES_LOG_LEVEL", "7"),
            (
                "SPENDFUSE_KAFKA_PROPERTIES_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE",
                "/k",
            ),
            (
                "SPENDFUSE_PRICING_PRICE_MULTIPLIER",
                "openai-main=0.85, Azure=0.9",
            ),
            (
                "SPENDFUSE_PROXY_ATTRIBUTION_FILE",
                members.to_str().unwrap(),
            ),
            ("SPENDFUSE_PROXY_ON_DISCONNECT_DRAIN_FOR", "5s"),
        ];
        for (key, expected) in [
            ("kafka.properties.sasl.mechanism", "PLAIN"),
            ("kafka.properties.sasl.password", "s3cret"),
            ("kafka.properties.log_level", "7"),
            (
                "kafka.properties.sasl.oauthbearer.assertion.private.key.file",
                "/k",
            ),
            ("pricing.price_multiplier.openai-main", "0.85"),
            ("pricing.price_multiplier.Azure", "0.9"),
            ("proxy.attribution.user", "customer"),
            ("proxy.attribution.metadata.user_id", "tags.team"),
            ("proxy.on_disconnect.drain_for", "5s"),
        ] {
            assert_eq!(value(&entries, key), expected, "{key}");
        }
        assert!(unknown_variables(&environment(&entries)).is_empty());
    }
}
