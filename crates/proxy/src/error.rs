//! What keeps a proxy from starting.

use std::io;
use std::net::SocketAddr;

use spendfuse_tls::BadCa;

/// A proxy that cannot run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProxyError {
    /// Whoever reaches it could spend.
    #[error(
        "proxy.listen = {listen}: whoever reaches the proxy may spend, so without [[keys]] it answers on \
         loopback only; make a key with `spendfuse keys new`, or run a proxy beside each app"
    )]
    NotLoopback { listen: SocketAddr },
    /// Callers would choose what they pay.
    #[error(
        "proxy.attribution.{member} = \"{dimension}\": a body does not say what its call is charged as; \
         write a dimension of callers, such as customer, user or tags.team"
    )]
    NotCallersToSay { member: String, dimension: String },
    /// A key for an upstream that there is not.
    #[error(
        "key {key} is for upstream {upstream}, which is not there: set proxy.upstreams.{upstream}.base_url"
    )]
    NoSuchUpstream { key: String, upstream: String },
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; set another proxy.listen")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    /// Calls under way cannot be written down.
    #[error("proxy.spool_dir: {0}; check the disk and its permissions")]
    Starts(#[source] io::Error),
    /// A CA's file that cannot be used.
    #[error("proxy.ca_file: {0}")]
    Ca(#[from] BadCa),
}
