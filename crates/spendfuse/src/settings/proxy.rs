//! The proxy's upstreams and attribution, whose names people choose.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spendfuse_domain::scope::Dimension;
use spendfuse_proxy::{AskUsage, Attributing, ProxyConfig, Shape, Upstream};
use spendfuse_sidecar::server::ServerLimits;
use spendfuse_sidecar::{SidecarConfig, Token};

use super::kinds::{Kind, Patience};
use super::table;
use super::values::{free_table, named};
use super::{ResolvedSettings, Settings, SettingsError, wrong};

/// What an upstream has.
pub(super) const UPSTREAM_FIELDS: [&str; 6] = [
    "base_url",
    "shape",
    "provider",
    "key",
    "key_file",
    "inject_stream_usage",
];
const UPSTREAMS: &str = "proxy.upstreams.";
const ATTRIBUTION: &str = "proxy.attribution.";
const ON_DISCONNECT: &str = "proxy.on_disconnect.";
/// Of calls that name none, where no setting does.
const USUAL_WORKSPACE: &str = "default";

/// How calls are forwarded, as it is set.
#[derive(Clone, Debug)]
pub(super) struct Forwarding(ProxyConfig);

impl Forwarding {
    /// # Errors
    /// [`SettingsError::Value`] for the first one that cannot be used.
    pub(super) fn read(
        resolved: &ResolvedSettings,
        values: &table::Proxy,
        default_workspace: &str,
    ) -> Result<Self, SettingsError> {
        let mut config = ProxyConfig {
            listen: values.listen,
            on_downgrade: values.downgrade,
            on_unmetered: values.unmetered,
            max_body_bytes: values.max_body_bytes,
            max_body_memory: values.max_body_memory,
            starts_folder: values.spool_dir.clone(),
            ca_file: values.ca_file.clone(),
            limits: ServerLimits {
                connections: values.max_connections.get(),
                ..ServerLimits::DEFAULT
            },
            ..ProxyConfig::default()
        };
        config.attributing = Attributing {
            trust_headers: values.trust_headers,
            members: attribution(resolved)?,
            workspace: match default_workspace {
                "" => USUAL_WORKSPACE.to_owned(),
                named => named.to_owned(),
            },
        };
        for (name, value) in free_table(resolved, ON_DISCONNECT) {
            let bad = |reason: &str| wrong(resolved, &format!("{ON_DISCONNECT}{name}"), reason);
            match name {
                "drain_for" => config.drain_for = Patience::read(value).map_err(bad)?.0,
                "drain_max_bytes" => config.drain_max_bytes = usize::read(value).map_err(bad)?,
                _ => return Err(bad("write drain_for or drain_max_bytes")),
            }
        }
        for (name, fields) in named(resolved, UPSTREAMS, &UPSTREAM_FIELDS)? {
            let known = config.upstreams.remove(&name);
            let upstream = upstream(resolved, &name, &fields, known)?;
            config.upstreams.insert(name, upstream);
        }
        Ok(Self(config))
    }
}

/// Which member of a body is which dimension.
fn attribution(resolved: &ResolvedSettings) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut members = BTreeMap::new();
    for (member, dimension) in free_table(resolved, ATTRIBUTION) {
        if !Dimension::from_name(dimension).is_some_and(is_of_callers) {
            let key = format!("{ATTRIBUTION}{member}");
            let reason = "write a dimension of callers, such as customer, user or tags.team; what a \
                          call is charged as is not theirs to say";
            return Err(wrong(resolved, &key, reason));
        }
        members.insert(member.to_owned(), dimension.to_owned());
    }
    Ok(members)
}

/// The model and who bills it decide the price.
fn is_of_callers(dimension: Dimension) -> bool {
    !matches!(
        dimension,
        Dimension::Model | Dimension::Provider | Dimension::Account
    )
}

fn upstream(
    resolved: &ResolvedSettings,
    name: &str,
    fields: &BTreeMap<String, String>,
    known: Option<Upstream>,
) -> Result<Upstream, SettingsError> {
    let bad = |field: &str, reason: &str| {
        let key = format!("{UPSTREAMS}{name}.{field}");
        wrong(resolved, &key, reason)
    };
    let plain = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(bad(
            "base_url",
            "names of upstreams have a-z, 0-9, - and _ only",
        ));
    }
    let mut upstream = known.unwrap_or_else(|| Upstream {
        base_url: String::new(),
        shape: Shape::OpenAi,
        provider: name.to_owned(),
        key: None,
        ask_usage: AskUsage::Auto,
    });
    if let Some(address) = fields.get("base_url") {
        upstream.base_url = address.trim_end_matches('/').to_owned();
    }
    let is_address = ["http://", "https://"].iter().any(|scheme| {
        let rest = upstream.base_url.strip_prefix(scheme);
        rest.is_some_and(|rest| !rest.is_empty())
    });
    if !is_address {
        return Err(bad(
            "base_url",
            "write an address, such as https://api.mistral.ai",
        ));
    }
    if let Some(shape) = fields.get("shape") {
        upstream.shape = shape.parse().map_err(|reason| bad("shape", reason))?;
    }
    if let Some(provider) = fields.get("provider") {
        upstream.provider.clone_from(provider);
    }
    if let Some(when) = fields.get("inject_stream_usage") {
        let parsed = when.parse();
        upstream.ask_usage = parsed.map_err(|reason| bad("inject_stream_usage", reason))?;
    }
    let mut key = fields.get("key").cloned();
    if let Some(path) = fields.get("key_file").filter(|path| !path.is_empty()) {
        let read = std::fs::read_to_string(PathBuf::from(path));
        let read = read.map_err(|error| bad("key_file", &format!("it cannot be read: {error}")))?;
        key = Some(read.trim().to_owned());
    }
    upstream.key = key.and_then(Token::new).or(upstream.key);
    // Whoever has a resource at Azure could have the key sent there; a region is Amazon's.
    if upstream.key.is_some() && upstream.has_choice() && !upstream.base_url.contains("{region}") {
        return Err(bad(
            "base_url",
            "a key is for one address: write it out, without a name in braces",
        ));
    }
    Ok(upstream)
}

impl Settings {
    /// The proxy role, and the sidecar that it has in its process.
    pub fn proxy(&self) -> (ProxyConfig, SidecarConfig) {
        let inner = SidecarConfig {
            // Two processes do not share a spool.
            spool: self.spool(&self.values.proxy.spool_dir),
            ..self.sidecar()
        };
        let forwarding = ProxyConfig {
            fingerprint_key: Token::new(self.values.fingerprint.key.0.as_str()),
            ..self.forwarding.0.clone()
        };
        (forwarding, inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

    #[test]
    fn the_key_of_fingerprints_reaches_the_proxy_and_is_not_shown() {
        let proxy = |overrides: &[String]| {
            let resolved = resolve(None, &BTreeMap::<String, String>::new(), overrides).unwrap();
            Settings::new(resolved).unwrap().proxy().0
        };
        assert!(proxy(&[]).fingerprint_key.is_none());
        let config = proxy(&["fingerprint.key=hunter2".to_owned()]);
        let key = config.fingerprint_key.as_ref().map(Token::reveal);
        assert_eq!(key, Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
