//! Blocks in ClickHouse's Native format, read as ClickHouse reads them: by the names and types that
//! they carry, without the tables of the crate that wrote them.

use std::collections::BTreeMap;

/// A value as far as checks need it; what is null or a composite is `Other`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(i128),
    Other,
}

impl Value {
    pub(crate) fn number(&self) -> i128 {
        match self {
            Self::Number(number) => *number,
            _ => 0,
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }
}

/// A row: values by column.
pub(crate) type Row = BTreeMap<String, Value>;

pub(crate) fn rows(block: &[u8]) -> Vec<Row> {
    let mut bytes = Bytes(block);
    let (columns, count) = (bytes.varint(), bytes.varint());
    let mut rows = vec![Row::new(); count];
    for _ in 0..columns {
        let (name, kind) = (bytes.text(), bytes.text());
        for (row, value) in rows.iter_mut().zip(bytes.column(&kind, count)) {
            row.insert(name.clone(), value);
        }
    }
    assert!(bytes.0.is_empty(), "bytes behind the last column");
    rows
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn varint(&mut self) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn text(&mut self) -> String {
        let length = self.varint();
        String::from_utf8_lossy(self.take(length)).into_owned()
    }

    fn number(&mut self, width: usize) -> i128 {
        let mut word = [0; 16];
        let bytes = self.take(width);
        word[..width].copy_from_slice(bytes);
        if bytes[width - 1] >= 0x80 {
            word[width..].fill(0xff);
        }
        i128::from_le_bytes(word)
    }

    fn column(&mut self, kind: &str, count: usize) -> Vec<Value> {
        let inner = |name: &str| {
            kind.strip_prefix(name)
                .and_then(|rest| rest.strip_suffix(')'))
        };
        if let Some(of) = inner("Nullable(") {
            let nulls = self.take(count).to_vec();
            let values = self.column(of, count);
            let value = |(null, value)| if null == 1 { Value::Other } else { value };
            return nulls.into_iter().zip(values).map(value).collect();
        }
        if let Some(of) = inner("Array(") {
            self.items(count, |bytes, items| drop(bytes.column(of, items)));
            return vec![Value::Other; count];
        }
        if let Some(of) = inner("Map(").or_else(|| inner("Tuple(")) {
            let parts = parts(of);
            if kind.starts_with("Map") {
                self.items(count, |bytes, items| {
                    parts
                        .iter()
                        .for_each(|part| drop(bytes.column(part, items)));
                });
            } else {
                parts.iter().for_each(|part| drop(self.column(part, count)));
            }
            return vec![Value::Other; count];
        }
        let width = match kind {
            "String" => return (0..count).map(|_| Value::Text(self.text())).collect(),
            "UInt8" | "Int8" | "Bool" => 1,
            "UInt16" | "Int16" => 2,
            "UInt32" | "Int32" => 4,
            "UUID" => 16,
            _ if kind.starts_with("Decimal(38") => 16,
            _ => 8,
        };
        let is_unsigned = kind.starts_with('U');
        let number = |bytes: &mut Self| match bytes.number(width) {
            negative if is_unsigned && negative < 0 => negative + (1 << (8 * width)),
            number => number,
        };
        (0..count).map(|_| Value::Number(number(self))).collect()
    }

    /// End positions, then the items of all rows.
    fn items(&mut self, count: usize, read: impl FnOnce(&mut Self, usize)) {
        let ends: Vec<i128> = (0..count).map(|_| self.number(8)).collect();
        let items = ends.last().copied().unwrap_or_default();
        read(self, usize::try_from(items).unwrap_or_default());
    }
}

/// `String, Decimal(38, 9)` → its two types; `source String, id String` → the same without names.
fn parts(list: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in list.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(letter);
        }
    }
    let without_name = |part: &String| {
        let part = part.trim();
        match part.split_once(' ') {
            Some((name, kind)) if !name.contains('(') => kind.to_owned(),
            _ => part.to_owned(),
        }
    };
    parts.iter().map(without_name).collect()
}
