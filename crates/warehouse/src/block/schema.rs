//! The tables that blocks are written for: their columns, in the order in which rows fill them.
//!
//! A change of a column list raises the table's `version` and adds a migration; the loader refuses
//! blocks of versions that it does not know.

/// What a column's values look like in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Text,
    Time,
    NullableTime,
    Decimal,
    UInt64,
    UInt32,
    NullableUInt32,
    Int64,
    Float64,
    NullableFloat64,
    TextArray,
    TextMap,
    DecimalMap,
    EventRefs,
}

impl ColumnType {
    /// The type as ClickHouse writes it. Declared to the letter: a plain `Int128` does not go into a
    /// `Decimal`, and a plain `Int64` in a `DateTime64` is taken for seconds (seen in 26.7); plain
    /// `String` goes into `LowCardinality(String)` by itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "String",
            Self::Time => "DateTime64(3, 'UTC')",
            Self::NullableTime => "Nullable(DateTime64(3, 'UTC'))",
            Self::Decimal => "Decimal(38, 9)",
            Self::UInt64 => "UInt64",
            Self::UInt32 => "UInt32",
            Self::NullableUInt32 => "Nullable(UInt32)",
            Self::Int64 => "Int64",
            Self::Float64 => "Float64",
            Self::NullableFloat64 => "Nullable(Float64)",
            Self::TextArray => "Array(String)",
            Self::TextMap => "Map(String, String)",
            Self::DecimalMap => "Map(String, Decimal(38, 9))",
            Self::EventRefs => "Array(Tuple(source String, id String))",
        }
    }
}

/// One column of a block.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) column_type: ColumnType,
}

/// The columns of a row's address: partition, number of the commit, place within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// `meter_partition`, `meter_seq`, `meter_index`.
    Meter,
    /// `stage_partition`, `stage_seq`, `stage_index`; and `stage`, because both stages write.
    Stage,
    /// None: not loaded from a rows topic.
    None,
}

/// The columns of one table's blocks.
#[derive(Debug)]
pub struct Schema {
    /// The table.
    pub table: &'static str,
    /// Raised with every change of the columns.
    pub version: u32,
    pub(crate) columns: &'static [Column],
    /// How rows are found again.
    pub address: Address,
}

impl Schema {
    /// The columns for an `INSERT`, quoted, separated by commas.
    pub fn column_list(&self) -> String {
        let quoted: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("`{}`", column.name))
            .collect();
        quoted.join(", ")
    }

    /// The schema of a block's header; `None` where this version of the program does not know it.
    pub fn find(table: &str, version: u32) -> Option<&'static Self> {
        ALL.into_iter()
            .find(|schema| schema.table == table && schema.version == version)
    }
}

/// Every schema that the loader can load.
pub(crate) const ALL: [&Schema; 4] = [&SPEND, &FINDING_CHANGES, &VERDICTS, &BUDGET_WINDOWS];

const fn column(name: &'static str, column_type: ColumnType) -> Column {
    Column { name, column_type }
}

use ColumnType::{
    Decimal, DecimalMap, EventRefs, Float64, Int64, NullableFloat64, NullableTime, NullableUInt32,
    Text, TextArray, TextMap, Time, UInt32, UInt64,
};

pub(crate) static SPEND: Schema = Schema {
    table: "spend",
    version: 1,
    address: Address::Meter,
    columns: &[
        column("time", Time),
        column("received_at", Time),
        column("kind", Text),
        column("amends_id", Text),
        column("source", Text),
        column("event_id", Text),
        column("workspace", Text),
        column("customer", Text),
        column("feature", Text),
        column("user", Text),
        column("agent", Text),
        column("plan", Text),
        column("environment", Text),
        column("account", Text),
        column("api_key_id", Text),
        column("region", Text),
        column("session", Text),
        column("root_session", Text),
        column("tags", TextMap),
        column("provider", Text),
        column("model", Text),
        column("request_model", Text),
        column("operation", Text),
        column("service_tier", Text),
        column("input_tokens", UInt64),
        column("cache_read_tokens", UInt64),
        column("cache_write_5m_tokens", UInt64),
        column("cache_write_1h_tokens", UInt64),
        column("audio_input_tokens", UInt64),
        column("image_input_tokens", UInt64),
        column("video_input_tokens", UInt64),
        column("output_tokens", UInt64),
        column("reasoning_tokens", UInt64),
        column("audio_output_tokens", UInt64),
        column("image_output_tokens", UInt64),
        column("units", DecimalMap),
        column("unit_quality", Text),
        column("unit_size", Text),
        column("tool_calls", UInt32),
        column("status", Text),
        column("latency_ms", NullableUInt32),
        column("cost", Decimal),
        column("cost_input", Decimal),
        column("cost_cache_read", Decimal),
        column("cost_cache_write", Decimal),
        column("cost_output", Decimal),
        column("cost_units", Decimal),
        column("reported_cost", Decimal),
        column("revenue", Decimal),
        column("priced", Text),
        column("price_version", Text),
        column("budget_version", UInt64),
        column("flags", TextArray),
        column("call_id", Text),
        column("attempt", UInt32),
        column("response_id", Text),
        column("trace_id", Text),
        column("span_id", Text),
        column("parent_span_id", Text),
        column("meter_partition", UInt32),
        column("meter_seq", UInt64),
        column("meter_index", UInt32),
        column("src_topic", Text),
        column("src_partition", UInt32),
        column("src_offset", Int64),
    ],
};

pub(crate) static FINDING_CHANGES: Schema = Schema {
    table: "finding_changes",
    version: 1,
    address: Address::Stage,
    columns: &[
        column("workspace", Text),
        column("scope", Text),
        column("detector", Text),
        column("rule", Text),
        column("agent", Text),
        column("model", Text),
        column("customer", Text),
        column("feature", Text),
        column("state", Text),
        column("severity", Text),
        column("opened_at", Time),
        column("last_at", Time),
        column("measured", Float64),
        column("threshold", Float64),
        column("wasted", Decimal),
        column("evidence", EventRefs),
        column("message", Text),
        column("stage", Text),
        column("stage_partition", UInt32),
        column("stage_seq", UInt64),
        column("stage_index", UInt32),
    ],
};

pub(crate) static VERDICTS: Schema = Schema {
    table: "verdicts",
    version: 1,
    address: Address::Stage,
    columns: &[
        column("decided_at", Time),
        column("budget", Text),
        column("scope", Text),
        column("workspace", Text),
        column("where", Text),
        column("verdict", Text),
        column("action", Text),
        column("unit", Text),
        column("spent", Decimal),
        column("limit", Decimal),
        column("percent", NullableFloat64),
        column("window", Text),
        column("window_start", Time),
        column("resets_at", NullableTime),
        column("expires_at", NullableTime),
        column("counted_from", Time),
        column("downgrade_to", Text),
        column("caused_by_source", Text),
        column("caused_by_id", Text),
        column("caused_by_time", NullableTime),
        column("version", UInt64),
        column("stage", Text),
        column("stage_partition", UInt32),
        column("stage_seq", UInt64),
        column("stage_index", UInt32),
    ],
};

pub(crate) static BUDGET_WINDOWS: Schema = Schema {
    table: "budget_windows",
    version: 1,
    address: Address::Stage,
    columns: &[
        column("at", Time),
        column("kind", Text),
        column("budget", Text),
        column("scope", Text),
        column("workspace", Text),
        column("window", Text),
        column("window_start", Time),
        column("window_end", NullableTime),
        column("spent", Decimal),
        column("tokens", UInt64),
        column("calls", UInt64),
        column("unit", Text),
        column("limit", Decimal),
        column("percent", NullableFloat64),
        column("version", UInt64),
        column("stage", Text),
        column("stage_partition", UInt32),
        column("stage_seq", UInt64),
        column("stage_index", UInt32),
    ],
};

pub(crate) static PRICES: Schema = Schema {
    table: "prices",
    version: 1,
    address: Address::None,
    columns: &[
        column("price_version", Text),
        column("provider", Text),
        column("model", Text),
        column("service_tier", Text),
        column("line", Text),
        column("per", Text),
        column("above_context_tokens", UInt64),
        column("quality", Text),
        column("size", Text),
        column("effective_from", Time),
        column("rate", Decimal),
    ],
};

#[cfg(test)]
mod tests {
    use spendfuse_domain::{FixedDimension, TokenClass};

    use super::*;

    #[test]
    fn rows_have_the_columns_of_dimensions() {
        for column in FixedDimension::ALL
            .into_iter()
            .filter_map(FixedDimension::column)
        {
            assert!(
                SPEND.columns.iter().any(|other| other.name == column),
                "{column}"
            );
        }
    }

    #[test]
    fn rows_have_the_columns_of_token_classes_in_their_order() {
        let names = SPEND.columns.iter().map(|column| column.name);
        let tokens: Vec<_> = names.filter(|name| name.ends_with("_tokens")).collect();
        assert_eq!(tokens, TokenClass::ALL.map(TokenClass::column));
    }
}
