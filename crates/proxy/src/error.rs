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
        "proxy.listen = {listen}: whoever reaches the proxy may spend, so it answers on loopback only; \
         run one beside each app, or put a gateway that knows its callers before it"
    )]
    NotLoopback { listen: SocketAddr },
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; set another proxy.listen")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    /// A CA's file that cannot be used.
    #[error("proxy.ca_file: {0}")]
    Ca(#[from] BadCa),
}
