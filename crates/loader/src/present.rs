//! What ClickHouse has: the rows of an insert by their addresses, and how far the chains have come.

use std::collections::BTreeSet;

use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::block::schema::{Address, Schema};
use spendfuse_warehouse::client::Warehouse;
use spendfuse_warehouse::query::cell;

use crate::batch::{AddressRange, TableInsert};
use crate::checkpoint::{Chain, Links};

/// Which stage writes the topic: rows of both stages share some tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterStage {
    /// `spendfuse.rows`
    Meter,
    /// `spendfuse.rows.ledger`
    Ledger,
}

impl WriterStage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Ledger => "ledger",
        }
    }
}

/// How many rows have addresses in the ranges of `table`.
pub(crate) async fn rows_in_ranges(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<u64, WarehouseError> {
    let mut found = 0;
    for range in &table.ranges {
        let condition = range_condition(table, range, stage);
        let name = table.table();
        let count = format!("SELECT count() FROM {name} WHERE {condition}");
        found += cell::<u64>(&warehouse.query_table(&count).await?, 0, 0)?;
    }
    Ok(found)
}

/// Whether the audit's view has the rows of the table's commits, and no others.
pub(crate) async fn views_agree(
    warehouse: &Warehouse,
    table: &TableInsert,
) -> Result<bool, WarehouseError> {
    if table.schema.address != Address::Meter {
        return Ok(true);
    }
    for range in &table.ranges {
        if !audit_agrees(warehouse, range).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `spend_audit` has as many rows as `spend` for the commits around `range`.
async fn audit_agrees(warehouse: &Warehouse, range: &AddressRange) -> Result<bool, WarehouseError> {
    let (first, last) = (range.first.0 / 1000, range.last.0 / 1000);
    let (epoch, partition) = (range.epoch, range.partition);
    let (from, to) = (first * 1000, last * 1000 + 999);
    let table = warehouse
        .query_table(&format!(
            "SELECT (SELECT count() FROM spend WHERE epoch = {epoch} AND meter_partition = {partition} \
               AND meter_seq BETWEEN {from} AND {to}), \
             (SELECT sum(count) FROM spend_audit WHERE epoch = {epoch} AND meter_partition = {partition} \
               AND seq_block BETWEEN {first} AND {last})"
        ))
        .await?;
    Ok(cell::<u64>(&table, 0, 0)? == cell::<u64>(&table, 0, 1)?)
}

/// Whether the table lacks the commit that one of its chains goes on behind.
pub(crate) async fn is_detached(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<bool, WarehouseError> {
    for range in table.ranges.iter().filter(|range| range.previous > 0) {
        let (epoch, partition, previous) = (range.epoch, range.partition, range.previous);
        let known = warehouse.has_commit(table.schema, stage.name(), epoch, partition, previous);
        if !known.await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How far the chains of `partition` have come in the warehouse, in the epochs whose rows its topic may
/// have.
///
/// # Errors
/// What ClickHouse says.
pub(crate) async fn chain_ends(
    warehouse: &Warehouse,
    epochs: &BTreeSet<u32>,
    partition: u32,
    stage: WriterStage,
) -> Result<Links, WarehouseError> {
    let mut ends = Vec::new();
    let chained = Schema::chained();
    let all = epochs.iter().flat_map(|epoch| {
        let chained = chained.iter();
        chained.map(|(table, address)| (*epoch, *table, *address))
    });
    for (epoch, table, address) in all {
        if address == Address::Meter && stage == WriterStage::Ledger {
            continue;
        }
        let (prefix, mut condition) = chain_condition(address, epoch, partition, stage);
        if address == Address::Meter {
            // Instead of a look at every row there is.
            condition = format!(
                "{condition} AND meter_seq >= (SELECT greatest(max(seq_block), 1) - 1 \
                 FROM spend_audit WHERE {condition}) * 1000"
            );
        }
        let last = format!("SELECT max({prefix}_seq) FROM {table} WHERE {condition}");
        let last: u64 = cell(&warehouse.query_table(&last).await?, 0, 0)?;
        if last > 0 {
            let chain = Chain {
                table: table.to_owned(),
                partition,
                epoch,
            };
            ends.push((chain, last));
        }
    }
    Ok(Links::new(ends))
}

/// The prefix of the columns of an address, and the condition on the rows of a chain.
fn chain_condition(
    address: Address,
    epoch: u32,
    partition: u32,
    stage: WriterStage,
) -> (&'static str, String) {
    match address {
        Address::Meter => (
            "meter",
            format!("epoch = {epoch} AND meter_partition = {partition}"),
        ),
        Address::Stage => (
            "stage",
            format!(
                "epoch = {epoch} AND stage_partition = {partition} AND stage = '{}'",
                stage.name()
            ),
        ),
        Address::None => unreachable!("tables without addresses are not loaded from topics"),
    }
}

pub(crate) fn any_range(table: &TableInsert, stage: WriterStage) -> String {
    let condition = |range: &AddressRange| format!("({})", range_condition(table, range, stage));
    let conditions: Vec<String> = table.ranges.iter().map(condition).collect();
    conditions.join(" OR ")
}

/// The condition on the rows of `range`.
pub(crate) fn range_condition(
    table: &TableInsert,
    range: &AddressRange,
    stage: WriterStage,
) -> String {
    let AddressRange {
        epoch,
        partition,
        first: (first_seq, first_index),
        last: (last_seq, last_index),
        ..
    } = range;
    let (prefix, condition) = chain_condition(table.schema.address, *epoch, *partition, stage);
    // The condition on the number alone is what the minmax index can use.
    format!(
        "{condition} \
         AND {prefix}_seq BETWEEN {first_seq} AND {last_seq} \
         AND ({prefix}_seq, {prefix}_index) >= ({first_seq}, {first_index}) \
         AND ({prefix}_seq, {prefix}_index) <= ({last_seq}, {last_index})"
    )
}
