//! Structured logs on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::{Settings, SettingsError};

/// Starts logging as `log.format` and `log.level` say.
pub fn start(settings: &Settings) -> Result<(), SettingsError> {
    let filter = EnvFilter::try_new(settings.text("log.level"))
        .map_err(|error| settings.wrong("log.level", &error.to_string()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match settings.text("log.format") {
        "text" => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        "json" => builder.json().flatten_event(true).init(),
        _ => return Err(settings.wrong("log.format", "write text or json")),
    }
    Ok(())
}
