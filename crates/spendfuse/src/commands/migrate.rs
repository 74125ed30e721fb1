//! `spendfuse migrate`: the tables in ClickHouse, and the prices that the binary carries.

use std::process::ExitCode;

use clap::Args;
use spendfuse_domain::Nanos;
use spendfuse_pricing::PriceBook;
use spendfuse_warehouse::{PriceRow, Warehouse};
use tokio::runtime::Runtime;

use super::Failure;
use crate::settings::Settings;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  spendfuse migrate --set clickhouse.url=http://clickhouse:8123")]
pub struct MigrateArgs {}

pub fn run(settings: &Settings, _: &MigrateArgs) -> Result<ExitCode, Failure> {
    let runtime = Runtime::new().map_err(Failure::work)?;
    let config = settings.warehouse().map_err(Failure::usage)?;
    let database = config.database.clone();
    let (applied, version) = runtime.block_on(async {
        let warehouse = Warehouse::connect(config).await.map_err(Failure::work)?;
        let applied = warehouse.migrate().await.map_err(Failure::work)?;
        let book = PriceBook::snapshot();
        insert_prices(&warehouse, &book).await?;
        Ok::<_, Failure>((applied, book.version().to_owned()))
    })?;
    for number in &applied {
        println!("applied    migration {number}");
    }
    println!("in order   database {database}, prices {version}");
    Ok(ExitCode::SUCCESS)
}

/// Writes a price book to table `prices`, unless its version is there.
pub async fn insert_prices(warehouse: &Warehouse, book: &PriceBook) -> Result<(), Failure> {
    let version = book.version();
    debug_assert!(
        !version.contains('\''),
        "versions are made of a-z, 0-9, dot and dash"
    );
    let sql = format!("SELECT count() AS lines FROM prices WHERE price_version = '{version}'");
    let known = warehouse.query_table(&sql).await.map_err(Failure::work)?;
    if known
        .rows
        .first()
        .and_then(|row| row.first())
        .is_some_and(|count| count != "0")
    {
        return Ok(());
    }
    let rows: Vec<_> = book.rows().collect();
    let rows: Vec<PriceRow<'_>> = rows
        .iter()
        .map(|row| PriceRow {
            price_version: row.version,
            provider: row.provider,
            model: row.model,
            service_tier: row.tier,
            line: row.class_or_unit,
            per_million_tokens: row.per_million_tokens,
            above_context_tokens: row.context_above,
            quality: row.quality,
            size: row.size,
            effective_from: row.effective_from,
            rate: Nanos::new(i128::from(row.nanos)),
        })
        .collect();
    warehouse.insert_prices(&rows).await.map_err(Failure::work)
}
