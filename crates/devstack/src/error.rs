//! What can go wrong when a development server is found, started or stopped.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of the development stack; each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DevStackError {
    /// A part that `make setup` fetches is not in the cache folder.
    #[error("{part} is not at {}: run `make setup`, or set {variable}", path.display())]
    NotSetUp {
        /// What was looked for.
        part: &'static str,
        /// Where it was expected.
        path: PathBuf,
        /// The environment variable that names another place.
        variable: &'static str,
    },
    /// The executable that serves the embedded ClickHouse has not been built.
    #[error(
        "the executable spendfuse-clickhouse is not next to {} nor in the three folders above it: \
         run `cargo build --release -p spendfuse-devstack` (or `make build`), \
         or set SPENDFUSE_CLICKHOUSE_BIN",
        searched.display()
    )]
    ClickHouseNotBuilt {
        /// The folder where the search began.
        searched: PathBuf,
    },
    /// A server ended, or was never able to begin.
    #[error("{name} ended while it was needed ({status}); its log {}:\n{tail}", log.display())]
    Ended {
        /// Which server.
        name: String,
        /// How it ended.
        status: String,
        /// Its whole log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// A server runs but did not get ready in time.
    #[error("{name} was not ready after {waited:?} ({reason}); its log {}:\n{tail}", log.display())]
    NotReady {
        /// Which server.
        name: String,
        /// How long it was waited for.
        waited: Duration,
        /// What the last probe said.
        reason: String,
        /// Its whole log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// A condition that was waited for did not come true.
    #[error("gave up after {waited:?} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// Another process uses the folder.
    #[error("the folder {} is in use by another development stack: stop that one, or name another folder", path.display())]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// No port could be reserved.
    #[error("found no free port on 127.0.0.1 between {first} and {last}")]
    NoFreePort {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
    /// The operating system refused something.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done, with its path or command.
        doing: String,
        /// The cause.
        error: io::Error,
    },
}

/// Adds what was being done to an I/O error.
pub(crate) fn while_doing(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DevStackError {
    let doing = doing.into();
    move |error| DevStackError::Io { doing, error }
}
