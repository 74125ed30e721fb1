//! `SPENDFUSE_…` variables that name no setting.

use super::environment::{
    Environment, FILE_SUFFIX, KAFKA_PROPERTIES, NAMED_TABLES, fixed_keys, is_listed, named_key,
};
use super::similar;
use super::table::{not_yet, variable};

/// Begins the name of every variable.
const PREFIX: &str = "SPENDFUSE_";

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

/// A sentence on each `SPENDFUSE_…` variable that says nothing to this program. No error: others
/// may have put it there.
pub fn unknown_variables(environment: &dyn Environment) -> Vec<String> {
    let mut names = environment.names();
    names.retain(|name| name.starts_with(PREFIX) && !is_known(name));
    names.retain(|name| !is_of_kubernetes(name, &environment.get(name).unwrap_or_default()));
    names.sort();
    // Alike in more than the beginning that all have.
    let own = |name: &str| name[PREFIX.len()..].to_owned();
    let variables: Vec<String> = fixed_keys().map(|key| own(&variable(key))).collect();
    let meant = |name: &str| similar(&own(name), variables.iter().map(String::as_str));
    let hint = |name: &str| {
        if let Some(why) = not_yet(|key| variable(key) == name) {
            return why.to_owned();
        }
        let mut tables = NAMED_TABLES.iter();
        if let Some((.., fields)) = tables.find(|(prefix, ..)| name.starts_with(prefix)) {
            let fields = fields.join(", ").to_uppercase();
            return format!("after a name comes one of {fields}");
        }
        match meant(name) {
            Some(meant) => format!("did you mean ${PREFIX}{meant}?"),
            None => "`spendfuse config` lists all".to_owned(),
        }
    };
    let told = names.iter();
    told.map(|name| format!("${name} is no setting; {}", hint(name)))
        .collect()
}

/// Whether the variable names a setting, or belongs to another program.
pub fn is_known(name: &str) -> bool {
    let base = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
    let is_setting = |name: &str| fixed_keys().any(|key| variable(key) == name);
    is_setting(name)
        || is_setting(base)
        || named_key(base).is_some()
        || is_listed(base)
        || name.starts_with(KAFKA_PROPERTIES)
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
    use std::collections::BTreeMap;

    use super::*;

    fn environment(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let entries = entries.iter();
        entries
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
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

    #[test]
    fn what_may_have_been_meant_is_no_other_setting() {
        let told = unknown_variables(&environment(&[
            ("SPENDFUSE_NOTIFIER_CHANNELS_SLACK_OPS_URI", "https://x"),
            ("SPENDFUSE_SIDECAR_OTLP_GRPC_LISTEN", "127.0.0.1:4317"),
        ]));
        assert!(
            told[0].ends_with("after a name comes one of KIND, URL, SECRET"),
            "{told:?}"
        );
        assert!(told[1].contains("OTLP is not supported yet"), "{told:?}");
    }
}
