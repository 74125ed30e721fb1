//! Everything that was acknowledged is counted once, or waits in the DLQ; all sums agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Result, anyhow};

use super::Check;
use super::input::Input;
use crate::events::number_in;
use crate::ledger::{Book, Call, Kind};
use crate::logs::Logs;
use crate::rows::{PriceBooks, Row, cost, rollup};
use crate::system::System;

/// What was acknowledged is in the log.
pub(super) fn promises(book: &Book, input: &Input) -> Check {
    let mut differences = input.broken_promises(book);
    if input.unknown > 0 {
        differences.push(format!("{} records that nobody sent", input.unknown));
    }
    Check {
        name: "every acknowledged event is in the log",
        compared: format!(
            "{} acknowledged of {} sent, {} in the log",
            book.acknowledged,
            book.sent,
            input.records()
        ),
        differences,
    }
}

/// Every call of the log is a row, once.
pub(super) fn counted(input: &Input, rows: &[Row]) -> Check {
    let mut times: HashMap<usize, u64> = HashMap::new();
    for row in rows.iter().filter(|row| !row.amends()) {
        *times.entry(row.number).or_default() += 1;
    }
    let mut differences = Vec::new();
    let mut missing: Vec<_> = input
        .counted
        .keys()
        .filter(|call| !times.contains_key(call))
        .collect();
    missing.sort();
    differences.extend(
        missing
            .iter()
            .map(|call| format!("call-{call} is not counted")),
    );
    let mut wrong: Vec<_> = times
        .iter()
        .filter(|(call, times)| **times > 1 || !input.counted.contains_key(call))
        .collect();
    wrong.sort();
    differences.extend(wrong.iter().map(|(call, times)| {
        let sent = input.counted.get(call).copied().unwrap_or_default();
        format!("call-{call} is counted {times} times, the log has it {sent} times")
    }));
    Check {
        name: "acknowledged = counted + duplicates + rejected + ends of sessions",
        compared: format!(
            "{} = {} + {} + {} + {}",
            input.records(),
            times.len(),
            input.duplicates(),
            input.rejects.values().sum::<u64>(),
            input.ends.len()
        ),
        differences,
    }
}

/// What cannot be counted is in the DLQ, once.
pub(super) fn rejected(logs: &Logs, input: &Input) -> Result<Check> {
    let mut found: BTreeMap<usize, u64> = BTreeMap::new();
    let mut differences = Vec::new();
    for record in logs.read("usage.dlq")? {
        let value = record.value.unwrap_or_default();
        match number_in(&value) {
            Some(number) => *found.entry(number).or_default() += 1,
            None => differences.push(String::from_utf8_lossy(&value).into_owned()),
        }
    }
    let all: BTreeSet<&usize> = found.keys().chain(input.rejects.keys()).collect();
    for number in all {
        let (is, must) = (found.get(number), input.rejects.get(number));
        if is != must {
            differences.push(format!(
                "event {number}: {is:?} in the DLQ, {must:?} in the log"
            ));
        }
    }
    Ok(Check {
        name: "rejected events are in the DLQ, once",
        compared: format!("{} records", found.values().sum::<u64>()),
        differences,
    })
}

/// Each event's row with those that amend it, as one: it is whose the last says, and costs what that
/// one's price list says.
fn together(rows: &[Row]) -> BTreeMap<usize, Row> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| (row.number, row.address));
    let mut events: BTreeMap<usize, Row> = BTreeMap::new();
    for row in rows {
        let Some(known) = events.get_mut(&row.number) else {
            events.insert(row.number, row.clone());
            continue;
        };
        for (sum, count) in known.tokens.iter_mut().zip(row.tokens) {
            *sum += count;
        }
        known.calls += row.calls;
        known.nanos += row.nanos;
        known.call.clone_from(&row.call);
        known.price_version.clone_from(&row.price_version);
    }
    events
}

/// Every row says what was sent, and costs what its price list says.
pub(super) fn contents(book: &Book, rows: &[Row], prices: &PriceBooks) -> Check {
    let mut differences = Vec::new();
    let mut nanos = 0;
    let mut versions = BTreeSet::new();
    let events = together(rows);
    for row in events.values() {
        nanos += row.nanos;
        let number = row.number;
        if book.voided.contains(&number) {
            if (row.calls, row.tokens, row.nanos) != (0, [0; 3], 0) {
                differences.push(format!("call-{number} is void: {row:?}"));
            }
            continue;
        }
        let amended = book.amended.get(&number);
        let is_said = |call: &Call| {
            let output = amended.map_or(call.output, |amended| amended.output);
            let tokens = [call.input - call.cached, call.cached, output];
            let customer = amended.map_or(&call.customer, |amended| &amended.customer);
            let names = Call {
                customer: customer.clone(),
                input: 0,
                cached: 0,
                output: 0,
                ..call.clone()
            };
            row.tokens == tokens.map(i128::from) && row.call == names
        };
        match book.events.get(number).map(|(kind, _)| kind) {
            Some(Kind::Call(call)) if is_said(call) && row.revenue.is_none() => {}
            Some(Kind::Revenue(revenue)) if Some(revenue) == row.revenue.as_ref() => {
                if row.nanos != 0 {
                    differences.push(format!("call-{number} is revenue and costs {}", row.nanos));
                }
                continue;
            }
            sent => differences.push(format!(
                "call-{number}: {:?} {:?} of {sent:?}",
                row.call, row.tokens
            )),
        }
        versions.insert(&row.price_version);
        let book = prices.iter().find(|(name, _)| *name == row.price_version);
        match book.map(|(_, rates)| rates) {
            None => differences.push(format!("call-{number}: price book {}", row.price_version)),
            Some(rates) if cost(&row.tokens, rates) != row.nanos => differences.push(format!(
                "call-{number} costs {} by {}, charged are {}",
                cost(&row.tokens, rates),
                row.price_version,
                row.nanos
            )),
            Some(_) => {}
        }
    }
    Check {
        name: "every row is what was sent, at its price",
        compared: format!("{nanos} nano-dollars by {} price books", versions.len()),
        differences,
    }
}

/// No two entries have one address.
pub(super) fn addresses(rows: &[Row]) -> Check {
    let mut known = BTreeMap::new();
    let mut differences = Vec::new();
    for row in rows {
        if let Some(other) = known.insert(row.address, row.number) {
            let (partition, seq, index) = row.address;
            differences.push(format!(
                "call-{other} and call-{} are both at {partition}/{seq}/{index}",
                row.number
            ));
        }
    }
    Check {
        name: "every address is given once",
        compared: format!("{} addresses", known.len()),
        differences,
    }
}

/// Within a partition nobody counts by older prices or budgets than before.
pub(super) fn versions(rows: &[Row], prices: &PriceBooks) -> Check {
    let places: HashMap<&str, usize> = prices
        .iter()
        .map(|(name, _)| name.as_str())
        .zip(0..)
        .collect();
    // Revenue has no price, and what is taken back that of its call.
    let of_now = rows
        .iter()
        .filter(|row| row.revenue.is_none() && !row.is_correction);
    let mut rows: Vec<&Row> = of_now.collect();
    rows.sort_by_key(|row| row.address);
    let mut differences = Vec::new();
    for (before, row) in rows.iter().zip(rows.iter().skip(1)) {
        if before.address.0 != row.address.0 {
            continue;
        }
        let place = |row: &Row| places.get(row.price_version.as_str()).copied();
        if place(before) > place(row) || before.budget_version > row.budget_version {
            differences.push(format!("{row:?} came after {before:?}"));
        }
    }
    Check {
        name: "price books and budgets never go back",
        compared: format!("{} price books", prices.len()),
        differences,
    }
}

/// The views' sums are those of the rows.
pub(super) fn rollups(system: &System, rows: &[Row]) -> Result<Check> {
    let warehouse = system.warehouse();
    let mut wanted: BTreeMap<String, [i128; 3]> = BTreeMap::new();
    for row in rows {
        let sum = wanted.entry(row.call.customer.clone()).or_default();
        sum[0] += 1;
        sum[1] += row.nanos;
        sum[2] += row.revenue.as_ref().map_or(0, |revenue| revenue.nanos);
    }
    let mut differences = Vec::new();
    for table in ["spend_hourly", "spend_daily"] {
        let found = rollup(&warehouse, table)?;
        let customers: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
        for customer in customers {
            let (is, must) = (found.get(customer), wanted.get(customer));
            if is != must {
                differences.push(format!("{table}, {customer}: {is:?}, rows say {must:?}"));
            }
        }
    }
    let audit =
        warehouse.numbers("SELECT toInt128(sum(count)), toInt128(sum(nanos)) FROM spend_audit");
    let audit = audit.map_err(|error| anyhow!(error))?;
    let sum = |of: usize| wanted.values().map(|one| one[of]).sum::<i128>();
    let must = vec![sum(0), sum(1)];
    if audit != must {
        differences.push(format!("spend_audit: {audit:?}, rows say {must:?}"));
    }
    Ok(Check {
        name: "rollups = rows",
        compared: format!("{} customers in 2 tables, spend_audit", wanted.len()),
        differences,
    })
}
