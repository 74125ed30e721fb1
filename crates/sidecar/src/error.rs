//! Why a sidecar cannot start or go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use spendfuse_bus::BusError;

use crate::spool::SpoolError;

/// An error that ends the sidecar.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// Open to the network for everybody.
    #[error(
        "the sidecar would listen on {listen} without a token or keys; set sidecar.token or [[keys]], or listen on 127.0.0.1"
    )]
    TokenMissing {
        /// The address.
        listen: SocketAddr,
    },
    /// Neither TCP nor a Unix socket.
    #[error("nobody could reach the sidecar: set sidecar.listen, sidecar.socket or both")]
    NoAddress,
    /// The partition count is not set.
    #[error("the number of partitions is 0; set it to that of the stage topics")]
    NoPartitions,
    /// An address is not to be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// TCP address or socket path.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket's path is something else.
    #[error("{path} exists and is not a socket; remove it or choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A listener broke.
    #[error("serving failed: {0}")]
    Serve(#[source] io::Error),
    /// Kafka's client could not be set up.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The spool could not be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What becomes of the system's word about an address.
pub(crate) fn listen_error(address: &str) -> impl Fn(io::Error) -> SidecarError + use<> {
    let address = address.to_owned();
    move |source| SidecarError::Listen {
        address: address.clone(),
        source,
    }
}
