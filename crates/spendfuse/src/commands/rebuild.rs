//! `spendfuse warehouse rebuild`: ClickHouse lost its disk, or was set back, and gets again what Kafka
//! still has.
//!
//! The command loads nothing. It prepares the database and asks the loaders, whose partitions stand
//! still because their offsets belong to another database: each then looks for everything that its topic
//! has, by address and content, and puts in what is missing. What retention has removed before is
//! recorded as a gap first, for ever.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use spendfuse_bus::{
    AcceptedGap, AcceptedGaps, BusError, PartitionRange, committed_offsets, topic_ranges,
};
use spendfuse_pricing::PriceBook;
use spendfuse_warehouse::block::schema::Schema;
use spendfuse_warehouse::gaps::GapRow;
use spendfuse_warehouse::{RowBlock, TopicSet};

use super::migrate::insert_prices;
use super::output::{self, Side, print_table, table};
use super::prices::book;
use super::topics::{looked, topic_set};
use super::warehouse::Connection;
use super::{Failure, gaps, kafka};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct WarehouseArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Load again what Kafka still has into a ClickHouse that lost its disk or was set back; what is
    /// there already is compared, never doubled
    #[command(
        after_help = "Example:\n  spendfuse warehouse rebuild\n\nRestore the newest backup first, where there is one. The loaders go on within seconds, without a restart; `spendfuse audit` compares when they are done."
    )]
    Rebuild(OutputArgs),
}

#[derive(Args, Debug)]
struct OutputArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A partition of a rows topic that has been loaded.
struct Loaded {
    topic: String,
    range: PartitionRange,
    /// What its group has committed.
    committed: i64,
    /// What the topic has first.
    first: Option<RowBlock>,
    /// Rows before the topic's beginning that the warehouse lacks.
    lost: Option<GapRow>,
}

pub fn run(settings: &Settings, args: &WarehouseArgs) -> Result<ExitCode, Failure> {
    let Action::Rebuild(args) = &args.action;
    let known = looked(settings)?;
    if let Some(complaint) = known.complaint() {
        return Err(Failure::work(complaint));
    }
    let mut partitions = loaded_partitions(settings)?;
    let connection = Connection::open(settings)?;
    let warehouse = &connection.warehouse;
    connection.wait(warehouse.migrate())?;
    let Some(database) = connection.wait(warehouse.database_id())? else {
        return Err(Failure::work(
            "which database this is cannot be told where tables are replicated: another replica has \
             the rows. If every replica lost them, stop all loaders, wait until their group is empty \
             and delete its offsets: loaders without offsets look for everything",
        ));
    };
    record_epochs(&connection, topic_set(settings, &known), &partitions)?;
    let snapshot = PriceBook::snapshot();
    for book in book::published(settings)?.iter().chain([&*snapshot]) {
        connection.wait(insert_prices(warehouse, book))?;
    }
    remember_gaps(settings, &connection)?;
    for partition in &mut partitions {
        partition.lost = lost_before(settings, &connection, partition)?;
        if let Some(gap) = &partition.lost {
            connection.wait(warehouse.record_gap(gap))?;
        }
    }
    ask(settings, &partitions, &database).map_err(|error| kafka::failure(settings, &error))?;
    match args.json {
        true => output::json(&json!({
            "database_id": database,
            "partitions": partitions.iter().map(partition_json).collect::<Vec<_>>(),
        })),
        false => print(&partitions),
    }
    Ok(ExitCode::SUCCESS)
}

fn group(settings: &Settings) -> String {
    settings.loader().group_id
}

/// Partitions without offsets need nothing: a loader looks for what they hold by itself.
fn loaded_partitions(settings: &Settings) -> Result<Vec<Loaded>, Failure> {
    let topics = settings.topics();
    let mut partitions = Vec::new();
    for topic in [topics.rows, topics.rows_ledger] {
        let committed =
            committed_offsets(&settings.kafka(), &group(settings), &topic, kafka::PATIENCE);
        let committed = committed.map_err(|error| kafka::failure(settings, &error))?;
        let ranges = kafka::ranges(settings, &topic)?;
        for (range, committed) in ranges.into_iter().zip(committed) {
            let Some(committed) = committed else {
                continue;
            };
            partitions.push(Loaded {
                first: first_block(settings, &topic, range)?,
                topic: topic.clone(),
                range,
                committed,
                lost: None,
            });
        }
    }
    Ok(partitions)
}

fn first_block(
    settings: &Settings,
    topic: &str,
    range: PartitionRange,
) -> Result<Option<RowBlock>, Failure> {
    let mut first = None;
    kafka::read(settings, topic, &[range], &mut |record| {
        let value = record.value.unwrap_or_default().to_vec();
        // What is no block stops its partition, when the loader comes to it.
        first = RowBlock::decode(&value.into()).ok();
        ControlFlow::Break(())
    })?;
    Ok(first)
}

/// The new database learns which epochs the topics hold: rows of others would be refused.
fn record_epochs(
    connection: &Connection,
    topics: TopicSet,
    partitions: &[Loaded],
) -> Result<(), Failure> {
    let warehouse = &connection.warehouse;
    connection.wait(warehouse.claim_epoch(&topics))?;
    let blocks = partitions.iter().filter_map(|one| one.first.as_ref());
    let oldest = blocks.map(|block| block.epoch).min();
    for epoch in oldest.unwrap_or(topics.epoch)..topics.epoch {
        let earlier = TopicSet {
            epoch,
            ..topics.clone()
        };
        if !connection.wait(warehouse.epoch_is_taken(&earlier))? {
            connection.wait(warehouse.claim_epoch(&earlier))?;
        }
    }
    Ok(())
}

/// What Kafka still knows of losses that were accepted: the last one of each partition.
fn remember_gaps(settings: &Settings, connection: &Connection) -> Result<(), Failure> {
    for (topic, group) in gaps::inputs(settings) {
        let failed = |error: BusError| kafka::failure(settings, &error);
        let partitions = match topic_ranges(&settings.kafka(), &topic, None, kafka::PATIENCE) {
            Ok(ranges) => 0..ranges.len(),
            Err(BusError::TopicMissing { topic }) if gaps::may_lack(settings, &topic) => continue,
            Err(error) => return Err(failed(error)),
        };
        let kept = AcceptedGaps::open(&settings.kafka(), &group).map_err(failed)?;
        let last: Result<Vec<Option<AcceptedGap>>, BusError> = partitions
            .map(|partition| kept.last(&topic, partition as u32, kafka::PATIENCE))
            .collect();
        kept.close();
        let last = last.map_err(failed)?;
        for (partition, gap) in (0..).zip(last) {
            let Some(AcceptedGap { from, to }) = gap else {
                continue;
            };
            let row = GapRow {
                accepted_at: output::now(),
                group: group.clone(),
                topic: topic.clone(),
                partition,
                from,
                to,
            };
            connection.wait(connection.warehouse.record_gap(&row))?;
        }
    }
    Ok(())
}

/// Rows that went before what the topic still has, where the warehouse lacks them.
fn lost_before(
    settings: &Settings,
    connection: &Connection,
    loaded: &Loaded,
) -> Result<Option<GapRow>, Failure> {
    let begins_at = loaded.range.from;
    if begins_at == 0 {
        return Ok(None);
    }
    let is_there = match &loaded.first {
        Some(block) if block.link.previous == 0 => true,
        Some(block) => has_commit_before(settings, connection, loaded, block)?,
        None => false,
    };
    Ok((!is_there).then(|| GapRow {
        accepted_at: output::now(),
        group: group(settings),
        topic: loaded.topic.clone(),
        partition: loaded.range.partition,
        from: 0,
        to: begins_at,
    }))
}

fn has_commit_before(
    settings: &Settings,
    connection: &Connection,
    loaded: &Loaded,
    block: &RowBlock,
) -> Result<bool, Failure> {
    let Some(schema) = Schema::find(&block.table, block.schema_version) else {
        return Ok(false);
    };
    let is_ledger = loaded.topic == settings.topics().rows_ledger;
    let stage = if is_ledger { "ledger" } else { "meter" };
    let (warehouse, link) = (&connection.warehouse, block.link);
    connection.wait(warehouse.has_commit(schema, stage, block.epoch, link.partition, link.previous))
}

fn ask(settings: &Settings, partitions: &[Loaded], database: &str) -> Result<(), BusError> {
    let asked = AcceptedGaps::open(&settings.kafka(), &group(settings))?;
    let mut all = partitions.iter();
    let done =
        all.try_for_each(|one| asked.ask(&one.topic, one.range.partition, one.committed, database));
    asked.close();
    done
}

fn partition_json(loaded: &Loaded) -> Value {
    json!({
        "topic": loaded.topic, "partition": loaded.range.partition,
        "from_offset": loaded.range.from, "to_offset": loaded.committed,
        "lost_before": loaded.lost.as_ref().map(|gap| gap.to),
    })
}

fn print(partitions: &[Loaded]) {
    if partitions.is_empty() {
        output::line("nothing has been loaded from these topics; a loader begins by itself");
        return;
    }
    let mut rows = table([
        ("TOPIC", Side::Left),
        ("PARTITION", Side::Right),
        ("FROM", Side::Right),
        ("TO", Side::Right),
        ("LOST", Side::Left),
    ]);
    for loaded in partitions {
        let lost = loaded.lost.as_ref().map_or_else(String::new, |gap| {
            format!("offsets before {}: recorded as a gap", gap.to)
        });
        rows.add_row([
            loaded.topic.clone(),
            loaded.range.partition.to_string(),
            loaded.range.from.to_string(),
            loaded.committed.to_string(),
            lost,
        ]);
    }
    print_table(&rows);
    output::line(
        "asked      partitions that stand still load what the warehouse lacks of these offsets; \
         `spendfuse audit` compares when they are done",
    );
}
