//! Amounts that all ledgers have counted, and that wait for the entries that show them.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::cells::{Cells, cell_of};
use super::parts::Part;
use crate::digest::Kind;
use crate::hash::EntryHash;

#[derive(Clone, Copy, Debug)]
struct Counted {
    unit: Kind,
    amount: i64,
    /// Number of the record by which it became known.
    record: u64,
    since_millis: i64,
}

/// By budget and scope, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unshown {
    by_key: HashMap<EntryHash, VecDeque<Counted>>,
    len: usize,
}

impl Unshown {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Record number `record` says that this is counted.
    pub(crate) fn add(&mut self, part: &Part, record: u64, now_millis: i64) {
        let queue = self.by_key.entry(part.key).or_default();
        let is_one = |last: &&mut Counted| (last.record, last.unit) == (record, part.unit);
        match queue.back_mut().filter(is_one) {
            Some(last) => last.amount += part.amount,
            None => {
                self.len += 1;
                queue.push_back(Counted {
                    unit: part.unit,
                    amount: part.amount,
                    record,
                    since_millis: now_millis,
                });
            }
        }
    }

    /// An entry of `key`, read as number `record`, is what readers see now.
    pub(crate) fn shown(&mut self, key: EntryHash, record: u64, cells: &Cells) {
        self.drop_where(key, cells, |counted| counted.record < record);
    }

    /// Drops what must have been shown if it moved a figure: everything is read that was written
    /// until `read_to_millis`, and figures are told again `refresh_millis` after they moved.
    pub(crate) fn refreshed(
        &mut self,
        read_to_millis: i64,
        refresh_millis: impl Fn(EntryHash) -> i64,
        cells: &Cells,
    ) {
        let keys: Vec<EntryHash> = self.by_key.keys().copied().collect();
        for key in keys {
            let refresh = refresh_millis(key);
            let is_over = |counted: &Counted| counted.since_millis + refresh <= read_to_millis;
            self.drop_where(key, cells, is_over);
        }
    }

    fn drop_where(&mut self, key: EntryHash, cells: &Cells, is_shown: impl Fn(&Counted) -> bool) {
        let Some(queue) = self.by_key.get_mut(&key) else {
            return;
        };
        while let Some(first) = queue.front().filter(|first| is_shown(first)) {
            cells.take_pending(cell_of(key, first.unit), first.amount);
            queue.pop_front();
            self.len -= 1;
        }
        if queue.is_empty() {
            self.by_key.remove(&key);
        }
    }
}
