//! ClickHouse: its version, its clock, its tables' memory of inserts, and its room.

use spendfuse_domain::UnixMillis;
use spendfuse_warehouse::query::cell;
use spendfuse_warehouse::{Table, WarehouseError};

use super::super::output;
use super::super::warehouse::Connection;
use super::clocks;
use super::report::Report;
use crate::settings::Settings;

const LEAST_VERSION: (u32, u32) = (25, 8);
/// Parts in one partition of a table; ClickHouse refuses inserts beyond 3,000.
const MANY_PARTS: u64 = 1_000;
const TOO_MANY_PARTS: u64 = 2_500;
/// Of a disk, free, in percent.
const LITTLE_FREE: u64 = 15;
const TOO_LITTLE_FREE: u64 = 5;

pub(super) fn look(settings: &Settings, report: &mut Report) {
    let connection = match Connection::open(settings) {
        Ok(connection) => connection,
        Err(error) => {
            report.wrong(
                "clickhouse",
                error.to_string(),
                "rows wait in Kafka, for as long as its retention; nothing is lost until then",
            );
            return;
        }
    };
    for look in [version, tables, parts, disks] as [Look; 4] {
        if let Err(error) = look(&connection, report) {
            report.unknown(
                "clickhouse",
                error.to_string(),
                "let its user read the system tables",
            );
        }
    }
}

type Look = fn(&Connection, &mut Report) -> Result<(), WarehouseError>;

fn ask(connection: &Connection, sql: &str) -> Result<Table, WarehouseError> {
    let answer = connection.warehouse.query_table(sql);
    connection.runtime.block_on(answer)
}

fn version(connection: &Connection, report: &mut Report) -> Result<(), WarehouseError> {
    let answer = ask(
        connection,
        "SELECT version(), toUnixTimestamp64Milli(now64(3))",
    )?;
    let version: String = cell(&answer, 0, 0)?;
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    let known = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("version {version}");
    match known >= LEAST_VERSION {
        true => report.ok("clickhouse", found),
        false => report.wrong("clickhouse", found, "25.8 or later is needed"),
    }
    let theirs = UnixMillis(cell(&answer, 0, 1)?);
    clocks::compare("ClickHouse", output::now().since(theirs), report);
    Ok(())
}

fn tables(connection: &Connection, report: &mut Report) -> Result<(), WarehouseError> {
    let checked = connection.warehouse.check_deduplication();
    match connection.runtime.block_on(checked) {
        Ok(()) => report.ok("tables", "all are there, and remember their inserts"),
        Err(error @ WarehouseError::MissingTable { .. }) => {
            report.wrong("tables", error.to_string(), "spendfuse migrate");
        }
        Err(error @ WarehouseError::DeduplicationWindow { .. }) => report.wrong(
            "tables",
            error.to_string(),
            "run the statement that it names: exactly-once rests on it",
        ),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn parts(connection: &Connection, report: &mut Report) -> Result<(), WarehouseError> {
    let most = ask(
        connection,
        "SELECT table, partition, count() FROM system.parts \
         WHERE active AND database = currentDatabase() \
         GROUP BY table, partition ORDER BY count() DESC LIMIT 1",
    )?;
    if most.rows.is_empty() {
        return Ok(());
    }
    let (table, partition): (String, String) = (cell(&most, 0, 0)?, cell(&most, 0, 1)?);
    let count: u64 = cell(&most, 0, 2)?;
    let found = format!("at most {count} parts in a partition ({table}, {partition})");
    let todo = "merges do not keep up: raise loader.flush_interval, or look at ClickHouse's disk and memory";
    match count {
        TOO_MANY_PARTS.. => report.wrong("parts", found, todo),
        MANY_PARTS.. => report.warning("parts", found, todo),
        _ => report.ok("parts", found),
    }
    Ok(())
}

fn disks(connection: &Connection, report: &mut Report) -> Result<(), WarehouseError> {
    let disks = ask(
        connection,
        "SELECT name, toUInt64(100 * free_space / total_space) FROM system.disks WHERE total_space > 0",
    )?;
    for row in 0..disks.rows.len() {
        let (name, free): (String, u64) = (cell(&disks, row, 0)?, cell(&disks, row, 1)?);
        let found = format!("disk {name} of ClickHouse has {free} % free");
        let todo = "add room, or lower clickhouse.retention_months";
        match free {
            LITTLE_FREE.. => report.ok("disk", found),
            TOO_LITTLE_FREE.. => report.warning("disk", found, todo),
            _ => report.wrong("disk", found, todo),
        }
    }
    Ok(())
}
