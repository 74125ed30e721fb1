//! `spendfuse migrate`: the tables in ClickHouse, and the prices that the binary carries.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use spendfuse_bus::Backoff;
use spendfuse_domain::Nanos;
use spendfuse_pricing::PriceBook;
use spendfuse_warehouse::{PriceRow, Warehouse, WarehouseError};
use tokio::runtime::Runtime;

use super::{Failure, output};
use crate::settings::Settings;

const PAUSES: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  spendfuse migrate --set clickhouse.url=http://clickhouse:8123")]
pub struct MigrateArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &MigrateArgs) -> Result<ExitCode, Failure> {
    let runtime = Runtime::new().map_err(Failure::work)?;
    let config = settings.warehouse();
    let database = config.database.clone();
    let warehouse = Warehouse::new(config).map_err(Failure::warehouse)?;
    let applied = runtime
        .block_on(warehouse.migrate())
        .map_err(Failure::warehouse)?;
    let book = PriceBook::snapshot();
    runtime
        .block_on(insert_prices(&warehouse, &book))
        .map_err(Failure::warehouse)?;
    let version = book.version();
    if args.json {
        output::json(&json!({"applied": applied, "database": database, "price_version": version}));
        return Ok(ExitCode::SUCCESS);
    }
    for number in &applied {
        output::line(format!("applied    migration {number}"));
    }
    output::line(format!("in order   database {database}, prices {version}"));
    Ok(ExitCode::SUCCESS)
}

/// Brings the database up to date, for `up`; a ClickHouse that is away is waited for.
pub fn prepare_database(settings: &Settings) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(Failure::work)?;
    let config = settings.warehouse();
    let warehouse = Warehouse::new(config).map_err(Failure::warehouse)?;
    let mut backoff = PAUSES;
    loop {
        let prepared = runtime.block_on(async {
            warehouse.migrate().await?;
            insert_prices(&warehouse, &PriceBook::snapshot()).await
        });
        match prepared {
            Ok(()) => return Ok(()),
            Err(error @ WarehouseError::Unreachable { .. }) => {
                tracing::warn!(error = %error, "waiting for ClickHouse");
                backoff.wait();
            }
            Err(error) => return Err(Failure::warehouse(error)),
        }
    }
}

/// Writes a price book to table `prices`, unless its version is there.
pub async fn insert_prices(warehouse: &Warehouse, book: &PriceBook) -> Result<(), WarehouseError> {
    let version = book.version();
    debug_assert!(
        !version.contains('\''),
        "versions are made of a-z, 0-9, dot and dash"
    );
    let sql = format!("SELECT count() AS lines FROM prices WHERE price_version = '{version}'");
    let known = warehouse.query_table(&sql).await?;
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
    warehouse.insert_prices(&rows).await
}
