//! How a table is written down: a line for each column, with what a row has in it, in the order of
//! blocks.
//!
//! A change of the lines raises the table's `version` and adds a migration; the loader refuses
//! blocks of versions that it does not know. Blocks of version 1 are the first columns of version 2,
//! two of them under other names and types ([`Schema::of_version_1`]).

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
    Int32,
    Int8,
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
            Self::Int32 => "Int32",
            Self::Int8 => "Int8",
            Self::Float64 => "Float64",
            Self::NullableFloat64 => "Nullable(Float64)",
            Self::TextArray => "Array(String)",
            Self::TextMap => "Map(String, String)",
            Self::DecimalMap => "Map(String, Decimal(38, 9))",
            Self::EventRefs => "Array(Tuple(source String, id String))",
        }
    }

    /// Whether values of both take the same bytes, as long as they are not negative.
    pub(crate) fn looks_like(self, other: Self) -> bool {
        let unsigned = |one| match one {
            Self::Int64 => Self::UInt64,
            Self::Int32 => Self::UInt32,
            other => other,
        };
        unsigned(self) == unsigned(other)
    }
}

/// One column of a block.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) column_type: ColumnType,
}

/// The columns of a row's address: partition, number of the commit, place within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// `meter_partition`, `meter_seq`, `meter_index`.
    Meter,
    /// `stage_partition`, `stage_seq`, `stage_index`; and `stage`, because both stages write.
    Stage,
    /// None: not loaded from a rows topic.
    None,
}

/// The columns of one table's blocks.
#[derive(Clone, Debug)]
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

    /// The same columns as they are read: a user of version 1 is kept under the new name.
    pub fn kept_column_list(&self) -> String {
        self.column_list().replace("`user`", "`user_id`")
    }

    /// Version 1 of this table's blocks: its first `count` columns, with a user under its old name,
    /// and with counts that could not be negative. ClickHouse still takes them: it fills what they
    /// lack, and converts what has changed.
    pub(crate) fn of_version_1(&'static self, count: usize) -> Self {
        let mut columns = self.columns[..count].to_vec();
        for column in &mut columns {
            if column.name == "user_id" {
                column.name = "user";
            }
            column.column_type = match column.column_type {
                ColumnType::Int32 => ColumnType::UInt32,
                ColumnType::Int64 if column.name != "src_offset" => ColumnType::UInt64,
                unchanged => unchanged,
            };
        }
        Self {
            table: self.table,
            version: 1,
            columns: columns.leak(),
            address: self.address,
        }
    }
}

/// The type of the column that a method of a [`RowCursor`](super::columns::RowCursor) fills.
macro_rules! column_type {
    (amount) => {
        $crate::block::schema::ColumnType::Decimal
    };
    (count32) => {
        $crate::block::schema::ColumnType::UInt32
    };
    (count64) => {
        $crate::block::schema::ColumnType::UInt64
    };
    (decimal_map) => {
        $crate::block::schema::ColumnType::DecimalMap
    };
    (float) => {
        $crate::block::schema::ColumnType::Float64
    };
    (money) => {
        $crate::block::schema::ColumnType::Decimal
    };
    (nullable_count32) => {
        $crate::block::schema::ColumnType::NullableUInt32
    };
    (nullable_float) => {
        $crate::block::schema::ColumnType::NullableFloat64
    };
    (nullable_time) => {
        $crate::block::schema::ColumnType::NullableTime
    };
    (signed8) => {
        $crate::block::schema::ColumnType::Int8
    };
    (signed32) => {
        $crate::block::schema::ColumnType::Int32
    };
    (signed64) => {
        $crate::block::schema::ColumnType::Int64
    };
    (text) => {
        $crate::block::schema::ColumnType::Text
    };
    (text_map) => {
        $crate::block::schema::ColumnType::TextMap
    };
    (text_pairs) => {
        $crate::block::schema::ColumnType::EventRefs
    };
    (texts) => {
        $crate::block::schema::ColumnType::TextArray
    };
    (time) => {
        $crate::block::schema::ColumnType::Time
    };
}

/// A table: its columns, with what a row has in them. Makes its [`Schema`] and the function that
/// fills a row.
macro_rules! table {
    (
        $schema:ident = $name:literal, $version:literal, $address:expr,
        fn $fill:ident($row:ident: &$Row:ty) { $($before:tt)* }
        $($column:tt: $method:ident($value:expr);)*
    ) => {
        pub(crate) static $schema: $crate::block::schema::Schema = $crate::block::schema::Schema {
            table: $name,
            version: $version,
            address: $address,
            columns: &[$($crate::block::schema::Column {
                name: stringify!($column),
                column_type: $crate::block::schema::column_type!($method),
            },)*],
        };

        fn $fill($row: &$Row, cursor: &mut $crate::block::columns::RowCursor<'_>) {
            $($before)*
            $(cursor.$method($value);)*
        }
    };
}

pub(crate) use {column_type, table};
