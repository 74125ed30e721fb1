//! Where a price book comes from: the binary, the topic, a file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use spendfuse_domain::UnixMillis;
use spendfuse_pricing::PriceBook;
use spendfuse_pricing::book::records::Assembly;
use spendfuse_pricing::import::{self, Format};

use super::super::output;
use super::{Failure, kafka};
use crate::settings::Settings;

/// The last piece of a version, and ends of transactions behind it.
const LAST_RECORDS: i64 = 4;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// How long a command looks for a broker that it can do without.
const A_SECOND: Duration = Duration::from_secs(1);

/// Which book a command uses.
#[derive(Args, Debug)]
pub struct BookArgs {
    /// Use the version in force in Kafka, and fail where it cannot be read; without it that version
    /// where a broker answers within a second, else the prices inside this program
    #[arg(long, conflicts_with = "book")]
    from_topic: bool,
    /// Use this one: a file that `prices import --out` wrote, a version in the prices topic, or
    /// `snapshot`, the prices inside this program
    #[arg(long, value_name = "BOOK")]
    book: Option<String>,
}

/// A book, and which one it is.
pub struct Opened {
    pub book: Arc<PriceBook>,
    /// In words: `in force at 127.0.0.1:9092`.
    pub which: String,
}

impl BookArgs {
    /// The book.
    pub fn open(&self, settings: &Settings) -> Result<Opened, Failure> {
        let Some(name) = &self.book else {
            return match self.from_topic || kafka::answers(settings, A_SECOND) {
                true => of_installation(settings),
                false => Ok(Opened {
                    book: PriceBook::snapshot(),
                    which: format!(
                        "inside this program; no Kafka broker answers at {} within a second",
                        settings.values.kafka.brokers
                    ),
                }),
            };
        };
        Ok(Opened {
            book: without_day(settings, name)?,
            which: match &**name {
                "snapshot" => INSIDE.to_owned(),
                "topic" => return of_installation(settings),
                name if Path::new(name).is_file() => format!("file {name}"),
                _ => "named by its version".to_owned(),
            },
        })
    }
}

const INSIDE: &str = "inside this program";

/// The book by which the installation's processors price.
fn of_installation(settings: &Settings) -> Result<Opened, Failure> {
    let brokers = &settings.values.kafka.brokers;
    Ok(match published(settings)?.pop() {
        Some(book) => Opened {
            book: Arc::new(book),
            which: format!("in force at {brokers}"),
        },
        None => Opened {
            book: PriceBook::snapshot(),
            which: format!("{INSIDE}, and in force at {brokers}, where none was published"),
        },
    })
}

/// The book by which processors price: the last one completed in the topic, else the snapshot.
pub fn in_force(settings: &Settings) -> Result<Arc<PriceBook>, Failure> {
    let published = published(settings)?.pop();
    Ok(published.map_or_else(PriceBook::snapshot, Arc::new))
}

/// Every book in the topic, in the order of their completion.
pub fn published(settings: &Settings) -> Result<Vec<PriceBook>, Failure> {
    published_until(settings, UnixMillis(i64::MAX))
}

/// When the newest version was published; `None`: never.
pub fn published_at(settings: &Settings) -> Result<Option<UnixMillis>, Failure> {
    let topic = settings.topics().prices;
    // The loader asks every minute, and a version has megabytes. The last records may be ends of
    // transactions only.
    for most in [LAST_RECORDS, i64::MAX] {
        let newest = kafka::newest_of_last(settings, &topic, most, |_| true)?;
        if newest.is_some() {
            return Ok(newest.map(UnixMillis));
        }
    }
    Ok(None)
}

/// Those that were complete at `until`.
fn published_until(settings: &Settings, until: UnixMillis) -> Result<Vec<PriceBook>, Failure> {
    let mut assembly = Assembly::default();
    let mut books = Vec::new();
    kafka::read_topic(settings, &settings.topics().prices, |record| {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let (Some(key), Some(value)) = (key, record.value) else {
            return;
        };
        if record.timestamp_millis > until.0 {
            return;
        }
        match assembly.accept(key, value) {
            Ok(Some(book)) => books.push(book),
            Ok(None) => {}
            Err(error) => output::warning(format!("{error}; it is left out")),
        }
    })?;
    Ok(books)
}

/// A book by name: `snapshot`, `topic`, a version in the topic, or a file; with `@2026-11-22` behind it
/// as it was at the end of that day.
pub fn named(settings: &Settings, name: &str) -> Result<Arc<PriceBook>, Failure> {
    of_day(settings, day_in(name))
}

/// Two books to compare, by their names: beside one of a day the other is that of today.
pub fn two(settings: &Settings, names: [&str; 2]) -> Result<[Arc<PriceBook>; 2], Failure> {
    let [from, to] = both_of_days(names, output::now());
    Ok([of_day(settings, from)?, of_day(settings, to)?])
}

/// A book's name and the end of the day behind it.
type NameAndDay<'n> = (&'n str, Option<UnixMillis>);

fn day_in(text: &str) -> NameAndDay<'_> {
    let day = text.rsplit_once('@').and_then(|(name, day)| {
        let midnight = UnixMillis::parse_rfc3339(&format!("{day}T00:00:00Z")).ok()?;
        Some((name, Some(end_of_day(midnight))))
    });
    day.unwrap_or((text, None))
}

fn end_of_day(time: UnixMillis) -> UnixMillis {
    let in_day = time.0.rem_euclid(DAY_MILLIS);
    time.plus(DAY_MILLIS - 1 - in_day)
}

fn both_of_days(names: [&str; 2], now: UnixMillis) -> [NameAndDay<'_>; 2] {
    let books = names.map(day_in);
    let is_of_days = books.iter().any(|(_, day)| day.is_some());
    let today = is_of_days.then(|| end_of_day(now));
    books.map(|(name, day)| (name, day.or(today)))
}

fn of_day(settings: &Settings, (name, at): NameAndDay<'_>) -> Result<Arc<PriceBook>, Failure> {
    let Some(at) = at else {
        return without_day(settings, name);
    };
    let book = match name {
        "topic" => {
            let published = published_until(settings, at)?.pop();
            published.map_or_else(PriceBook::snapshot, Arc::new)
        }
        name => without_day(settings, name)?,
    };
    book.at(at).map(Arc::new).map_err(Failure::work)
}

fn without_day(settings: &Settings, name: &str) -> Result<Arc<PriceBook>, Failure> {
    match name {
        "snapshot" => Ok(PriceBook::snapshot()),
        "topic" => in_force(settings),
        path if is_file(Path::new(path)) => from_file(Path::new(path)).map(Arc::new),
        version if version == PriceBook::snapshot().version() => Ok(PriceBook::snapshot()),
        version => {
            let mut books = published(settings)?.into_iter();
            let found = books.rfind(|one| one.version() == version);
            found.map(Arc::new).ok_or_else(|| {
                Failure::usage(format!(
                    "{version} is neither a file nor a version in the prices topic; write \
                     snapshot, topic, a version or a file"
                ))
            })
        }
    }
}

/// A file, or what can only be meant as one.
fn is_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|one| one.to_str());
    path.is_file() || matches!(extension, Some("json" | "jsonl"))
}

/// A compact book, or a price file of a source.
fn from_file(path: &Path) -> Result<PriceBook, Failure> {
    let bytes = read_file(path)?;
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::usage(format!(
            "{}: {error}; name a file written by `prices import --out`, or a price file of LiteLLM, genai-prices or models.dev",
            path.display()
        ))
    };
    let is_compact = bytes.starts_with(b"{\"spendfuse_prices\"");
    if is_compact {
        let text = String::from_utf8(bytes).map_err(|error| wrong(&error))?;
        return PriceBook::parse(&text).map_err(|error| wrong(&error));
    }
    let format = Format::of(&bytes);
    let imported = import::read(format, &bytes, format.name(), format.name());
    let imported = imported.map_err(|error| wrong(&error))?;
    imported.draft.finish().map_err(|error| wrong(&error))
}

/// The bytes of a file that the user named.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_book_of_a_day_the_other_is_that_of_today() {
        let time = |text| UnixMillis::parse_rfc3339(text).unwrap();
        let (now, today) = (
            time("2026-11-30T10:00:00Z"),
            time("2026-11-30T23:59:59.999Z"),
        );
        let day = time("2026-10-01T23:59:59.999Z");
        let both = |names| both_of_days(names, now);
        let expected = [("topic", Some(day)), ("topic", Some(today))];
        assert_eq!(both(["topic@2026-10-01", "topic"]), expected);
        let none = [("snapshot", None), ("a@b.json", None)];
        assert_eq!(both(["snapshot", "a@b.json"]), none);
    }
}
