//! `SPENDFUSE_…` variables: the settings they name, and those that name none.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::notifier::{CHANNEL_FIELDS, ROUTE_FIELDS};
use super::proxy::UPSTREAM_FIELDS;
use super::resolve::{Resolved, ResolvedSettings, Source};
use super::table::{FREE_TABLES, SETTINGS, variable};
use super::{SettingsError, similar};

/// Begins the name of every variable.
const PREFIX: &str = "SPENDFUSE_";
/// Ends the name of a variable whose value is the path of a file with the setting's value.
const FILE_SUFFIX: &str = "_FILE";
const KAFKA_PROPERTIES: &str = "SPENDFUSE_KAFKA_PROPERTIES_";
/// Begin names of channels and routes, which go on with a name and end with a field.
const NAMED_TABLES: [(&str, &str, &[&str]); 3] = [
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
const PRICE_MULTIPLIER: &str = "SPENDFUSE_PRICING_PRICE_MULTIPLIER";

/// librdkafka's names have dots where a variable has `_`, but for these, which hold texts or numbers
/// too (librdkafka 2.12).
const PROPERTIES_WITH_UNDERSCORE: [&str; 2] = ["log_level", "enabled_events"];
/// Properties that are paths themselves: their variables end like ones that name a file.
const PROPERTIES_NAMED_FILE: [&str; 3] = [
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
];

/// Variables that other programs read: the development stack, tests, clients of a sidecar that
/// share this process's environment.
const OF_OTHERS: [&str; 13] = [
    "SPENDFUSE_BREAK",
    "SPENDFUSE_BUS_TEST_BROKERS",
    "SPENDFUSE_CACHE_DIR",
    "SPENDFUSE_CLICKHOUSE_BIN",
    "SPENDFUSE_DEVSTACK_PORTS",
    "SPENDFUSE_DISABLED",
    "SPENDFUSE_FAULTS",
    "SPENDFUSE_FAULTS_FOLDER",
    "SPENDFUSE_MODE",
    "SPENDFUSE_ON_UNAVAILABLE",
    "SPENDFUSE_TOKEN",
    "SPENDFUSE_URL",
    "SPENDFUSE_WORKSPACE",
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
    for setting in SETTINGS {
        add_setting(resolved, environment, setting.key, &variable(setting.key))?;
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
    add_price_multipliers(resolved, environment)
}

/// The key of `SPENDFUSE_NOTIFIER_CHANNELS_SLACK_OPS_URL`: `notifier.channels.slack-ops.url`.
fn named_key(name: &str) -> Option<String> {
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

/// The value of variable `name`, or else of the file that `name` with `_FILE` names.
fn add_setting(
    resolved: &mut ResolvedSettings,
    environment: &dyn Environment,
    key: &str,
    name: &str,
) -> Result<(), SettingsError> {
    let file_name = format!("{name}{FILE_SUFFIX}");
    let path = match (environment.get(name), environment.get(&file_name)) {
        (Some(_), Some(_)) => return Err(SettingsError::Twice(name.to_owned())),
        (Some(value), None) => {
            insert(resolved, key, value, name);
            return Ok(());
        }
        (None, Some(path)) => path,
        (None, None) => return Ok(()),
    };
    let value = fs::read_to_string(&path).map_err(|error| SettingsError::File {
        path: PathBuf::from(&path),
        reason: format!("{error} (named by ${file_name})"),
    })?;
    let value = value.trim_end_matches(['\r', '\n']).to_owned();
    insert(resolved, key, value, &file_name);
    Ok(())
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

/// Accounts have names of their own, which a variable's name cannot hold: all stand in one value.
fn add_price_multipliers(
    resolved: &mut ResolvedSettings,
    environment: &dyn Environment,
) -> Result<(), SettingsError> {
    let text = environment.get(PRICE_MULTIPLIER).unwrap_or_default();
    let entries = text.split(',').map(str::trim);
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let (account, factor) = entry.split_once('=').ok_or_else(|| SettingsError::Value {
            key: "pricing.price_multiplier".to_owned(),
            value: text.clone(),
            place: format!("${PRICE_MULTIPLIER}"),
            reason: "write ACCOUNT=FACTOR, several by commas, such as openai-main=0.85".to_owned(),
        })?;
        let key = format!("pricing.price_multiplier.{}", account.trim());
        insert(resolved, &key, factor.trim().to_owned(), PRICE_MULTIPLIER);
    }
    Ok(())
}

/// A sentence on each `SPENDFUSE_…` variable that says nothing to this program. No error: others
/// may have put it there.
pub fn unknown_variables(environment: &dyn Environment) -> Vec<String> {
    let mut names = environment.names();
    names.retain(|name| name.starts_with(PREFIX) && !is_known(name));
    names.retain(|name| !is_of_kubernetes(name, &environment.get(name).unwrap_or_default()));
    names.sort();
    // Alike in more than the beginning that all have.
    let own = |name: &str| name[PREFIX.len()..].to_owned();
    let variables: Vec<String> = SETTINGS.iter().map(|one| own(&variable(one.key))).collect();
    let meant = |name: &str| similar(&own(name), variables.iter().map(String::as_str));
    names
        .iter()
        .map(|name| match meant(name) {
            Some(meant) => format!("${name} is no setting; did you mean ${PREFIX}{meant}?"),
            None => format!("${name} is no setting; `spendfuse config` lists all"),
        })
        .collect()
}

/// Whether the variable names a setting, or belongs to another program.
pub fn is_known(name: &str) -> bool {
    let base = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
    let is_setting = |name: &str| SETTINGS.iter().any(|one| variable(one.key) == name);
    let is_free = FREE_TABLES.iter().any(|(prefix, _)| {
        let table = variable(prefix.trim_end_matches('.'));
        table == PRICE_MULTIPLIER && name == table || name.starts_with(KAFKA_PROPERTIES)
    });
    is_setting(name)
        || is_setting(base)
        || named_key(base).is_some()
        || is_free
        || OF_OTHERS.contains(&name)
}

/// What Kubernetes puts into every container of a namespace with a Service `spendfuse` or
/// `spendfuse-…`: `…_SERVICE_HOST`, `…_SERVICE_PORT…`, `…_PORT`, `…_PORT_4117_TCP…`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let has_numbered_port = name.split("_PORT_").skip(1).any(|rest| {
        let number = rest.split('_').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && is_address
        || has_numbered_port
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

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
    fn librdkafkas_settings_and_multipliers_can_come_from_variables() {
        let folder = tempfile::tempdir().unwrap();
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
        ] {
            assert_eq!(value(&entries, key), expected, "{key}");
        }
        assert!(unknown_variables(&environment(&entries)).is_empty());
    }

    #[test]
    fn an_unknown_variable_is_told_and_what_kubernetes_or_others_put_there_is_not() {
        let told = unknown_variables(&environment(&[
            ("SPENDFUSE_KAFKA_BROKER", "kafka:9092"),
            ("SPENDFUSE_XYZZY", "1"),
            ("SPENDFUSE_SIDECAR_PORT", "4117"),
            ("HOME", "/root"),
        ]));
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].ends_with("did you mean $SPENDFUSE_KAFKA_BROKERS?"),
            "{told:?}"
        );
        assert!(told[2].contains("lists all"), "{told:?}");
        let quiet = environment(&[
            ("SPENDFUSE_SERVICE_HOST", "10.0.0.1"),
            ("SPENDFUSE_SERVICE_PORT", "4117"),
            ("SPENDFUSE_SERVICE_PORT_CHECK", "4117"),
            ("SPENDFUSE_PORT", "tcp://10.0.0.1:4117"),
            ("SPENDFUSE_PORT_4117_TCP", "tcp://10.0.0.1:4117"),
            ("SPENDFUSE_PORT_4117_TCP_PROTO", "tcp"),
            ("SPENDFUSE_PORT_4117_TCP_PORT", "4117"),
            ("SPENDFUSE_PORT_4117_TCP_ADDR", "10.0.0.1"),
            ("SPENDFUSE_SIDECAR_PORT", "tcp://10.0.0.1:4117"),
            ("SPENDFUSE_CLICKHOUSE_SERVICE_HOST", "10.0.0.1"),
            ("SPENDFUSE_TOKEN", "of the SDK"),
        ]);
        assert_eq!(unknown_variables(&quiet), Vec::<String>::new());
    }
}
