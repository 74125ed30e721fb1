//! How many files and connections this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use spendfuse_sidecar::SidecarConfig;

/// Service managers often start processes with 1,024 where they allow many more.
pub fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(soft, hard, %error, "the limit of open files could not be raised");
    }
}

/// Leaves half of the files that may be open to Kafka's clients, the spool and the other addresses.
pub fn leave_some(config: &mut SidecarConfig) {
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let addresses = u64::from(config.listen.is_some()) + u64::from(config.unix_socket.is_some());
    let most = usize::try_from(soft / 2 / addresses.max(1)).unwrap_or(usize::MAX);
    if config.limits.connections > most {
        tracing::warn!(
            most,
            open_files = soft,
            "fewer connections than sidecar.max_connections: the limit of open files is low"
        );
        config.limits.connections = most;
    }
}
