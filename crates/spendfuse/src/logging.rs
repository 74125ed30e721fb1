//! Structured logs on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::{Settings, SettingsError, Source};

/// Starts logging as `log.format` and `log.level` say. Where nobody asks for a level, only services
/// tell more than errors: a command says in its own words what failed.
pub fn start(settings: &Settings, is_service: bool) -> Result<(), SettingsError> {
    let level = match settings.resolved().get("log.level") {
        Some(level) if level.source == Source::Default && !is_service => "error",
        _ => settings.text("log.level"),
    };
    let filter = EnvFilter::try_new(level)
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
