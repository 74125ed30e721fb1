//! Structured logs on standard error.

use std::io::IsTerminal;

use spendfuse_domain::printable;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

use crate::commands;
use crate::settings::{Settings, SettingsError, Source};

/// Starts logging as `log.format` and `log.level` say. Where nobody asks for a level, only services
/// tell more than errors: a command says in its own words what failed.
pub fn start(settings: &Settings, is_service: bool) -> Result<(), SettingsError> {
    let level = match settings.resolved().get("log.level") {
        Some(level) if level.source == Source::Default && !is_service => "error",
        _ => &settings.values.log.level,
    };
    let filter = filter_of(level).map_err(|reason| settings.wrong("log.level", &reason))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let format = match settings.resolved().get("log.format") {
        // Who asks for JSON reads standard error as JSON, too.
        Some(format) if format.source == Source::Default && commands::speaks_json() => "json",
        _ => &settings.values.log.format,
    };
    match format {
        "text" => builder
            .with_ansi(std::io::stderr().is_terminal())
            .fmt_fields(one_line_fields())
            .init(),
        "json" => builder.json().flatten_event(true).init(),
        _ => return Err(settings.wrong("log.format", "write text or json")),
    }
    Ok(())
}

/// A word that is no level would be taken for the name of a module, and everything else be silent.
fn filter_of(level: &str) -> Result<EnvFilter, String> {
    let words = level.split(',').map(str::trim);
    let mut bare = words.filter(|word| !word.contains(['=', '[', ':']));
    match bare.find(|word| !word.is_empty() && word.parse::<LevelFilter>().is_err()) {
        Some(word) => Err(format!(
            "\"{word}\" is no level; write off, error, warn, info, debug or trace, or a filter such \
             as spendfuse_bus=debug"
        )),
        None => EnvFilter::try_new(level).map_err(|error| error.to_string()),
    }
}

/// `message name=value …`; what came from outside can neither forge a line nor reach the terminal.
fn one_line_fields() -> impl for<'writer> FormatFields<'writer> {
    debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", printable(&value)),
            name => write!(writer, "{name}={}", printable(&value)),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use spendfuse_domain::printable::is_obeyed;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_misspelt_level_is_refused_and_a_filter_is_not() {
        for level in ["info", "WARN", "off", "", "info,spendfuse_bus=debug"] {
            assert!(filter_of(level).is_ok(), "{level}");
        }
        for level in ["inof", "info,debg", "spendfuse_bus=loud"] {
            assert!(filter_of(level).is_err(), "{level}");
        }
    }

    #[test]
    fn an_event_is_one_harmless_line_whatever_its_fields_hold() {
        let written = Written::default();
        let into = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || into.clone())
            .with_ansi(false)
            .fmt_fields(one_line_fields())
            .finish();
        let name = "c\u{1b}[2J\r\n2026-11-28T00:00:00Z  INFO forged\u{9b}\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(customer = name, error = %name, partition = 3, "from {name}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(is_obeyed), "{text:?}");
        assert!(text.contains("from c\\u{1b}[2J"), "{text}");
        assert!(text.contains(" partition=3"), "{text}");
    }
}
