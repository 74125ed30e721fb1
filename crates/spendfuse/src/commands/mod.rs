//! The commands, one file each. A command prints its result on standard output and says by its exit
//! code whether it found something wrong.

pub mod alerts;
pub mod audit;
pub mod budgets;
pub mod check;
pub mod config;
mod context;
pub mod correct;
pub mod demo;
pub mod dlq;
pub mod doctor;
mod failure;
pub mod finalize;
pub mod findings;
pub mod fingerprint;
pub mod gaps;
pub mod import;
pub mod ingest;
mod kafka;
pub mod keys;
pub mod migrate;
pub mod output;
pub mod prices;
pub mod rebuild;
pub mod recover;
pub mod rerate;
mod signals;
pub mod topics;
pub mod validate_config;
mod warehouse;

use std::process::ExitCode;

pub use failure::{Failure, misused};
pub use output::{is_json as speaks_json, speak_json};

/// Tells what may be a mistake: in the log of a service, beside the result of a command.
pub fn warn_of(sentences: &[String], is_service: bool) {
    for sentence in sentences {
        match is_service {
            true => tracing::warn!("{sentence}"),
            false => output::warning(sentence),
        }
    }
}

/// Exit code of a command that found something wrong.
pub fn found_wrong() -> ExitCode {
    ExitCode::from(1)
}
