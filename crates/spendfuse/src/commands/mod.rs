//! The commands, one file each. A command prints its result on standard output and says by its exit
//! code whether it found something wrong.

pub mod audit;
pub mod budgets;
pub mod check;
pub mod config;
mod context;
pub mod demo;
pub mod dlq;
pub mod findings;
pub mod fingerprint;
pub mod ingest;
mod kafka;
pub mod migrate;
mod output;
pub mod prices;
pub mod topics;
mod warehouse;

use std::fmt;
use std::process::ExitCode;

/// Why a command ended without its result.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The work failed: exit code 1.
    pub fn work(error: impl fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: 1,
        }
    }

    /// The command was called or configured wrongly: exit code 2.
    pub fn usage(error: impl fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: 2,
        }
    }

    /// Its exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// Tells what may be a mistake: in the log of a service, beside the result of a command.
pub fn warn_of(sentences: &[String], is_service: bool) {
    for sentence in sentences {
        match is_service {
            true => tracing::warn!("{sentence}"),
            false => output::note(format!("warning: {sentence}")),
        }
    }
}

/// Exit code of a command that found something wrong.
pub fn found_wrong() -> ExitCode {
    ExitCode::from(1)
}
