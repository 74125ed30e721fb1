//! `spendfuse fingerprint prompt|tool`: what apps put into events instead of prompts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use spendfuse_domain::fingerprint::{prompt_fingerprint, to_hex, tool_fingerprint};

use super::{Failure, output};
use crate::settings::Settings;

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  spendfuse fingerprint prompt 'What is Kafka?'\n\nThe key is the setting fingerprint.key, best given as SPENDFUSE_FINGERPRINT_KEY_FILE=FILE.\nThe algorithm and test vectors are in schemas/fingerprint-vectors.json."
)]
pub struct FingerprintArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Fingerprint of a system prompt and the last user message
    #[command(
        after_help = "Examples:\n  spendfuse fingerprint prompt --system 'You are terse.' 'What is Kafka?'\n  spendfuse fingerprint prompt --system-file system.txt --file question.txt"
    )]
    Prompt(PromptArgs),
    /// Fingerprint of a tool's name and arguments
    #[command(
        after_help = "Example:\n  spendfuse fingerprint tool search '{\"query\":\"kafka\",\"limit\":5}'"
    )]
    Tool(ToolArgs),
}

#[derive(Args, Debug)]
struct PromptArgs {
    /// The last user message
    #[arg(required_unless_present = "file")]
    message: Option<String>,
    /// Read the last user message from a file; - is standard input
    #[arg(long, conflicts_with = "message")]
    file: Option<PathBuf>,
    /// The system prompt; none if not given
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Read the system prompt from a file
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    system_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ToolArgs {
    /// The tool's name
    name: String,
    /// Its arguments, a JSON object
    #[arg(default_value = "{}")]
    arguments: String,
    /// Read the arguments from a file; - is standard input
    #[arg(long, conflicts_with = "arguments")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &FingerprintArgs) -> Result<ExitCode, Failure> {
    let key = &settings.values.fingerprint.key.0;
    if key.is_empty() {
        return Err(Failure::usage(
            "fingerprint.key is not set: without the workspace's key anybody could test guesses; \
             set SPENDFUSE_FINGERPRINT_KEY_FILE=FILE or [fingerprint] key in spendfuse.toml",
        ));
    }
    let (name, fingerprint, as_json) = match &args.what {
        What::Prompt(args) => {
            let message = text(args.message.as_deref(), args.file.as_deref())?;
            let system = text(args.system.as_deref(), args.system_file.as_deref())?;
            let fingerprint = prompt_fingerprint(key.as_bytes(), &system, &message);
            ("prompt_fingerprint", fingerprint, args.json)
        }
        What::Tool(args) => {
            let given = args.file.is_none().then_some(args.arguments.as_str());
            let arguments = text(given, args.file.as_deref())?;
            let arguments: Value = serde_json::from_str(&arguments).map_err(|error| {
                Failure::usage(format!("the tool's arguments are not JSON: {error}"))
            })?;
            let fingerprint = tool_fingerprint(key.as_bytes(), &args.name, &arguments);
            ("tool_fingerprint", fingerprint, args.json)
        }
    };
    let hex = to_hex(fingerprint);
    if as_json {
        output::json(&json!({ name: hex }));
    } else {
        output::line(hex);
    }
    Ok(ExitCode::SUCCESS)
}

/// The text that was given, or that of the file, byte for byte; empty where neither is.
fn text(given: Option<&str>, file: Option<&Path>) -> Result<String, Failure> {
    let Some(path) = file else {
        return Ok(given.unwrap_or_default().to_owned());
    };
    let read = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
