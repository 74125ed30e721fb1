//! ClickHouse as the loader sees it: inserts with tokens that are remembered for a while, parts by
//! month that may be torn apart by a death, and the rows that are there in the end.

use std::collections::{BTreeMap, VecDeque};

use spendfuse_broken::{Break, is_broken};
use spendfuse_loader::batch::{Batch, TableInsert};
use spendfuse_loader::checkpoint::{Chain, Links};
use spendfuse_loader::recovery::TableFacts;
use spendfuse_warehouse::migrations::{DEDUPLICATION_SECONDS, DEDUPLICATION_WINDOW};

use crate::budget::Sum;
use crate::calendar::DAY;
use crate::calendar::civil;
use crate::native::{self, Row, Value};
use crate::traffic::Call;

/// Where a row was counted: stage, partition, commit, place. Sets of topics after one another
/// have their own.
pub(crate) type Address = (String, u32, u64, u32);

/// A row of table `spend`, as far as sums over it need.
#[derive(Clone, Debug)]
pub(crate) struct SpendRow {
    pub(crate) epoch: u32,
    pub(crate) budget_version: u64,
    pub(crate) received_at: i64,
    /// It is a call's own row, not one that amends it.
    pub(crate) is_first: bool,
    /// Its id, whose call it is, of which model, and when; without its counts.
    pub(crate) call: Call,
    pub(crate) sum: Sum,
}

#[derive(Debug, Default)]
struct Table {
    rows: Vec<Row>,
    /// Of table `spend`: all of its rows.
    spend: Vec<SpendRow>,
    addresses: BTreeMap<Address, u32>,
    tokens: VecDeque<(String, i64)>,
    inserts: u64,
    given_twice: Option<Address>,
}

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Warehouse {
    tables: BTreeMap<&'static str, Table>,
}

/// How much of an insert happens before a death.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    All,
    /// So many parts of it.
    Parts(usize),
}

impl Warehouse {
    /// Insert counters, as the loader's intents name them.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let tables = self.tables.iter();
        tables
            .map(|(name, table)| ((*name).to_owned(), table.inserts))
            .collect()
    }

    /// Rows of `table` that came since the last call.
    pub(crate) fn take_rows(&mut self, table: &str) -> Vec<Row> {
        let table = self.tables.get_mut(table);
        table
            .map(|table| std::mem::take(&mut table.rows))
            .unwrap_or_default()
    }

    /// All rows of table `spend`.
    pub(crate) fn spend(&self) -> &[SpendRow] {
        let table = self.tables.get("spend");
        table.map_or(&[][..], |table| table.spend.as_slice())
    }

    /// The inserts of a batch with their tokens, as far as `extent` says.
    pub(crate) fn insert(&mut self, batch: &Batch, now: i64, extent: Extent) {
        let mut left = match extent {
            Extent::All => usize::MAX,
            Extent::Parts(parts) => parts,
        };
        for insert in &batch.tables {
            self.insert_table(insert, now, &mut left);
        }
    }

    fn insert_table(&mut self, insert: &TableInsert, now: i64, left: &mut usize) {
        let table = self.tables.entry(insert.table()).or_default();
        for (month, rows) in parts_of(insert) {
            if *left == 0 {
                return;
            }
            *left -= 1;
            let token = match is_broken(Break::TokenNotTiedToRange) {
                false => format!("{}:{month:?}", insert.token),
                true => format!("{}:{}:{month:?}", insert.table(), insert.blocks.len()),
            };
            if table.remembers(&token, now) {
                continue;
            }
            table.tokens.push_back((token, now));
            table.put(rows);
        }
        table.inserts += 1;
    }

    /// The same where an earlier loader may have inserted it: what is there is not inserted again,
    /// what is missing is put in (`crates/loader/src/inserting.rs` and `healing.rs`, in short).
    pub(crate) fn insert_again(&mut self, batch: &Batch, now: i64) {
        for insert in &batch.tables {
            let is_there = self.found(insert) > 0;
            if !is_there || is_broken(Break::DeduplicationWindowTooSmall) {
                self.insert_table(insert, now, &mut usize::MAX.clone());
            }
        }
        self.complete(batch);
    }

    /// Puts in what is missing.
    pub(crate) fn complete(&mut self, batch: &Batch) {
        for insert in &batch.tables {
            let table = self.tables.entry(insert.table()).or_default();
            for (_, rows) in parts_of(insert) {
                let is_missing = |row: &Row| !table.addresses.contains_key(&address(row));
                let missing = rows.into_iter().filter(is_missing).collect();
                table.put(missing);
            }
        }
    }

    /// How far each chain of a writer has come, by the rows that are there.
    pub(crate) fn chain_ends(&self, stage: &str, epoch: u32, partition: u32) -> Links {
        let ends = self.tables.iter().filter_map(|(name, table)| {
            let writer = format!("{stage}@{epoch}");
            let of_writer = |known: &&Address| known.1 == partition && known.0 == writer;
            let last = table
                .addresses
                .keys()
                .filter(of_writer)
                .map(|known| known.2)
                .max()?;
            let chain = Chain {
                table: (*name).to_owned(),
                partition,
                epoch,
            };
            Some((chain, last))
        });
        Links::new(ends)
    }

    /// An address that two rows have, and their table.
    pub(crate) fn address_given_twice(&self) -> Option<(&'static str, &Address)> {
        let mut tables = self.tables.iter();
        tables.find_map(|(name, table)| Some((*name, table.given_twice.as_ref()?)))
    }

    pub(crate) fn facts(&self, batch: &Batch) -> Vec<TableFacts> {
        let facts = batch.tables.iter().map(|insert| TableFacts {
            found: self.found(insert),
            inserts: self
                .tables
                .get(insert.table())
                .map_or(0, |table| table.inserts),
            others: 0,
            views_agree: true,
            is_detached: false,
        });
        facts.collect()
    }

    fn found(&self, insert: &TableInsert) -> u64 {
        let Some(table) = self.tables.get(insert.table()) else {
            return 0;
        };
        let mut found = 0;
        for (_, rows) in parts_of(insert) {
            let there = rows
                .iter()
                .filter_map(|row| table.addresses.get(&address(row)));
            found += there.map(|count| u64::from(*count)).sum::<u64>();
        }
        found
    }
}

impl Table {
    fn remembers(&mut self, token: &str, now: i64) -> bool {
        let window = match is_broken(Break::DeduplicationWindowTooSmall) {
            false => usize::try_from(DEDUPLICATION_WINDOW).unwrap_or(usize::MAX),
            true => 1,
        };
        let oldest = now - DEDUPLICATION_SECONDS as i64 * 1000;
        while self.tokens.len() > window || self.tokens.front().is_some_and(|(_, at)| *at < oldest)
        {
            self.tokens.pop_front();
        }
        self.tokens.iter().rev().any(|(known, _)| known == token)
    }

    fn put(&mut self, rows: Vec<Row>) {
        for row in rows {
            let address = address(&row);
            let count = self.addresses.entry(address.clone()).or_default();
            *count += 1;
            if *count > 1 {
                self.given_twice = Some(address);
            }
            self.spend.extend(SpendRow::of(&row));
            self.rows.push(row);
        }
    }
}

impl SpendRow {
    /// `None` for a row of another table.
    fn of(row: &Row) -> Option<Self> {
        let number = |name: &str| row.get(name).map_or(0, Value::number);
        let text = |name: &str| row.get(name).map_or("", Value::text);
        let tokens = ["input_tokens", "cache_read_tokens", "output_tokens"];
        let sum = Sum {
            nanos: row.get("cost_input").map(|_| number("cost"))?,
            tokens: tokens.map(number).iter().sum(),
            calls: number("calls"),
        };
        // Its name before schema 2.
        let user = if row.contains_key("user") {
            "user"
        } else {
            "user_id"
        };
        let names = [
            "workspace",
            "customer",
            "feature",
            user,
            "plan",
            "session",
            "model",
        ];
        Some(Self {
            epoch: number("epoch") as u32,
            budget_version: number("budget_version") as u64,
            received_at: number("received_at") as i64,
            is_first: text("kind") == "usage",
            call: Call {
                id: text("event_id").to_owned(),
                ..Call::named(names.map(text), number("time") as i64)
            },
            sum,
        })
    }
}

/// Rows by month, as the tables are partitioned.
fn parts_of(insert: &TableInsert) -> BTreeMap<(i64, i64), Vec<Row>> {
    let mut parts: BTreeMap<(i64, i64), Vec<Row>> = BTreeMap::new();
    for row in insert.blocks.iter().flat_map(|block| native::rows(block)) {
        let times = ["time", "at", "decided_at", "last_at"];
        let time = times
            .iter()
            .find_map(|name| row.get(*name))
            .map_or(0, native::Value::number);
        let (year, month, _) = civil((time as i64).div_euclid(DAY));
        parts.entry((year, month)).or_default().push(row);
    }
    parts
}

fn address(row: &Row) -> Address {
    let prefix = if row.contains_key("meter_seq") {
        "meter"
    } else {
        "stage"
    };
    let number = |name: &str| {
        row.get(&format!("{prefix}_{name}"))
            .map_or(0, native::Value::number)
    };
    let stage = row
        .get("stage")
        .map_or("meter", native::Value::text)
        .to_owned();
    let epoch = row.get("epoch").map_or(0, native::Value::number);
    let stage = format!("{stage}@{epoch}");
    (
        stage,
        number("partition") as u32,
        number("seq") as u64,
        number("index") as u32,
    )
}
