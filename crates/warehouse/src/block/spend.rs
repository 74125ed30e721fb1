//! Blocks of table `spend`.

use smallvec::SmallVec;
use spendfuse_domain::Nanos;
use spendfuse_domain::event::{Body, Call};
use spendfuse_domain::row::{Amended, Counts, MeterAddress, SpendRow};
use spendfuse_domain::units::{Quantity, UnitKind};

use super::columns::RowCursor;
use super::schema::{Address, Schema, table};
use super::{RowFormat, TableBlock, TableKind};

/// Columns of blocks of schema 1.
pub(crate) const SPEND_COLUMNS_1: usize = 65;

/// A block of table `spend`.
///
/// Buffers are kept between blocks: one value per worker and partition, reused for ever.
pub type SpendBlock = TableBlock<Spend>;

/// Table `spend`: every counted entry.
#[derive(Debug)]
pub struct Spend {
    src_topic: String,
    corrections_topic: String,
}

impl SpendBlock {
    /// An empty block for events of the usage topic `src_topic` (`spendfuse.usage`), in the oldest
    /// format that loaders may know.
    pub fn new(src_topic: impl Into<String>) -> Self {
        let spend = Spend {
            src_topic: src_topic.into(),
            corrections_topic: String::new(),
        };
        Self::of(spend, RowFormat::default())
    }

    /// The same for one that corrections come to from `topic`.
    pub fn with_corrections(mut self, topic: impl Into<String>) -> Self {
        self.kind_mut().corrections_topic = topic.into();
        self
    }
}

impl TableKind for Spend {
    type Row<'a> = SpendRow<'a>;

    fn schema() -> &'static Schema {
        &SPEND
    }

    /// An event that ends a session is no spend and adds no row.
    fn index(row: &SpendRow<'_>) -> Option<u32> {
        let is_end = matches!(row.event.body, Body::SessionEnd);
        (!is_end).then_some(row.address.index)
    }

    fn fill(&self, row: &SpendRow<'_>, format: RowFormat, cursor: &mut RowCursor<'_>) {
        let (absent, nothing) = (Call::default(), Counts::default());
        let (kind, call, revenue) = match &row.event.body {
            Body::Usage(call) => {
                let kind = row.amends.map_or("usage", |amended| amended.by.kind());
                (kind, call, Nanos::ZERO)
            }
            Body::Revenue(amount) => ("revenue", &absent, *amount),
            Body::SessionEnd => ("session_end", &absent, Nanos::ZERO),
        };
        let spent = Spent {
            row,
            kind,
            call,
            before: row.amends.map_or(&nothing, |amended| &amended.counts),
            revenue,
            epoch: format.epoch(),
            src_topic: match row.amends.is_some_and(Amended::is_corrected) {
                true => &self.corrections_topic,
                false => &self.src_topic,
            },
        };
        fill(&spent, cursor);
    }
}

/// A row and what its columns share.
struct Spent<'a> {
    row: &'a SpendRow<'a>,
    kind: &'static str,
    call: &'a Call<'a>,
    /// What stood for it until now.
    before: &'a Counts,
    revenue: Nanos,
    epoch: u32,
    src_topic: &'a str,
}

/// A count that an entry may also take back.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn tools(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// How much more units a call has than stood for it before, without zeros.
fn more_units(now: &[Entry], before: &[Entry]) -> SmallVec<[(&'static str, i128); 2]> {
    let of = |entries: &[Entry], wanted: UnitKind| -> i128 {
        let found = entries.iter().find(|(kind, _)| *kind == wanted);
        found.map_or(0, |(_, quantity)| quantity.0.into())
    };
    let gone = before.iter().filter(|(kind, _)| of(now, *kind) == 0);
    let kinds = now.iter().chain(gone).map(|(kind, _)| *kind);
    let more = kinds.map(|kind| (kind.name(), of(now, kind) - of(before, kind)));
    more.filter(|(_, more)| *more != 0).collect()
}

type Entry = (UnitKind, Quantity);

table! {
    SPEND = "spend", 2, Address::Meter,
    fn fill(spent: &Spent<'_>) {
        let (row, call, event) = (spent.row, spent.call, spent.row.event);
        let who = &event.attribution;
        let is_usage = matches!(event.body, Body::Usage(_));
        let priced = if is_usage { row.priced.name() } else { "" };
        let before = spent.before;
        let takes_back = row.amends.is_some_and(|amended| amended.by.takes_back());
        let quantities = more_units(&call.units.entries, &before.units);
        let amends = row.amends.map_or(MeterAddress::default(), |amended| amended.address);
    }
    time: time(event.time);
    received_at: time(row.origin.arrival);
    kind: text(spent.kind);
    amends_id: text(row.amends.map_or("", |amended| amended.id));
    source: text(&event.source);
    event_id: text(&event.id);
    workspace: text(&who.workspace);
    customer: text(&who.customer);
    feature: text(&who.feature);
    user_id: text(&who.user);
    agent: text(&who.agent);
    plan: text(&who.plan);
    environment: text(&who.environment);
    account: text(&who.account);
    api_key_id: text(&call.api_key_id);
    region: text(&call.region);
    session: text(&who.session);
    root_session: text(&who.root_session);
    tags: text_map(who.tags.iter().map(|(name, value)| (&**name, &**value)));
    provider: text(&who.provider);
    model: text(&who.model);
    request_model: text(&call.request_model);
    operation: text(&call.operation);
    service_tier: text(&call.service_tier);
    input_tokens: signed64(signed(call.tokens.input) - signed(before.tokens.input));
    cache_read_tokens: signed64(signed(call.tokens.cache_read) - signed(before.tokens.cache_read));
    cache_write_5m_tokens: signed64(signed(call.tokens.cache_write_5m) - signed(before.tokens.cache_write_5m));
    cache_write_1h_tokens: signed64(signed(call.tokens.cache_write_1h) - signed(before.tokens.cache_write_1h));
    audio_input_tokens: signed64(signed(call.tokens.audio_input) - signed(before.tokens.audio_input));
    image_input_tokens: signed64(signed(call.tokens.image_input) - signed(before.tokens.image_input));
    video_input_tokens: signed64(signed(call.tokens.video_input) - signed(before.tokens.video_input));
    output_tokens: signed64(signed(call.tokens.output) - signed(before.tokens.output));
    reasoning_tokens: signed64(signed(call.tokens.reasoning) - signed(before.tokens.reasoning));
    audio_output_tokens: signed64(signed(call.tokens.audio_output) - signed(before.tokens.audio_output));
    image_output_tokens: signed64(signed(call.tokens.image_output) - signed(before.tokens.image_output));
    units: decimal_map(quantities.iter().copied());
    unit_quality: text(&call.units.quality);
    unit_size: text(&call.units.size);
    tool_calls: signed32(tools(call.tool_calls) - tools(before.tool_calls));
    status: text(&call.status);
    latency_ms: nullable_count32(call.latency_ms);
    cost: money(row.cost.total() - before.cost.total());
    cost_input: money(row.cost.input - before.cost.input);
    cost_cache_read: money(row.cost.cache_read - before.cost.cache_read);
    cost_cache_write: money(row.cost.cache_write - before.cost.cache_write);
    cost_output: money(row.cost.output - before.cost.output);
    cost_units: money(row.cost.units - before.cost.units);
    reported_cost: money(call.reported_cost.unwrap_or_default() - before.reported_cost);
    revenue: money(spent.revenue);
    priced: text(priced);
    price_version: text(row.price_version);
    budget_version: count64(row.budget_version);
    flags: texts(row.flags.names());
    call_id: text(&call.call_id);
    attempt: count32(call.attempt);
    response_id: text(&call.response_id);
    trace_id: text(&call.trace_id);
    span_id: text(&call.span_id);
    parent_span_id: text(&call.parent_span_id);
    meter_partition: count32(row.address.partition);
    meter_seq: count64(row.address.seq);
    meter_index: count32(row.address.index);
    src_topic: text(spent.src_topic);
    src_partition: count32(row.origin.partition);
    src_offset: signed64(row.origin.offset);
    epoch: count32(spent.epoch);
    calls: signed8(i8::from(is_usage && !takes_back) - before.calls);
    project: text(&who.project);
    speed: text(&call.rare.speed);
    inference_geo: text(&call.rare.inference_geo);
    price_detail: text(row.price_detail);
    priced_as: text(row.priced_as);
    amends_epoch: count32(row.amends.map_or(0, |_| spent.epoch));
    amends_partition: count32(amends.partition);
    amends_seq: count64(amends.seq);
    amends_index: count32(amends.index);
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::{FixedDimension, TokenClass};

    use super::*;

    fn columns() -> impl Iterator<Item = &'static str> {
        SPEND.columns.iter().map(|column| column.name)
    }

    #[test]
    fn blocks_of_schema_1_have_the_columns_of_its_table() {
        let table = include_str!("../../migrations/0001_spend.sql");
        let (table, _) = table.split_once("INDEX").unwrap();
        let lines = table.lines().filter_map(|line| line.strip_prefix("    `"));
        let of_table: Vec<&str> = lines.filter_map(|line| line.split('`').next()).collect();
        let schema = Schema::find("spend", 1).unwrap();
        let of_blocks: Vec<_> = schema.columns.iter().map(|column| column.name).collect();
        assert_eq!(of_blocks, of_table);
    }

    #[test]
    fn rows_have_the_columns_of_dimensions() {
        for column in FixedDimension::ALL.map(FixedDimension::column) {
            assert!(columns().any(|other| other == column), "{column}");
        }
    }

    #[test]
    fn rows_have_the_columns_of_token_classes() {
        let tokens: Vec<_> = columns().filter(|name| name.ends_with("_tokens")).collect();
        assert_eq!(tokens, TokenClass::ALL.map(TokenClass::column));
    }
}
