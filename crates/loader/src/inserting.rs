//! What the loader does in ClickHouse: the inserts of a batch, tried until they are done, and the
//! facts that decide about an interrupted one.

use std::time::{Duration, Instant};

use spendfuse_bus::Backoff;
use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::client::{Warehouse, quoted};
use spendfuse_warehouse::query::cell;

use crate::batch::{Batch, TableInsert};
use crate::broken;
use crate::content::differing_rows;
use crate::healing::{InsertGate, make_whole};
use crate::metrics as names;
use crate::present::{WriterStage, is_detached, rows_in_ranges, views_agree};
use crate::recovery::{TableFacts, too_many};
use crate::sums::{WholeSums, sums_agree};

const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// The same trouble is logged again after this time.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// What is known of an insert before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Nobody has tried before.
    First,
    /// This loader has, or one that is gone may have.
    Again,
}

/// Inserts every table of `batch`, again and again until all are in. What an earlier attempt got in
/// is not inserted again ([`is_there`]); after several attempts what is missing is put in
/// ([`make_whole`]), and everything must be there once ([`check_rows`]).
///
/// # Errors
/// Only where ClickHouse will never take the rows, or differences cannot be explained.
pub(crate) async fn insert_until_done(
    warehouse: &Warehouse,
    gate: &InsertGate,
    batch: &Batch,
    stage: WriterStage,
    attempt: Attempt,
) -> Result<(), WarehouseError> {
    let took_several = insert_all(warehouse, gate, batch, stage, attempt).await?;
    if took_several || attempt == Attempt::Again {
        let mut retries = Retries::of(&batch.tables[0]);
        while let Err(error) = make_whole_and_check(warehouse, gate, batch, stage).await {
            retries.wait_after(error).await?;
        }
        retries.end();
    }
    Ok(())
}

/// Puts in what is missing of a batch of which parts may have gone in within other batches: no token
/// tells of them, only what is there.
///
/// # Errors
/// As [`insert_until_done`].
pub(crate) async fn restore(
    warehouse: &Warehouse,
    gate: &InsertGate,
    batch: &Batch,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    let mut retries = Retries::of(&batch.tables[0]);
    while let Err(error) = restore_once(warehouse, gate, batch, stage).await {
        retries.wait_after(error).await?;
    }
    retries.end();
    Ok(())
}

async fn restore_once(
    warehouse: &Warehouse,
    gate: &InsertGate,
    batch: &Batch,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    {
        let _others_may_too = gate.read().await;
        for table in &batch.tables {
            if is_absent(warehouse, table, stage).await? {
                insert_once(warehouse, table, stage, Attempt::First).await?;
            }
        }
    }
    make_whole_and_check(warehouse, gate, batch, stage).await
}

/// Whether neither the table nor its views have anything of this insert.
async fn is_absent(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<bool, WarehouseError> {
    wait_for_earlier_attempt(warehouse, table).await?;
    if rows_in_ranges(warehouse, table, stage).await? > 0 {
        return Ok(false);
    }
    views_agree(warehouse, table).await
}

async fn make_whole_and_check(
    warehouse: &Warehouse,
    gate: &InsertGate,
    batch: &Batch,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    make_whole(warehouse, gate, batch, stage).await?;
    check_rows(warehouse, batch, stage).await
}

/// Each row of a batch is there, and none beside them.
async fn check_rows(
    warehouse: &Warehouse,
    batch: &Batch,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    for table in &batch.tables {
        let found = rows_in_ranges(warehouse, table, stage).await?;
        if found != table.rows {
            return Err(in_doubt(table, found));
        }
    }
    Ok(())
}

fn in_doubt(table: &TableInsert, found: u64) -> WarehouseError {
    WarehouseError::InDoubt {
        token: table.token.clone(),
        detail: too_many(table, found),
    }
}

/// Returns whether any table took more than one attempt.
async fn insert_all(
    warehouse: &Warehouse,
    gate: &InsertGate,
    batch: &Batch,
    stage: WriterStage,
    attempt: Attempt,
) -> Result<bool, WarehouseError> {
    let _others_may_too = gate.read().await;
    let mut took_several = false;
    for table in &batch.tables {
        let mut retries = Retries::of(table);
        let mut attempt = attempt;
        while let Err(error) = insert_once(warehouse, table, stage, attempt).await {
            retries.wait_after(error).await?;
            attempt = Attempt::Again;
        }
        took_several |= retries.end();
    }
    Ok(took_several)
}

/// Attempts of one insert, with growing pauses between them.
struct Retries<'a> {
    table: &'a TableInsert,
    backoff: Backoff,
    reported: Option<Instant>,
}

impl<'a> Retries<'a> {
    fn of(table: &'a TableInsert) -> Self {
        Self {
            table,
            backoff: PAUSES,
            reported: None,
        }
    }

    /// # Errors
    /// The error, where another attempt is useless.
    async fn wait_after(&mut self, error: WarehouseError) -> Result<(), WarehouseError> {
        if error.is_final() {
            return Err(error);
        }
        let (table, token) = (self.table.table(), &self.table.token);
        metrics::counter!(names::LOADER_RETRIES_TOTAL, "table" => table).increment(1);
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            tracing::warn!(%error, token, "insert or look failed, trying again");
            self.reported = Some(Instant::now());
        }
        tokio::time::sleep(self.backoff.pause()).await;
        Ok(())
    }

    /// Whether it took more than one attempt.
    fn end(self) -> bool {
        if self.reported.is_some() {
            tracing::info!(token = self.table.token, "done after all");
        }
        self.reported.is_some()
    }
}

async fn insert_once(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
    attempt: Attempt,
) -> Result<(), WarehouseError> {
    if attempt == Attempt::Again && is_there(warehouse, table, stage).await? {
        return Ok(());
    }
    let began = Instant::now();
    let columns = table.schema.column_list();
    let blocks = table.blocks.iter().cloned();
    warehouse
        .insert_native(table.table(), &columns, &broken::token(table), blocks)
        .await?;
    let bytes: usize = table.blocks.iter().map(|block| block.len()).sum();
    let name = table.table();
    metrics::histogram!(names::LOADER_INSERT_SECONDS, "table" => name).record(began.elapsed());
    metrics::counter!(names::LOADER_BATCHES_TOTAL, "table" => name).increment(1);
    metrics::counter!(names::LOADER_ROWS_TOTAL, "table" => name).increment(table.rows);
    metrics::counter!(names::LOADER_BYTES_TOTAL, "table" => name).increment(bytes as u64);
    Ok(())
}

/// As [`inspect`], again and again until ClickHouse answers: a region that is looked at has no other
/// place to go on from than its beginning.
///
/// # Errors
/// Only where asking again is useless.
pub(crate) async fn inspect_until_done(
    warehouse: &Warehouse,
    batch: &Batch,
    stage: WriterStage,
    compares_content: bool,
    whole: &WholeSums,
) -> Result<Vec<TableFacts>, WarehouseError> {
    let mut retries = Retries::of(&batch.tables[0]);
    loop {
        match inspect(warehouse, batch, stage, compares_content, whole).await {
            Ok(facts) => {
                retries.end();
                return Ok(facts);
            }
            Err(error) => retries.wait_after(error).await?,
        }
    }
}

/// How much of `batch` is in the tables, table by table; where `compares_content`, also whether it is
/// the same rows. Sums that are known to be `whole` are not compared again.
///
/// # Errors
/// What ClickHouse says.
async fn inspect(
    warehouse: &Warehouse,
    batch: &Batch,
    stage: WriterStage,
    compares_content: bool,
    whole: &WholeSums,
) -> Result<Vec<TableFacts>, WarehouseError> {
    let counters = warehouse.insert_counters().await?;
    let mut facts = Vec::new();
    for table in &batch.tables {
        let mut fact = TableFacts {
            found: 0,
            others: 0,
            inserts: counters.get(table.table()).copied().unwrap_or(0),
            views_agree: views_agree(warehouse, table).await?,
            is_detached: is_detached(warehouse, table, stage).await?,
        };
        fact.found = rows_in_ranges(warehouse, table, stage).await?;
        // A part of one view alone may be lost. Sums of more than one batch say nothing of rows that
        // are not there.
        if fact.found == table.rows && fact.views_agree && !warehouse.config().replicated {
            fact.views_agree = sums_agree(warehouse, table, stage, whole).await?;
        }
        if compares_content && fact.found > 0 {
            fact.others = differing_rows(warehouse, table, stage).await?;
        }
        facts.push(fact);
    }
    Ok(facts)
}

/// Whether an earlier attempt got this insert in, so that it need not be repeated: repeating rests
/// on the token alone, and a plain `MergeTree` forgets tokens. A full disk or a power loss leaves
/// half a line in its log of them, and every later start reads the log only up to there (26.7, seen
/// in a fault run). Replicated tables keep tokens and parts in one transaction.
///
/// What is missing besides is put in by [`make_whole`], which views that have more than their table
/// wait for as well.
///
/// # Errors
/// What ClickHouse says; [`WarehouseError::StillInserting`] until nothing more can come of the
/// earlier attempt.
async fn is_there(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<bool, WarehouseError> {
    if warehouse.config().replicated || !broken::looks_before_repeating() {
        return Ok(false);
    }
    wait_for_earlier_attempt(warehouse, table).await?;
    let found = rows_in_ranges(warehouse, table, stage).await?;
    if found > table.rows {
        return Err(in_doubt(table, found));
    }
    Ok(found > 0 || !views_agree(warehouse, table).await?)
}

/// An error where ClickHouse is still at an insert with the token.
async fn wait_for_earlier_attempt(
    warehouse: &Warehouse,
    table: &TableInsert,
) -> Result<(), WarehouseError> {
    let running = format!(
        "SELECT count() FROM system.processes \
         WHERE Settings['insert_deduplication_token'] = {}",
        quoted(&table.token)
    );
    if cell::<u64>(&warehouse.query_table(&running).await?, 0, 0)? > 0 {
        let token = table.token.clone();
        return Err(WarehouseError::StillInserting { token });
    }
    Ok(())
}
