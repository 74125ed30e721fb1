//! Column buffers of a block in ClickHouse's Native format, and the cursor that fills a row.
//!
//! Native without a protocol version: number of columns, number of rows, then for each column its
//! name, its type and its values one after another. Texts are a varint length and bytes; arrays and
//! maps are cumulative end positions followed by their items column by column; nullable values are a
//! byte a row (1 = null) followed by the values.

use std::slice::IterMut;

use spendfuse_domain::{Amount, Nanos, UnixMillis};

use super::schema::{ColumnType, Schema};

/// The values of one column.
#[derive(Debug, Default)]
struct ColumnBuffer {
    /// End positions of arrays and maps, or null marks.
    marks: Vec<u8>,
    /// Values; items of arrays, keys of maps, first parts of pairs.
    values: Vec<u8>,
    /// Values of maps, second parts of pairs.
    seconds: Vec<u8>,
    /// Items so far, for end positions.
    items: u64,
}

impl ColumnBuffer {
    fn len(&self) -> usize {
        self.marks.len() + self.values.len() + self.seconds.len()
    }

    fn clear(&mut self) {
        self.marks.clear();
        self.values.clear();
        self.seconds.clear();
        self.items = 0;
    }

    fn end_items(&mut self, added: u64) {
        self.items += added;
        self.marks.extend_from_slice(&self.items.to_le_bytes());
    }
}

/// Rows of one table, column by column.
#[derive(Debug)]
pub struct Columns {
    schema: &'static Schema,
    buffers: Vec<ColumnBuffer>,
    /// Takes the values of columns that an older schema does not have.
    unwritten: ColumnBuffer,
    rows: usize,
    bytes: usize,
}

impl Columns {
    pub(crate) fn new(schema: &'static Schema) -> Self {
        let mut buffers = Vec::new();
        buffers.resize_with(schema.columns.len(), ColumnBuffer::default);
        Self {
            schema,
            buffers,
            unwritten: ColumnBuffer::default(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(crate) fn schema(&self) -> &'static Schema {
        self.schema
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the values so far, to within the fixed-width columns of nullable values.
    pub(crate) fn bytes_estimate(&self) -> usize {
        self.bytes
    }

    /// Begins a row; the columns are then filled in the schema's order, each exactly once.
    pub(crate) fn row(&mut self) -> RowCursor<'_> {
        self.rows += 1;
        self.unwritten.clear();
        RowCursor {
            schema: self.schema,
            buffers: self.buffers.iter_mut(),
            unwritten: &mut self.unwritten,
            bytes: &mut self.bytes,
        }
    }

    /// Appends the block to `out` and empties the columns, which keep their memory.
    pub(crate) fn write_and_clear(&mut self, out: &mut Vec<u8>) {
        let values: usize = self.buffers.iter().map(ColumnBuffer::len).sum();
        out.reserve(values + self.buffers.len() * 48 + 16);
        write_varint(out, self.buffers.len() as u64);
        write_varint(out, self.rows as u64);
        for (column, buffer) in self.schema.columns.iter().zip(&mut self.buffers) {
            write_text(out, column.name.as_bytes());
            write_text(out, column.column_type.name().as_bytes());
            out.extend_from_slice(&buffer.marks);
            out.extend_from_slice(&buffer.values);
            out.extend_from_slice(&buffer.seconds);
            buffer.clear();
        }
        self.rows = 0;
        self.bytes = 0;
    }
}

/// Fills one row, column after column. Each call is for the next column of the schema.
pub struct RowCursor<'a> {
    schema: &'static Schema,
    buffers: IterMut<'a, ColumnBuffer>,
    unwritten: &'a mut ColumnBuffer,
    bytes: &'a mut usize,
}

impl RowCursor<'_> {
    /// The next column; where an older schema has no more, one whose values are not written.
    #[inline]
    fn next(&mut self, column_type: ColumnType) -> &mut ColumnBuffer {
        let place = self.schema.columns.len() - self.buffers.len();
        debug_assert!(
            self.schema
                .columns
                .get(place)
                .is_none_or(|column| column.column_type.looks_like(column_type)),
            "{} column {place}",
            self.schema.table,
        );
        match self.buffers.next() {
            Some(buffer) => buffer,
            None => self.unwritten,
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self, column_type: ColumnType, value: [u8; N]) {
        *self.bytes += N;
        let buffer = self.next(column_type);
        buffer.values.extend_from_slice(&value);
    }

    #[inline]
    fn nullable<const N: usize>(&mut self, column_type: ColumnType, value: Option<[u8; N]>) {
        *self.bytes += N + 1;
        let buffer = self.next(column_type);
        buffer.marks.push(u8::from(value.is_none()));
        buffer.values.extend_from_slice(&value.unwrap_or([0; N]));
    }

    pub(crate) fn text(&mut self, text: &str) {
        *self.bytes += text.len() + 1;
        write_text(&mut self.next(ColumnType::Text).values, text.as_bytes());
    }

    pub(crate) fn time(&mut self, time: UnixMillis) {
        self.fixed(ColumnType::Time, time.0.to_le_bytes());
    }

    pub(crate) fn nullable_time(&mut self, time: Option<UnixMillis>) {
        self.nullable(
            ColumnType::NullableTime,
            time.map(|known| known.0.to_le_bytes()),
        );
    }

    pub(crate) fn money(&mut self, amount: Nanos) {
        self.amount(Amount::Usd(amount));
    }

    pub(crate) fn amount(&mut self, amount: Amount) {
        self.fixed(ColumnType::Decimal, amount.billionths().to_le_bytes());
    }

    pub(crate) fn count64(&mut self, count: u64) {
        self.fixed(ColumnType::UInt64, count.to_le_bytes());
    }

    pub(crate) fn count32(&mut self, count: u32) {
        self.fixed(ColumnType::UInt32, count.to_le_bytes());
    }

    pub(crate) fn nullable_count32(&mut self, count: Option<u32>) {
        self.nullable(ColumnType::NullableUInt32, count.map(u32::to_le_bytes));
    }

    pub(crate) fn signed8(&mut self, value: i8) {
        self.fixed(ColumnType::Int8, value.to_le_bytes());
    }

    pub(crate) fn signed32(&mut self, value: i32) {
        self.fixed(ColumnType::Int32, value.to_le_bytes());
    }

    pub(crate) fn signed64(&mut self, value: i64) {
        self.fixed(ColumnType::Int64, value.to_le_bytes());
    }

    pub(crate) fn float(&mut self, value: f64) {
        self.fixed(ColumnType::Float64, value.to_le_bytes());
    }

    pub(crate) fn nullable_float(&mut self, value: Option<f64>) {
        self.nullable(ColumnType::NullableFloat64, value.map(f64::to_le_bytes));
    }

    pub(crate) fn texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        let buffer = self.next(ColumnType::TextArray);
        let before = buffer.values.len();
        let mut added = 0;
        for text in texts {
            write_text(&mut buffer.values, text.as_bytes());
            added += 1;
        }
        buffer.end_items(added);
        let bytes = 8 + buffer.values.len() - before;
        *self.bytes += bytes;
    }

    pub(crate) fn text_map<'t>(&mut self, entries: impl Iterator<Item = (&'t str, &'t str)>) {
        self.pairs(ColumnType::TextMap, entries);
    }

    pub(crate) fn text_pairs<'t>(&mut self, entries: impl Iterator<Item = (&'t str, &'t str)>) {
        self.pairs(ColumnType::EventRefs, entries);
    }

    fn pairs<'t>(
        &mut self,
        column_type: ColumnType,
        entries: impl Iterator<Item = (&'t str, &'t str)>,
    ) {
        let buffer = self.next(column_type);
        let before = buffer.values.len() + buffer.seconds.len();
        let mut added = 0;
        for (first, second) in entries {
            write_text(&mut buffer.values, first.as_bytes());
            write_text(&mut buffer.seconds, second.as_bytes());
            added += 1;
        }
        buffer.end_items(added);
        let bytes = 8 + buffer.values.len() + buffer.seconds.len() - before;
        *self.bytes += bytes;
    }

    pub(crate) fn decimal_map<'t>(&mut self, entries: impl Iterator<Item = (&'t str, i128)>) {
        let buffer = self.next(ColumnType::DecimalMap);
        let before = buffer.values.len() + buffer.seconds.len();
        let mut added = 0;
        for (name, billionths) in entries {
            write_text(&mut buffer.values, name.as_bytes());
            buffer.seconds.extend_from_slice(&billionths.to_le_bytes());
            added += 1;
        }
        buffer.end_items(added);
        let bytes = 8 + buffer.values.len() + buffer.seconds.len() - before;
        *self.bytes += bytes;
    }

    /// Ends the row.
    pub(crate) fn finish(self) {
        debug_assert_eq!(
            self.buffers.len(),
            0,
            "{}: every column has a value in every row",
            self.schema.table
        );
    }
}

#[inline]
fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_varints() {
        let mut out = Vec::new();
        for value in [0, 127, 128, 300] {
            write_varint(&mut out, value);
        }
        assert_eq!(out, [0, 127, 0x80, 1, 0xAC, 2]);
    }
}
