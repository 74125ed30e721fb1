//! Blocks of table `spend`.

use spendfuse_domain::Nanos;
use spendfuse_domain::event::{Body, Call};
use spendfuse_domain::row::{MeterAddress, SpendRow};

use super::columns::{Columns, RowCursor};
use super::schema::SPEND;
use crate::record::{IndexRange, Link, RowBlock};

/// Rows of table `spend` of one commit of a meter partition, as a Native block in the making.
///
/// Buffers are kept between blocks: one value per worker and partition, reused for ever.
#[derive(Debug)]
pub struct SpendBlock {
    columns: Columns,
    src_topic: String,
    indexes: Option<IndexRange>,
}

impl SpendBlock {
    /// An empty block for events of the usage topic `src_topic` (`spendfuse.usage`).
    pub fn new(src_topic: impl Into<String>) -> Self {
        Self {
            columns: Columns::new(&SPEND),
            src_topic: src_topic.into(),
            indexes: None,
        }
    }

    /// Adds a row. An event that ends a session is no spend and adds none.
    pub fn push(&mut self, row: &SpendRow<'_>) {
        let absent = Call::default();
        let (kind, call, revenue) = match &row.event.body {
            Body::Usage(call) => ("usage", call, Nanos::ZERO),
            Body::Revenue(amount) => ("revenue", &absent, *amount),
            Body::SessionEnd => return,
        };
        IndexRange::extend(&mut self.indexes, row.address.index);
        let event = row.event;
        let mut columns = self.columns.row();
        columns.time(event.time);
        columns.time(row.origin.arrival);
        columns.text(kind);
        columns.text(""); // amends_id: only corrections and re-ratings amend.
        columns.text(&event.source);
        columns.text(&event.id);
        push_attribution(&mut columns, row, call);
        push_call(&mut columns, call);
        push_money(&mut columns, row, call, revenue);
        columns.texts(row.flags.names());
        columns.text(&call.call_id);
        columns.count32(call.attempt);
        columns.text(&call.response_id);
        columns.text(&call.trace_id);
        columns.text(&call.span_id);
        columns.text(&call.parent_span_id);
        push_address(&mut columns, row.address);
        columns.text(&self.src_topic);
        columns.count32(row.origin.partition);
        columns.signed64(row.origin.offset);
        columns.finish();
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.columns.rows()
    }

    /// About how many bytes the block takes by now.
    pub fn bytes_estimate(&self) -> usize {
        self.columns.bytes_estimate()
    }

    /// The rows so far as a Native block, and an empty block again. No rows give no bytes.
    pub fn finish(&mut self) -> Vec<u8> {
        self.indexes = None;
        let mut native = Vec::new();
        if self.columns.rows() > 0 {
            self.columns.write_and_clear(&mut native);
        }
        native
    }

    /// The rows so far as the value of a record of topic `spendfuse.rows`, and an empty block again;
    /// `None` where there are no rows.
    pub fn finish_record(&mut self, link: Link) -> Option<Vec<u8>> {
        let indexes = self.indexes.take()?;
        Some(RowBlock::write(&mut self.columns, link, indexes))
    }
}

fn push_attribution(columns: &mut RowCursor<'_>, row: &SpendRow<'_>, call: &Call<'_>) {
    let who = &row.event.attribution;
    columns.text(&who.workspace);
    columns.text(&who.customer);
    columns.text(&who.feature);
    columns.text(&who.user);
    columns.text(&who.agent);
    columns.text(&who.plan);
    columns.text(&who.environment);
    columns.text(&who.account);
    columns.text(&call.api_key_id);
    columns.text(&call.region);
    columns.text(&who.session);
    columns.text(&who.root_session);
    columns.text_map(who.tags.iter().map(|(name, value)| (&**name, &**value)));
    columns.text(&who.provider);
    columns.text(&who.model);
}

fn push_call(columns: &mut RowCursor<'_>, call: &Call<'_>) {
    columns.text(&call.request_model);
    columns.text(&call.operation);
    columns.text(&call.service_tier);
    for count in call.tokens.each() {
        columns.count64(count);
    }
    let units = call.units.entries.iter();
    columns.decimal_map(units.map(|(kind, quantity)| (kind.name(), i128::from(quantity.0))));
    columns.text(&call.units.quality);
    columns.text(&call.units.size);
    columns.count32(call.tool_calls);
    columns.text(&call.status);
    columns.nullable_count32(call.latency_ms);
}

fn push_money(columns: &mut RowCursor<'_>, row: &SpendRow<'_>, call: &Call<'_>, revenue: Nanos) {
    let is_usage = matches!(row.event.body, Body::Usage(_));
    columns.money(row.cost.total());
    columns.money(row.cost.input);
    columns.money(row.cost.cache_read);
    columns.money(row.cost.cache_write);
    columns.money(row.cost.output);
    columns.money(row.cost.units);
    columns.money(call.reported_cost.unwrap_or_default());
    columns.money(revenue);
    columns.text(if is_usage { row.priced.name() } else { "" });
    columns.text(row.price_version);
    columns.count64(row.budget_version);
}

fn push_address(columns: &mut RowCursor<'_>, address: MeterAddress) {
    columns.count32(address.partition);
    columns.count64(address.seq);
    columns.count32(address.index);
}
