//! Settings of a sidecar.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use spendfuse_bus::Health;
use spendfuse_domain::budget::ReserveRule;
use spendfuse_guard::ColdStart;

use crate::compat::CompatConfig;
use crate::error::SidecarError;
use crate::keys::Keyring;
use crate::server::ServerLimits;
use crate::spool::SpoolConfig;

/// A bearer token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token `text`; `None` where it is empty.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this token; takes as long for a near miss as for a far one.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        let expected = self.0.as_bytes();
        let differing = expected.iter().zip(presented);
        let differing = differing.fold(0, |bits, (one, other)| bits | (one ^ other));
        expected.len() == presented.len() && differing == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

/// HTTP status of a refused call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalStatus {
    /// 429, which clients understand best; the official ones heed `x-should-retry: false`.
    #[default]
    TooManyRequests,
    /// 402.
    PaymentRequired,
    /// 403.
    Forbidden,
    /// 402 for clients that try 429 again whatever the headers say, by `User-Agent`; else 429.
    Auto,
}

/// Every status with its name in settings.
const REFUSAL_STATUSES: [(&str, RefusalStatus); 4] = [
    ("429", RefusalStatus::TooManyRequests),
    ("402", RefusalStatus::PaymentRequired),
    ("403", RefusalStatus::Forbidden),
    ("auto", RefusalStatus::Auto),
];

impl FromStr for RefusalStatus {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut known = REFUSAL_STATUSES.iter();
        let found = known.find(|(known, _)| *known == name);
        found
            .map(|(_, status)| *status)
            .ok_or("write 429, 402, 403 or auto")
    }
}

/// How a sidecar listens, decides and accepts events.
#[derive(Clone, Debug)]
pub struct SidecarConfig {
    /// TCP address; port 0 picks a free one; `None` where only the Unix socket is for callers.
    pub listen: Option<SocketAddr>,
    /// Also a Unix socket at this path; access to it is the file system's business.
    pub unix_socket: Option<PathBuf>,
    /// A key with all rights, in `x-spendfuse-token` or as `Authorization: Bearer …` on TCP; it or
    /// [`Self::keys`] are obligatory unless `listen` is loopback.
    pub token: Option<Token>,
    /// Those in force; where there are any, callers on TCP must present one, or the token.
    pub keys: Keyring,
    /// Workspace of requests and bare events that name none; empty = none.
    pub default_workspace: String,
    /// The name of this sidecar where it speaks of itself.
    pub instance: String,
    /// CloudEvents `source` of bare events that name none.
    pub source: String,
    /// Partitions of the stage topics.
    pub partitions: u32,
    /// An event older than this is late: it goes to the DLQ. As the meter has it, milliseconds.
    pub dedupe_horizon_millis: i64,
    /// State older than this is stale.
    pub stale_after: Duration,
    /// What happens to checks before the replica has caught up.
    pub cold_start: ColdStart,
    /// Entries of the replica at most; see [`GuardConfig`](spendfuse_guard::GuardConfig).
    pub entry_capacity: usize,
    /// Reservations at most, with the settled ones that no figure shows yet.
    pub max_reservations: usize,
    /// How much a call holds of budgets that say no rule of their own.
    pub reserve_rule: ReserveRule,
    /// HTTP status of a call that `/v1/authz` refuses, where the gateway does not say another.
    pub refusal_status: RefusalStatus,
    /// Questions with unknown fields or without a workspace, and events with unknown fields, are
    /// refused instead of warned about.
    pub strict: bool,
    /// How long the broker may take to acknowledge events before they go to the spool.
    pub ack_timeout: Duration,
    /// Disk queue for events that the broker does not take; `None` = answer 503 instead.
    pub spool: Option<SpoolConfig>,
    /// Largest body of `POST /v1/usage`, bytes.
    pub max_usage_bytes: usize,
    /// Most events in one `POST /v1/usage`.
    pub max_usage_events: usize,
    /// What clients may use up, for each address.
    pub limits: ServerLimits,
    /// What bodies and long answers of all requests may hold beyond 64 KiB each, bytes.
    pub max_body_memory: usize,
    /// How verdicts are told to clients of other products.
    pub compat: CompatConfig,
    /// Where the sidecar tells how it is.
    pub health: Health,
}

impl SidecarConfig {
    /// The contract's defaults for `partitions` partitions, without spool, socket and token.
    pub fn new(partitions: u32) -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 4117))),
            unix_socket: None,
            token: None,
            keys: Keyring::default(),
            default_workspace: String::new(),
            instance: String::new(),
            source: "sidecar".to_owned(),
            partitions,
            dedupe_horizon_millis: 24 * 60 * 60 * 1000,
            stale_after: Duration::from_secs(10),
            cold_start: ColdStart::Allow,
            entry_capacity: 4_000_000,
            max_reservations: 100_000,
            reserve_rule: ReserveRule::default(),
            refusal_status: RefusalStatus::default(),
            strict: false,
            ack_timeout: Duration::from_secs(2),
            spool: None,
            max_usage_bytes: 8 * 1024 * 1024,
            max_usage_events: 10_000,
            limits: ServerLimits::DEFAULT,
            max_body_memory: 64 * 1024 * 1024,
            compat: CompatConfig::default(),
            health: Health::default(),
        }
    }

    /// Refuses what would be unsafe or cannot work.
    ///
    /// # Errors
    /// [`SidecarError::TokenMissing`], [`SidecarError::NoAddress`], [`SidecarError::NoPartitions`].
    pub fn validate(&self) -> Result<(), SidecarError> {
        if let Some(listen) = self.listen
            && !listen.ip().is_loopback()
            && self.token.is_none()
            && !self.keys.is_used()
        {
            return Err(SidecarError::TokenMissing { listen });
        }
        if self.listen.is_none() && self.unix_socket.is_none() {
            return Err(SidecarError::NoAddress);
        }
        if self.partitions == 0 {
            return Err(SidecarError::NoPartitions);
        }
        Ok(())
    }

    /// Whether TCP is for programs of this machine only.
    pub(crate) fn listens_on_loopback(&self) -> bool {
        self.listen.is_some_and(|listen| listen.ip().is_loopback())
    }
}
