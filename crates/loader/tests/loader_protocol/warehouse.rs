//! The log that is loaded, and a model of the ClickHouse that it is loaded into.

use bytes::Bytes;
use spendfuse_loader::batch::{Batch, BatchLimits};
use spendfuse_loader::protocol::ProtocolRules;
use spendfuse_loader::recovery::TableFacts;
use spendfuse_warehouse::record::{IndexRange, Link, RowBlock};

pub const RULES: ProtocolRules = ProtocolRules {
    limits: BatchLimits {
        rows: 4,
        bytes: 1 << 20,
    },
    flush_interval: 10,
    deduplication_window: 1000,
    deduplication_millis: 1_000_000,
    epoch: 0,
    content_tokens: true,
    completes_parts: false,
};

/// The log: offsets with gaps (markers), two tables.
pub fn log() -> Vec<(i64, Bytes)> {
    let record = |offset, table: &str, previous, seq, rows| {
        let block = RowBlock {
            table: table.to_owned(),
            schema_version: 1,
            rows,
            epoch: 0,
            link: Link {
                partition: 0,
                previous,
                seq,
            },
            indexes: IndexRange {
                first: 0,
                last: rows - 1,
            },
            native: Bytes::from(format!("{table}@{offset}")),
        };
        (offset, Bytes::from(block.encode()))
    };
    vec![
        record(0, "spend", 0, 1, 2),
        record(1, "finding_changes", 0, 1, 1),
        record(3, "spend", 1, 2, 2),
        record(5, "spend", 2, 3, 1),
    ]
}

/// ClickHouse: an insert becomes parts, each of which is there once per token; a crash of either
/// side may leave any prefix of them, and of ClickHouse the next one's token without its rows. Rows
/// sent again under a known token are dropped, whatever they are.
#[derive(Clone, Debug, Default)]
pub struct Warehouse {
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub struct Part {
    pub token: String,
    pub kind: PartKind,
    pub blocks: Vec<Bytes>,
    /// Whether an insert with the same token would be dropped.
    pub remembered: bool,
    /// Whether there is more than the token.
    pub has_rows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PartKind {
    /// Of the table.
    First,
    /// Of another of the table's partitions; where there is but one row, there is none.
    Second,
    /// Of the table's view.
    View,
}

/// The parts that an insert makes, in this order.
pub fn parts_of(batch: &Batch) -> Vec<(String, PartKind, Vec<Bytes>)> {
    let mut parts = Vec::new();
    for table in &batch.tables {
        let mut add = |kind| parts.push((table.token.clone(), kind, table.blocks.clone()));
        add(PartKind::First);
        if table.rows > 1 {
            add(PartKind::Second);
        }
        add(PartKind::View);
    }
    parts
}

/// How far an insert got.
#[derive(Clone, Copy)]
pub struct Progress {
    /// Parts with their rows.
    pub parts: usize,
    /// Whether the next one's token is there as well.
    pub and_a_token: bool,
}

pub const ALL: Progress = Progress {
    parts: usize::MAX,
    and_a_token: false,
};

impl Progress {
    /// The ways in which an insert of so many parts can be torn.
    pub fn ways(parts: usize) -> usize {
        2 * parts + 1
    }

    pub fn nth(way: usize) -> Self {
        Self {
            parts: way / 2,
            and_a_token: way % 2 == 1,
        }
    }
}

impl Warehouse {
    pub fn insert(&mut self, batch: &Batch, progress: Progress) {
        let taken = progress
            .parts
            .saturating_add(usize::from(progress.and_a_token));
        for (index, (token, kind, blocks)) in parts_of(batch).into_iter().take(taken).enumerate() {
            let mut known = self.parts.iter();
            if known.any(|part| part.token == token && part.kind == kind && part.remembered) {
                continue;
            }
            self.parts.push(Part {
                token,
                kind,
                blocks,
                remembered: true,
                has_rows: index < progress.parts,
            });
        }
    }

    /// Puts in what is missing of a batch, whatever is remembered.
    pub fn make_whole(&mut self, batch: &Batch) {
        for (token, kind, blocks) in parts_of(batch) {
            let mut known = self.parts.iter();
            if !known.any(|part| part.blocks == blocks && part.kind == kind && part.has_rows) {
                self.parts.push(Part {
                    token,
                    kind,
                    blocks,
                    remembered: false,
                    has_rows: true,
                });
            }
        }
    }

    pub fn forget_tokens(&mut self) {
        for part in &mut self.parts {
            part.remembered = false;
        }
    }

    pub fn count(&self, block: &Bytes, kind: PartKind) -> usize {
        let parts = self
            .parts
            .iter()
            .filter(|part| part.kind == kind && part.has_rows);
        parts.filter(|part| part.blocks.contains(block)).count()
    }

    /// What the loader's queries find: the rows with addresses of the batch, and whether the view
    /// has as many.
    pub fn facts(&self, batch: &Batch) -> Vec<TableFacts> {
        let facts = batch.tables.iter().map(|table| {
            let (mut found, mut in_view) = (0, 0);
            let parts = self.parts.iter().filter(|part| part.has_rows);
            for part in parts.filter(|part| part.blocks == table.blocks) {
                let first = table.rows.div_ceil(2);
                match part.kind {
                    PartKind::First => found += first,
                    PartKind::Second => found += table.rows - first,
                    PartKind::View => in_view += table.rows,
                }
            }
            TableFacts {
                found,
                others: 0,
                inserts: 0,
                views_agree: found == in_view,
                is_detached: false,
            }
        });
        facts.collect()
    }

    /// Whether each row of the log is in table and view: `None` = some row is there twice.
    pub fn is_complete(&self) -> Option<bool> {
        let mut complete = true;
        for (_, value) in log() {
            let block = RowBlock::decode(&value).unwrap().native;
            let counts = [PartKind::First, PartKind::Second, PartKind::View]
                .map(|kind| self.count(&block, kind));
            if counts.iter().any(|count| *count > 1) {
                return None;
            }
            let second = self.parts.iter().any(|part| {
                part.kind == PartKind::First && part.blocks.contains(&block) && has_second(part)
            });
            complete &= counts == [1, usize::from(second), 1];
        }
        Some(complete)
    }
}

/// Whether the table's rows of an insert had two partitions, as [`parts_of`] says.
pub fn has_second(part: &Part) -> bool {
    let rows = |native: &Bytes| {
        let log = log()
            .into_iter()
            .map(|(_, value)| RowBlock::decode(&value).unwrap());
        let mut blocks = log.filter(|block| block.native == *native);
        blocks.next().map_or(0, |block| block.rows)
    };
    part.blocks.iter().map(rows).sum::<u32>() > 1
}
