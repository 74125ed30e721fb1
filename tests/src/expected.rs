//! What must come out, and the comparison with what did.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use crate::lab::Lab;
use crate::wait::{eventually, pause};
use crate::warehouse::Warehouse;

/// Sums that every part must agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Events that count.
    pub events: u64,
    /// Their cost, nano-dollars.
    pub nanos: i128,
    /// The same by customer.
    pub by_customer: BTreeMap<String, (u64, i128)>,
    /// Records that must be in the DLQ.
    pub rejected: u64,
    /// Records sent again.
    pub duplicates: u64,
}

impl Expected {
    /// Counts an event.
    pub fn add(&mut self, customer: &str, nanos: i128) {
        self.events += 1;
        self.nanos += nanos;
        let sums = self.by_customer.entry(customer.to_owned()).or_default();
        sums.0 += 1;
        sums.1 += nanos;
    }

    /// Adds another traffic's sums.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.nanos += other.nanos;
        self.rejected += other.rejected;
        self.duplicates += other.duplicates;
        for (customer, (events, nanos)) in &other.by_customer {
            let sums = self.by_customer.entry(customer.clone()).or_default();
            sums.0 += events;
            sums.1 += nanos;
        }
    }
}

/// Every way in which the warehouse differs from `expected`; empty where it does not.
///
/// # Errors
/// Where the warehouse cannot be asked.
pub fn differences(warehouse: &Warehouse, expected: &Expected) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let sums = (i128::from(expected.events), expected.nanos);
    let rows = warehouse.numbers(
        "SELECT count(), toInt128(sum(cost) * 1000000000), uniqExact(workspace, source, event_id) \
         FROM spend",
    )?;
    compare(&mut found, "spend", sums, (rows[0], rows[1]));
    compare(&mut found, "distinct events in spend", sums.0, rows[2]);
    for (table, count, nanos) in [
        ("spend_hourly", "entries", "cost * 1000000000"),
        ("spend_daily", "entries", "cost * 1000000000"),
        ("spend_audit", "count", "nanos"),
    ] {
        let sql = format!("SELECT toInt128(sum({count})), toInt128(sum({nanos})) FROM {table}");
        let rows = warehouse.numbers(&sql)?;
        compare(&mut found, table, sums, (rows[0], rows[1]));
    }
    let customers: BTreeMap<String, (u64, i128)> = warehouse
        .rows("SELECT customer, count(), toInt128(sum(cost) * 1000000000) FROM spend GROUP BY customer")?
        .into_iter()
        .map(|row| {
            let number = |cell: &str| cell.parse().unwrap_or(-1);
            (row[0].clone(), (number(&row[1]) as u64, number(&row[2])))
        })
        .collect();
    if found.is_empty() {
        compare(&mut found, "customers", &expected.by_customer, &customers);
    }
    Ok(found)
}

fn compare<T: PartialEq + Debug>(found: &mut Vec<String>, what: &str, expected: T, is: T) {
    if expected != is {
        found.push(format!("{what}: expected {expected:?}, found {is:?}"));
    }
}

impl Lab {
    /// Waits until the warehouse holds what is expected, and that nothing more comes.
    ///
    /// # Panics
    /// With every difference, once `patience` has passed or where more comes.
    pub fn settle(&self, expected: &Expected, patience: Duration) {
        let warehouse = self.warehouse();
        eventually("the warehouse agrees", patience, || {
            let found = differences(&warehouse, expected)?;
            if found.is_empty() {
                return Ok(());
            }
            Err(found.join("\n"))
        });
        pause(Duration::from_millis(700));
        let found = differences(&warehouse, expected).expect("the warehouse answers");
        assert!(found.is_empty(), "afterwards: {found:#?}");
        let rejected = self.read("usage.dlq").len() as u64;
        assert_eq!(rejected, expected.rejected, "records in the DLQ");
    }
}
