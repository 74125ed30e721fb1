//! Rows of an entry and of what amends it, read from the warehouse.

use std::borrow::Cow;
use std::collections::BTreeMap;

use spendfuse_domain::correction::EntryPlace;
use spendfuse_domain::event::{Call, Flags, Particulars};
use spendfuse_domain::row::PriceBasis;
use spendfuse_domain::{Attribution, FixedDimension, Nanos, TokenClass, UnixMillis};
use spendfuse_warehouse::client::quoted;
use spendfuse_warehouse::conditions;

use super::Failure;
use super::warehouse::Connection;
use crate::settings::Settings;

/// Rows of an entry and its corrections lie within this time of it at least, milliseconds: an event
/// that is reported again may tell another time.
const LEAST_AROUND_MILLIS: i64 = 3 * 24 * 60 * 60 * 1000;
/// 2200-01-01.
pub const LAST_MILLIS: i64 = 7_258_118_400_000;
/// Corrections of one entry that are read.
const MOST_ROWS: usize = 1_000;

/// A row, as far as it takes part in what stands for the entry.
#[allow(missing_docs)]
pub struct Row {
    /// The correction that wrote it.
    pub correction: Option<String>,
    /// The entry that it amends, or that it is.
    pub entry: EntryPlace,
    pub received_at: UnixMillis,
    pub budget_version: u64,
    pub price_detail: String,
    pub attribution: Attribution<'static>,
    pub event_id: String,
    pub source: String,
    pub time: UnixMillis,
    pub call: Call<'static>,
    pub tokens: [i128; TokenClass::COUNT],
    pub units: BTreeMap<String, i128>,
    pub tool_calls: i128,
    pub calls: i128,
    /// Input, cache read, cache write, output, units, reported.
    pub costs: [Nanos; 6],
    pub flags: Flags,
    pub priced: PriceBasis,
    pub price_version: String,
    pub priced_as: String,
}

/// The answer of ClickHouse, as texts.
pub fn ask(connection: &Connection, question: &str) -> Result<Vec<Vec<String>>, Failure> {
    let answer = connection.warehouse.query_table(question);
    Ok(connection.wait(answer)?.rows)
}

/// A number in an answer.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| {
        Failure::work(format!(
            "ClickHouse says {text:?} where a number was asked for"
        ))
    })
}

/// Columns of a call that are texts.
const TEXTS: [&str; 20] = [
    "event_id",
    "source",
    "operation",
    "service_tier",
    "speed",
    "inference_geo",
    "unit_quality",
    "unit_size",
    "status",
    "call_id",
    "response_id",
    "request_model",
    "trace_id",
    "span_id",
    "parent_span_id",
    "region",
    "api_key_id",
    "price_version",
    "priced_as",
    "price_detail",
];

/// The row of the entry at `place`, whose event is `id` of `time`, and those that amend it, in the order
/// of counting.
pub fn rows(
    connection: &Connection,
    settings: &Settings,
    place: EntryPlace,
    id: &str,
    time: i64,
) -> Result<Vec<Row>, Failure> {
    let EntryPlace {
        epoch,
        partition,
        seq,
        index,
    } = place;
    let condition = |times: &str| {
        format!(
            "epoch = {epoch} AND meter_partition = {partition} AND meter_seq >= {seq} AND {times} \
             AND (meter_seq = {seq} AND meter_index = {index} \
                  OR amends_id = {} AND amends_epoch = {epoch} AND amends_partition = {partition} \
                     AND amends_seq = {seq} AND amends_index = {index}) \
             ORDER BY meter_seq, meter_index LIMIT {MOST_ROWS}",
            quoted(id)
        )
    };
    let rows = rows_of(connection, settings, (time, time), condition)?;
    match rows.len() {
        MOST_ROWS => Err(Failure::work(format!(
            "{place} was corrected {MOST_ROWS} times already"
        ))),
        _ => Ok(rows),
    }
}

/// Rows of entries of these times and of what amends them; `condition` is given the one on their times,
/// and says their order as well.
fn rows_of(
    connection: &Connection,
    settings: &Settings,
    (from, to): (i64, i64),
    condition: impl Fn(&str) -> String,
) -> Result<Vec<Row>, Failure> {
    let ask = |last| {
        let times = around(settings, from, last);
        rows_where(connection, settings, &condition(&times))
    };
    to_the_last(to, ask, |row: &Row| row.time.0)
}

/// Asks for rows up to times around the last one that is known, until none is later. Each event that a
/// call grows by is remembered anew, so that the next one may be as much later again: it is looked for
/// as far behind the last one that was found.
fn to_the_last<R>(
    to: i64,
    ask: impl Fn(i64) -> Result<Vec<R>, Failure>,
    time: impl Fn(&R) -> i64,
) -> Result<Vec<R>, Failure> {
    let mut last = to;
    loop {
        let rows = ask(last)?;
        let found = rows.iter().map(&time).max();
        match found.filter(|found| *found > last) {
            Some(later) => last = later,
            None => return Ok(rows),
        }
    }
}

/// How far the times lie apart that events of one entry tell, milliseconds: each of them may be as old
/// as what is remembered when it comes, and as long may lie between them.
fn around_millis(remembered_millis: i64) -> i64 {
    LEAST_AROUND_MILLIS.max(remembered_millis.saturating_mul(2))
}

/// The condition on rows of entries of these times and of what amends them.
pub fn around(settings: &Settings, from: i64, to: i64) -> String {
    let around = around_millis(settings.remembered_millis());
    // ClickHouse's times begin in 1900 and end in 2299.
    let (from, to) = (
        from.saturating_sub(around).max(0),
        to.saturating_add(around).min(LAST_MILLIS),
    );
    format!(
        "time >= {} AND time <= {}",
        conditions::time(UnixMillis(from)),
        conditions::time(UnixMillis(to))
    )
}

/// Rows of table `spend` by the entries that they are or amend; the condition says the order of those of
/// an entry as well.
pub fn by_entry(
    connection: &Connection,
    settings: &Settings,
    condition: &str,
) -> Result<BTreeMap<EntryPlace, Vec<Row>>, Failure> {
    Ok(sorted(rows_where(connection, settings, condition)?))
}

/// The same of entries of these times, and of all that amends them however much later; `condition` is
/// given the one on their times.
pub fn by_entry_of(
    connection: &Connection,
    settings: &Settings,
    times: (i64, i64),
    condition: impl Fn(&str) -> String,
) -> Result<BTreeMap<EntryPlace, Vec<Row>>, Failure> {
    Ok(sorted(rows_of(connection, settings, times, condition)?))
}

fn sorted(rows: Vec<Row>) -> BTreeMap<EntryPlace, Vec<Row>> {
    let mut entries: BTreeMap<EntryPlace, Vec<Row>> = BTreeMap::new();
    for row in rows {
        entries.entry(row.entry).or_default().push(row);
    }
    entries
}

/// Rows of table `spend`; the condition says their order as well.
fn rows_where(
    connection: &Connection,
    settings: &Settings,
    condition: &str,
) -> Result<Vec<Row>, Failure> {
    let question = format!("SELECT {} FROM spend WHERE {condition}", columns());
    let topic = settings.topics().corrections;
    let answer = connection.wait(connection.warehouse.query_long_text(&question))?;
    let rows = answer.rows.into_iter();
    rows.map(|cells| row(cells, &topic)).collect()
}

fn columns() -> String {
    let mut columns: Vec<String> = TEXTS.map(str::to_owned).into();
    let dimensions = FixedDimension::BY_NUMBER.map(|one| format!("`{}`", one.column()));
    columns.extend(dimensions);
    columns.extend(TokenClass::ALL.map(|class| format!("toString({})", class.column())));
    let costs = [
        "cost_input",
        "cost_cache_read",
        "cost_cache_write",
        "cost_output",
        "cost_units",
        "reported_cost",
    ];
    columns.extend(costs.map(|cost| format!("toString(toInt128({cost} * 1000000000))")));
    columns.extend(
        [
            "toJSONString(mapApply((k, v) -> (toString(k), toString(v)), tags))",
            "toJSONString(mapApply((k, v) -> (toString(k), toString(toInt128(v * 1000000000))), units))",
            "toJSONString(arrayMap(x -> toString(x), flags))",
            "toString(tool_calls)",
            "toString(calls)",
            "toString(attempt)",
            "ifNull(toString(latency_ms), '')",
            "toString(priced)",
            "toString(toUnixTimestamp64Milli(time))",
            "toString(kind)",
            "src_topic",
            "toString(toUnixTimestamp64Milli(received_at))",
            "toString(budget_version)",
            "concat(toString(epoch), '/', toString(if(amends_seq > 0, amends_partition, meter_partition)), \
                    '/', toString(if(amends_seq > 0, amends_seq, meter_seq)), \
                    '/', toString(if(amends_seq > 0, amends_index, meter_index)))",
        ]
        .map(str::to_owned),
    );
    columns.join(", ")
}

fn row(cells: Vec<String>, corrections_topic: &str) -> Result<Row, Failure> {
    let mut cells = cells.into_iter();
    let mut next = || cells.next().unwrap_or_default();
    let texts: [String; TEXTS.len()] = std::array::from_fn(|_| next());
    let [
        event_id,
        source,
        operation,
        service_tier,
        speed,
        inference_geo,
        quality,
        size,
        status,
        call_id,
        response_id,
        request_model,
        trace_id,
        span_id,
        parent_span_id,
        region,
        api_key_id,
        price_version,
        priced_as,
        price_detail,
    ] = texts;
    let dimensions: [String; FixedDimension::COUNT] = std::array::from_fn(|_| next());
    let mut tokens = [0; TokenClass::COUNT];
    for count in &mut tokens {
        *count = number(&next())?;
    }
    let mut costs = [Nanos::ZERO; 6];
    for cost in &mut costs {
        *cost = Nanos::new(number(&next())?);
    }
    let map = |text: String| -> Result<BTreeMap<String, String>, Failure> {
        serde_json::from_str(&text).map_err(Failure::work)
    };
    let (tags, units) = (map(next())?, map(next())?);
    let names: Vec<String> = serde_json::from_str(&next()).map_err(Failure::work)?;
    let mut flags = Flags::default();
    let known = names.iter().filter_map(|name| Flags::named(name));
    known.for_each(|flag| flags.insert(flag));
    let (tool_calls, calls) = (number(&next())?, number(&next())?);
    let (attempt, latency) = (number(&next())?, next());
    let (priced, time, kind, topic) = (next(), number(&next())?, next(), next());
    let (received_at, budget_version) = (number(&next())?, number(&next())?);
    let entry = next().parse().map_err(Failure::work)?;
    let owned = |(name, value): (String, String)| (Cow::Owned(name), Cow::Owned(value));
    let attribution = Attribution::of(tags.into_iter().map(owned).collect(), |dimension| {
        Cow::Owned(dimensions[dimension as usize].clone())
    });
    let mut call = Call {
        operation: operation.into(),
        service_tier: service_tier.into(),
        call_id: call_id.into(),
        attempt,
        status: status.into(),
        latency_ms: latency.parse().ok(),
        request_model: request_model.into(),
        response_id: response_id.into(),
        trace_id: trace_id.into(),
        span_id: span_id.into(),
        parent_span_id: parent_span_id.into(),
        region: region.into(),
        api_key_id: api_key_id.into(),
        ..Call::default()
    };
    call.units.quality = quality.into();
    call.units.size = size.into();
    call.rare = Particulars {
        speed: speed.into(),
        inference_geo: inference_geo.into(),
        ..Default::default()
    }
    .into();
    let quantity = |(kind, text): (String, String)| Ok((kind, number(&text)?));
    let amends = kind == "correction" || kind == "rerate";
    let is_correction = amends && topic == corrections_topic;
    Ok(Row {
        correction: is_correction.then(|| event_id.clone()),
        entry,
        received_at: UnixMillis(received_at),
        budget_version,
        price_detail,
        attribution,
        event_id,
        source,
        time: UnixMillis(time),
        call,
        tokens,
        units: units
            .into_iter()
            .map(quantity)
            .collect::<Result<_, Failure>>()?,
        tool_calls,
        calls,
        costs,
        flags,
        priced: PriceBasis::named(&priced).unwrap_or_default(),
        price_version,
        priced_as,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_again_and_again_is_found_to_the_last_of_it() {
        // Each as late as one window reaches behind the one before.
        const REACH: i64 = 10;
        let told = [0, 9, 18, 27, 50];
        let ask = |last: i64| {
            let rows = told.iter().copied().filter(|time| *time <= last + REACH);
            Ok(rows.collect::<Vec<i64>>())
        };
        let found = to_the_last(0, ask, |time| *time);
        assert_eq!(found.ok(), Some(vec![0, 9, 18, 27]));
    }

    #[test]
    fn a_long_memory_finds_what_was_told_again_long_after() {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        assert_eq!(around_millis(DAY), 3 * DAY);
        // Told by an event seven days old, and again by one of now, seven days later.
        assert_eq!(around_millis(7 * DAY), 14 * DAY);
    }
}
