//! Settings of a proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use spendfuse_sidecar::Token;
use spendfuse_sidecar::keys::Keyring;
use spendfuse_sidecar::server::ServerLimits;

use crate::attribution::{Attributing, is_callers_to_say};
use crate::error::ProxyError;
use crate::upstream::Upstream;

/// What happens to a call whose budget says that a cheaper model should do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDowngrade {
    /// The cheaper model is asked.
    #[default]
    Apply,
    /// The call is refused.
    Refuse,
    /// The call goes ahead as it is.
    Ignore,
}

impl std::str::FromStr for OnDowngrade {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "apply" => Ok(Self::Apply),
            "refuse" => Ok(Self::Refuse),
            "ignore" => Ok(Self::Ignore),
            _ => Err("write apply, refuse or ignore"),
        }
    }
}

/// What happens to a request that may cost something, and nothing can be metered of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnmetered {
    /// It goes on, and is told of.
    #[default]
    Pass,
    /// It is refused.
    Refuse,
}

impl std::str::FromStr for OnUnmetered {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "pass" => Ok(Self::Pass),
            "refuse" => Ok(Self::Refuse),
            _ => Err("write pass or refuse"),
        }
    }
}

/// How a proxy listens, attributes and forwards.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// TCP address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// By the first part of a request's path.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Whom calls count against.
    pub attributing: Attributing,
    /// What becomes of a call that a cheaper model should answer.
    pub on_downgrade: OnDowngrade,
    /// What becomes of a request that may cost something, and nothing can be metered of.
    pub on_unmetered: OnUnmetered,
    /// For how long a stream is read whose client has gone.
    pub drain_for: Duration,
    /// How much of it at most, bytes.
    pub drain_max_bytes: usize,
    /// Bytes of a request or a whole answer that are kept to be read; larger requests are refused,
    /// larger answers passed on and charged by estimate.
    pub max_body_bytes: usize,
    /// What the bodies of all calls hold at once beyond 64 KiB each, bytes; more is answered 503.
    pub max_body_memory: usize,
    /// Where calls under way are written down, so that those of a killed proxy can be named.
    pub starts_folder: Option<PathBuf>,
    /// PEM file of a CA of one's own, believed besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// The key of fingerprints of prompts, without which none are told. Never printed.
    pub fingerprint_key: Option<Token>,
    /// What clients may use up.
    pub limits: ServerLimits,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4119)),
            upstreams: Upstream::known(),
            attributing: Attributing {
                trust_headers: true,
                members: BTreeMap::new(),
                workspace: "default".to_owned(),
            },
            on_downgrade: OnDowngrade::default(),
            on_unmetered: OnUnmetered::default(),
            drain_for: Duration::from_secs(15),
            drain_max_bytes: 4 * 1024 * 1024,
            max_body_bytes: 32 * 1024 * 1024,
            max_body_memory: 256 * 1024 * 1024,
            starts_folder: None,
            ca_file: None,
            fingerprint_key: None,
            limits: ServerLimits::DEFAULT,
        }
    }
}

impl ProxyConfig {
    /// Refuses what would be unsafe; `keys` are those that callers must present.
    ///
    /// # Errors
    /// [`ProxyError::NotLoopback`], [`ProxyError::NotCallersToSay`], [`ProxyError::NoSuchUpstream`].
    pub fn validate(&self, keys: &Keyring) -> Result<(), ProxyError> {
        if !self.listen.ip().is_loopback() && !keys.is_used() {
            return Err(ProxyError::NotLoopback {
                listen: self.listen,
            });
        }
        let mut members = self.attributing.members.iter();
        let foreign = members.find(|(_, dimension)| !is_callers_to_say(dimension));
        if let Some((member, dimension)) = foreign {
            return Err(ProxyError::NotCallersToSay {
                member: member.clone(),
                dimension: dimension.clone(),
            });
        }
        for key in keys.keys() {
            let mut names = key.upstreams.iter();
            let unknown = names.find(|name| !self.upstreams.contains_key(*name));
            if let Some(upstream) = unknown {
                return Err(ProxyError::NoSuchUpstream {
                    key: key.name.clone(),
                    upstream: upstream.clone(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_member_of_a_body_says_what_is_charged() {
        let mut config = ProxyConfig::default();
        for (dimension, may_be) in [
            ("customer", true),
            ("tags.team", true),
            ("model", false),
            ("provider", false),
            ("account", false),
            ("custmer", false),
        ] {
            config.attributing.members = [("user".to_owned(), dimension.to_owned())].into();
            let validated = config.validate(&Keyring::default());
            assert_eq!(validated.is_ok(), may_be, "{dimension}");
        }
    }
}
