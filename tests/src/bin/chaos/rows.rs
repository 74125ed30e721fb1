//! The warehouse's rows, and what the price list says that they cost.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use spendfuse_domain::UnixMillis;
use spendfuse_tests::warehouse::Warehouse;

use crate::events::number_of;
use crate::ledger::{Call, Revenue};

/// A row of table `spend`.
#[derive(Clone, Debug)]
pub struct Row {
    /// The event's number in the ledger.
    pub number: usize,
    /// Whose call it is, without counts; of revenue only the customer.
    pub call: Call,
    /// 1; 0 where more is told of a call that has a row; -1 where one is taken back.
    pub calls: i128,
    /// Input, cache read, output: what comes on top, where it amends another row.
    pub tokens: [i128; 3],
    /// Whether somebody wrote it who corrected a call.
    pub is_correction: bool,
    /// What a customer paid, where it is that.
    pub revenue: Option<Revenue>,
    /// Its own time.
    pub time: UnixMillis,
    /// Its cost.
    pub nanos: i128,
    /// The price book that it was charged by.
    pub price_version: String,
    /// The budgets in force when it was counted.
    pub budget_version: u64,
    /// Partition, commit and place within it.
    pub address: (u32, u64, u32),
}

impl Row {
    /// Whether it amends another row.
    pub fn amends(&self) -> bool {
        self.is_correction || self.calls != 1 && self.revenue.is_none()
    }
}

/// Nano-dollars per million tokens: input, cache read, output.
pub type Rates = [i128; 3];

/// The versions of the price book with their rates, in the order in which they came.
pub type PriceBooks = Vec<(String, Rates)>;

const NANOS_PER_MILLION: i128 = 1_000_000;

/// All rows. Those whose id is not one of the run's are an error.
pub fn rows(warehouse: &Warehouse) -> Result<Vec<Row>> {
    let answer = warehouse.rows(
        "SELECT if(amends_seq > 0, amends_id, event_id), customer, feature, plan, session, input_tokens, cache_read_tokens, \
         output_tokens, toInt128(cost * 1000000000), price_version, meter_partition, meter_seq, \
         meter_index, budget_version, kind, toInt128(revenue * 1000000000), \
         toUnixTimestamp64Milli(time), calls, src_topic LIKE '%.corrections', workspace FROM spend",
    );
    let answer = answer.map_err(|error| anyhow!(error))?;
    answer.into_iter().map(row).collect()
}

fn row(cells: Vec<String>) -> Result<Row> {
    Ok(Row {
        number: number_of(&cells[0])
            .with_context(|| format!("a row of an event that nobody sent: {}", cells[0]))?,
        call: Call {
            workspace: cells[19].clone(),
            customer: cells[1].clone(),
            feature: cells[2].clone(),
            plan: cells[3].clone(),
            session: cells[4].clone(),
            ..Call::default()
        },
        tokens: [cells[5].parse()?, cells[6].parse()?, cells[7].parse()?],
        is_correction: cells[18] == "1",
        revenue: match cells[14].as_str() {
            "revenue" => Some(Revenue {
                customer: cells[1].clone(),
                nanos: cells[15].parse()?,
            }),
            _ => None,
        },
        calls: cells[17].parse()?,
        time: UnixMillis(cells[16].parse()?),
        nanos: cells[8].parse()?,
        price_version: cells[9].clone(),
        budget_version: cells[13].parse()?,
        address: (cells[10].parse()?, cells[11].parse()?, cells[12].parse()?),
    })
}

/// The cost of tokens by the formula of the price list: tokens × rate, added up, rounded up once.
pub fn cost(tokens: &[i128; 3], rates: &Rates) -> i128 {
    let costs = tokens.iter().zip(rates).map(|(count, rate)| count * rate);
    let sum: i128 = costs.sum();
    (sum + NANOS_PER_MILLION - 1) / NANOS_PER_MILLION
}

/// Entries, nano-dollars of cost and of revenue of a rollup, by customer.
pub fn rollup(warehouse: &Warehouse, table: &str) -> Result<BTreeMap<String, [i128; 3]>> {
    let sql = format!(
        "SELECT customer, toInt128(sum(entries)), toInt128(sum(cost) * 1000000000), \
         toInt128(sum(revenue) * 1000000000) FROM {table} GROUP BY customer"
    );
    let answer = warehouse.rows(&sql).map_err(|error| anyhow!(error))?;
    let entry = |row: Vec<String>| {
        let sums = [row[1].parse()?, row[2].parse()?, row[3].parse()?];
        Ok((row[0].clone(), sums))
    };
    answer.into_iter().map(entry).collect()
}
