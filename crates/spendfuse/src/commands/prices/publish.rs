//! Puts a price book into force: one transaction for Kafka, then the rows for SQL.

use spendfuse_bus::{OutputRecord, write_in_one_transaction};
use spendfuse_domain::UnixMillis;
use spendfuse_pricing::PriceBook;

use super::super::kafka::PATIENCE;
use super::super::migrate::insert_prices;
use super::super::output;
use super::super::warehouse::Connection;
use super::expired::Versions;
use super::{Failure, book, kafka};
use crate::settings::Settings;

/// Puts `new` into force. Returns whether it was not already; ClickHouse gets the rows either way,
/// so that running a command again mends what failed there.
pub fn publish(settings: &Settings, new: &PriceBook, clickhouse: bool) -> Result<bool, Failure> {
    let is_new = book::in_force(settings)?.version() != new.version();
    if is_new {
        let topic = settings.topics().prices;
        let gone = expired(settings, new)?;
        let gone = gone.into_iter().map(|key| (key, None));
        let written = new.to_records().into_iter();
        let written = written.map(|record| (record.key, Some(record.value)));
        // The manifest of the new version stays the last record.
        let records: Vec<OutputRecord> = gone
            .chain(written)
            .map(|(key, value)| OutputRecord {
                topic: topic.clone(),
                partition: 0,
                key: Some(key.into_bytes()),
                value,
                headers: Vec::new(),
            })
            .collect();
        let id = kafka::transactional_id(settings, "prices");
        write_in_one_transaction(&settings.kafka(), &id, &records, PATIENCE)
            .map_err(|error| kafka::failure(settings, &error))?;
    }
    if clickhouse {
        insert_rows(settings, new).map_err(|error| {
            Failure::work(format!(
                "price book {} is in force, but table prices lacks it: {error}; run the command \
                 again when ClickHouse answers, or with --no-clickhouse to do without",
                new.version()
            ))
        })?;
    }
    Ok(is_new)
}

/// Keys of the versions that go with this one.
fn expired(settings: &Settings, new: &PriceBook) -> Result<Vec<String>, Failure> {
    let mut versions = Versions::default();
    kafka::read_topic(settings, &settings.topics().prices, |record| {
        if let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) {
            let at = UnixMillis(record.timestamp_millis);
            versions.accept(key, record.offset, at, record.value.is_some());
        }
    })?;
    Ok(versions.expired(new.version(), output::now()))
}

/// The words for what [`publish`] did.
pub fn tell(new: &PriceBook, is_new: bool) {
    let version = new.version();
    output::line(if is_new {
        format!("price book {version} is in force")
    } else {
        format!("price book {version} was already in force")
    });
}

fn insert_rows(settings: &Settings, new: &PriceBook) -> Result<(), Failure> {
    let connection = Connection::open(settings)?;
    connection.wait(insert_prices(&connection.warehouse, new))
}
