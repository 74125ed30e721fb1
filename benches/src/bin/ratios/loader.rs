//! The loader, next to a client that inserts the same blocks without reading Kafka, committing
//! intents or checking anything.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use spendfuse_bus::{read_ranges, topic_ranges};
use spendfuse_domain::UnixMillis;
use spendfuse_loader::batch::{Batch, BatchLimits, RowsRecord, TableInsert, TokenKind, cut};
use spendfuse_warehouse::{Warehouse, WarehouseConfig};

use crate::sitting::Sitting;
use crate::table::Line;

const PATIENCE: Duration = Duration::from_secs(30);

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    const ROW: &str = "loader";
    let drained = sitting.drained()?;
    let topic = drained.lab.topic("rows");
    let partitions = read_blocks(&drained.lab.kafka(), &topic)?;
    let bare_lab = sitting.lab("bare_insert", 1)?;
    let config = WarehouseConfig {
        url: bare_lab.clickhouse_url().to_owned(),
        database: bare_lab.database(),
        ..WarehouseConfig::default()
    };
    let inserts = partitions.len();
    let before = sitting.servers.warehouse_usage()?.cpu;
    let Inserted {
        rows,
        elapsed,
        busy,
    } = insert_all(&Warehouse::new(config)?, partitions)?;
    let server_time = sitting.servers.warehouse_usage()?.cpu - before;
    let drained = sitting.drained()?;
    let (stored, _) = bare_lab.stored()?;
    ensure!(
        stored == rows,
        "{stored} rows are stored, {rows} were inserted"
    );
    let bare = rows as f64 / elapsed.as_secs_f64();
    let ours = drained.loader.rate();
    let thousands = |rate: f64| format!("{:.0} k rows/s", rate / 1e3);
    let ratio = ours / bare;
    Ok(vec![
        Line::new(ROW, "rows into ClickHouse", thousands(ours))
            .against(format!(
                "bare insert of the same blocks: {}",
                thousands(bare)
            ))
            .ratio(ours, bare)
            .target("≥ 0.8", ratio >= 0.8)
            .because(format!(
                "ours had {:.1} inserts under way on average, the bare client {:.1}; ClickHouse took \
                 {:.1} CPU-s/M rows for ours, merges in the background included, and {:.1} for \
                 the others, the loader itself {:.2}",
                drained.loader_inserts,
                busy.as_secs_f64() / elapsed.as_secs_f64(),
                drained.loader.server_cost(),
                server_time.as_secs_f64() * 1e6 / rows as f64,
                drained.loader.cost()
            ))
            .note(format!(
                "both with batches of ≤ 100,000 rows, {inserts} inserts at a time, tokens, and \
                 all views; the bare client has its blocks in memory"
            )),
    ])
}

/// The inserts that each partition of the rows topic comes to, cut as the loader cuts them.
fn read_blocks(
    kafka: &spendfuse_bus::KafkaConfig,
    topic: &str,
) -> Result<BTreeMap<u32, Vec<TableInsert>>> {
    let ranges = topic_ranges(kafka, topic, None, PATIENCE)?;
    let mut records: BTreeMap<u32, Vec<RowsRecord>> = BTreeMap::new();
    let mut broken = None;
    read_ranges(kafka, topic, &ranges, PATIENCE, &mut |record| {
        let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
        let read_at = UnixMillis(record.timestamp_millis);
        match RowsRecord::read(record.offset, read_at, value) {
            Ok(block) => {
                let partition = record.partition;
                records.entry(partition).or_default().push(block);
                ControlFlow::Continue(())
            }
            Err(why) => {
                broken = Some(why);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(why) = broken {
        anyhow::bail!("a record of {topic} cannot be read: {why}");
    }
    let mut inserts = BTreeMap::new();
    for (partition, records) in records {
        let mut left = records.as_slice();
        let of_partition: &mut Vec<TableInsert> = inserts.entry(partition).or_default();
        while let Some(first) = left.first() {
            let length = cut(left, BatchLimits::default());
            let batch = Batch::of(
                topic,
                partition,
                first.offset,
                &left[..length],
                TokenKind::Content { epoch: 0 },
            );
            of_partition.extend(batch.tables);
            left = &left[length..];
        }
    }
    Ok(inserts)
}

/// What the bare client did.
struct Inserted {
    rows: u64,
    elapsed: Duration,
    /// The sum of its connections' times.
    busy: Duration,
}

/// One insert at a time for each partition, as the loader does.
fn insert_all(
    warehouse: &Warehouse,
    partitions: BTreeMap<u32, Vec<TableInsert>>,
) -> Result<Inserted> {
    // As the loader's figure: rows of the largest table, while the others are inserted as well.
    let inserts = partitions.values().flatten();
    let spend = inserts.filter(|insert| insert.table() == "spend");
    let rows = spend.map(|insert| insert.rows).sum();
    let runtime = tokio::runtime::Runtime::new()?;
    let began = Instant::now();
    let busy = runtime.block_on(async {
        let mut tasks = Vec::new();
        for inserts in partitions.into_values() {
            let warehouse = warehouse.clone();
            tasks.push(tokio::spawn(async move {
                for insert in inserts {
                    let blocks = insert.blocks.iter().cloned();
                    let columns = insert.columns();
                    let inserted =
                        warehouse.insert_native(insert.table(), &columns, &insert.token, blocks);
                    inserted.await?;
                }
                anyhow::Ok(began.elapsed())
            }));
        }
        let mut busy = Duration::ZERO;
        for task in tasks {
            busy += task.await.context("an insert panicked")??;
        }
        anyhow::Ok(busy)
    })?;
    Ok(Inserted {
        rows,
        elapsed: began.elapsed(),
        busy,
    })
}
