//! Whether the rows in a table are those of a batch, and not others with the same addresses.

use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::block::schema::Address;
use spendfuse_warehouse::client::Warehouse;
use spendfuse_warehouse::query::cell;

use crate::batch::TableInsert;
use crate::present::{WriterStage, any_range};

/// How many of the rows of `table` differ from what the warehouse has at their addresses. What is not
/// there at all does not count. The rows go into a temporary table, so that ClickHouse itself reads
/// them; it lies in memory, so that neither a full disk nor a death in the middle leaves half of it.
///
/// # Errors
/// What ClickHouse says.
pub(crate) async fn differing_rows(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<u64, WarehouseError> {
    let (name, columns) = (table.table(), table.columns());
    let session = warehouse.in_session();
    let create = format!("CREATE TEMPORARY TABLE compared AS {name} ENGINE = Memory");
    session.execute(&create, "making a temporary table").await?;
    let blocks = table.blocks.iter().cloned();
    session
        .insert_native("compared", &columns, &table.token, blocks)
        .await?;

    let address = address_columns(table.schema.address);
    let there = any_range(table, stage);
    // Texts, because nulls and maps have no hash of their own.
    let kept = table.schema.kept_column_list();
    let content = format!("SELECT {address}, sipHash128(toString(tuple({kept})))");
    let differing = format!(
        "SELECT count() FROM ({content} FROM compared \
           WHERE ({address}) IN (SELECT {address} FROM {name} WHERE {there}) \
         EXCEPT {content} FROM {name} WHERE {there})"
    );
    let differing = cell(&session.query_table(&differing).await?, 0, 0)?;
    session
        .execute("DROP TABLE compared", "removing a temporary table")
        .await?;
    Ok(differing)
}

/// The columns of a row's address, separated by commas.
pub(crate) fn address_columns(address: Address) -> &'static str {
    match address {
        Address::Meter => "epoch, meter_partition, meter_seq, meter_index",
        Address::Stage => "epoch, stage, stage_partition, stage_seq, stage_index",
        Address::None => unreachable!("tables without addresses are not loaded from topics"),
    }
}
