//! A compacted topic: its records, and what compaction leaves of them.

use std::collections::HashMap;

/// Key and value; `None` = tombstone.
pub type Record = (Vec<u8>, Option<Vec<u8>>);

/// A changelog partition.
#[derive(Debug, Default)]
pub struct Changelog {
    records: Vec<Record>,
}

impl Changelog {
    pub fn append(&mut self, records: Vec<Record>) {
        self.records.extend(records);
    }

    /// Compacts the first `count` records: of each key the last one stays, in its place, and
    /// tombstones may still be there.
    pub fn compact(&mut self, count: usize) {
        let mut tail = self.records.split_off(count.min(self.records.len()));
        let mut last = HashMap::new();
        for (index, (key, _)) in self.records.iter().enumerate() {
            last.insert(key.clone(), index);
        }
        let mut index = 0;
        self.records.retain(|(key, _)| {
            index += 1;
            last[key] == index - 1
        });
        self.records.append(&mut tail);
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }
}
