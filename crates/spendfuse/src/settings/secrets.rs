//! What of a value may be shown.

use percent_encoding::percent_decode_str;
use spendfuse_domain::spelling::closest;

/// Stands for what must not be shown.
const HIDDEN: &str = "(hidden)";
/// Last words of keys whose values are secrets, whoever defines the key: ours, librdkafka's, the
/// parameters of an address.
const SECRET_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "passphrase",
    "token",
    "secret",
    "key",
    "pem",
    "credential",
    "credentials",
];

/// Those of them that a misspelt one can be told by.
const LONG_WORDS: [&str; 5] = ["password", "passphrase", "token", "secret", "credentials"];
const FREE_KEYS: &str = "kafka.properties.";

/// Whether the value of `key` must never be shown.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit(['.', '_']).next().unwrap_or(key);
    // Whoever knows the address of a Slack or Teams channel can write to it.
    let is_channel = key.starts_with("notifier.channels.") && last == "url";
    // Only librdkafka knows which of its settings there are: a misspelt one holds a secret, too.
    let is_misspelt = || key.starts_with(FREE_KEYS) && closest(last, &LONG_WORDS).is_some();
    // sasl.jaas.config and sasl.oauthbearer.config hold whole credentials.
    SECRET_WORDS.contains(&last)
        || is_channel
        || key.contains("sasl.") && last == "config"
        || is_misspelt()
}

/// A value for people and logs: hidden where it is a secret; addresses in it without password.
pub fn shown(key: &str, value: &str) -> String {
    match is_secret(key) && !value.is_empty() {
        true => HIDDEN.to_owned(),
        false => without_passwords(value),
    }
}

/// An address without `user:password@`, and both, where it has them.
pub fn split_credentials(url: &str) -> (String, Option<(String, String)>) {
    let parts = url
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)))
        .filter(|(_, (before, _))| !is_host_and_path(before));
    let Some((scheme, (credentials, host_on))) = parts else {
        return (url.to_owned(), None);
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let credentials = (decoded(user), decoded(password));
    (format!("{scheme}://{host_on}"), Some(credentials))
}

/// Whether an `@` behind it is one of the path's, as in `cdn.example:8443/npm/prices@1.2`.
fn is_host_and_path(text: &str) -> bool {
    let Some((host, _)) = text.split_once('/') else {
        return false;
    };
    let port = host.split_once(':').map_or("", |(_, port)| port);
    !host.contains('@') && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// `http://user:pass@host/?password=x` keeps user, host and the names of its parameters.
fn without_passwords(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    // Up to the last `@`: a password may hold anything.
    let (user, host_on) = match rest.rsplit_once('@') {
        Some((credentials, host_on)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            let has_password = credentials.contains(':');
            let password = if has_password { ":(hidden)" } else { "" };
            (format!("{user}{password}@"), host_on)
        }
        None => (String::new(), rest),
    };
    let (place, parameters) = match host_on.split_once('?') {
        Some((place, parameters)) => (place, parameters),
        None => return format!("{scheme}://{user}{host_on}"),
    };
    let parameters: Vec<String> = parameters
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => format!("{name}={}", shown(name, value)),
            None => parameter.to_owned(),
        })
        .collect();
    format!("{scheme}://{user}{place}?{}", parameters.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        for key in [
            "clickhouse.password",
            "sidecar.token",
            "fingerprint.key",
            "kafka.properties.sasl.password",
            "kafka.properties.sasl.oauthbearer.client.secret",
            "kafka.properties.sasl.oauthbearer.client.credentials.client.secret",
            "kafka.properties.sasl.oauthbearer.config",
            "kafka.properties.sasl.oauthbearer.assertion.private.key.passphrase",
            "kafka.properties.sasl.oauthbearer.assertion.private.key.pem",
            "kafka.properties.sasl.jaas.config",
            "kafka.properties.ssl.key.password",
            "kafka.properties.ssl.key.pem",
            "kafka.properties.ssl.keystore.password",
            "kafka.properties.sasl.passwrd",
            "kafka.properties.sasl.pasword",
            "kafka.properties.sasl.pass",
            "kafka.properties.sasl.oauthbearer.client.secrt",
            "kafka.properties.ssl.key.passphrse",
            "notifier.channels.slack-ops.url",
            "notifier.channels.hook.secret",
            "notifier.smtp_password",
        ] {
            assert_eq!(shown(key, "hunter2"), HIDDEN, "{key}");
        }
        for key in [
            "sasl.username",
            "sasl.mechanism",
            "security.protocol",
            "ssl.ca.location",
            "sasl.oauthbearer.token.endpoint.url",
            "client.rack",
            "plugin.library.paths",
            "linger.ms",
        ] {
            assert_eq!(
                shown(&format!("kafka.properties.{key}"), "app"),
                "app",
                "{key}"
            );
        }
        assert_eq!(shown("sidecar.token", ""), "");
    }

    #[test]
    fn user_and_password_of_an_address_are_taken_out() {
        let (url, credentials) = split_credentials("https://bob:p%40ss@host:8443/x");
        assert_eq!(url, "https://host:8443/x");
        assert_eq!(credentials, Some(("bob".to_owned(), "p@ss".to_owned())));
        let (url, credentials) = split_credentials("http://bob:pa/s@s@host");
        assert_eq!(url, "http://host");
        assert_eq!(credentials, Some(("bob".to_owned(), "pa/s@s".to_owned())));
        for url in [
            "http://host",
            "https://cdn.example/gh/litellm@main/prices.json",
            "https://cdn.example:8443/npm/prices@1.2/x.json",
        ] {
            assert_eq!(split_credentials(url), (url.to_owned(), None));
        }
    }

    #[test]
    fn addresses_are_shown_without_their_passwords() {
        for (value, expected) in [
            (
                "http://bob:hunter2@host:8123",
                "http://bob:(hidden)@host:8123",
            ),
            ("http://bob:pa/s@s@host", "http://bob:(hidden)@host"),
            ("http://bob@host", "http://bob@host"),
            (
                "http://host/?user=bob&password=hunter2",
                "http://host/?user=bob&password=(hidden)",
            ),
            ("127.0.0.1:9092", "127.0.0.1:9092"),
        ] {
            assert_eq!(shown("clickhouse.url", value), expected);
        }
    }
}
