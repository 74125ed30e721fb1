//! One partition of a topic as Kafka keeps it: offsets that only grow, segments, retention,
//! compaction.
//!
//! Seen in Kafka 4 and kept here: the end of a transaction takes an offset; retention removes whole
//! segments, the active one too once all of it is old, so that an idle log begins at its end; the
//! active segment is never compacted; a tombstone goes `delete.retention.ms` after it was first seen by
//! the cleaner.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// A committed record.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    /// When the broker took it.
    pub(crate) at: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Of a tombstone: when the cleaner may remove it.
    goes_at: Option<i64>,
}

/// What a topic keeps, as `spendfuse topics create` sets it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy {
    Delete {
        retention: i64,
        segment: i64,
    },
    Compact {
        tombstones: i64,
        segment: i64,
        /// What is older goes as well.
        retention: Option<i64>,
    },
}

#[derive(Debug)]
struct Segment {
    base: i64,
    first_at: i64,
    last_at: i64,
    records: Vec<Record>,
}

#[derive(Debug)]
pub(crate) struct Log {
    policy: Policy,
    start: i64,
    end: i64,
    segments: VecDeque<Segment>,
}

impl Log {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            start: 0,
            end: 0,
            segments: VecDeque::new(),
        }
    }

    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    pub(crate) fn has_retention(&self) -> bool {
        match self.policy {
            Policy::Delete { .. } => true,
            Policy::Compact { retention, .. } => retention.is_some(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.iter().map(|one| one.records.len()).sum()
    }

    /// Takes a record that readers will see.
    pub(crate) fn append(
        &mut self,
        at: i64,
        key: Option<Bytes>,
        value: Option<Bytes>,
        headers: Vec<(String, Vec<u8>)>,
    ) -> i64 {
        let offset = self.end;
        self.segment(at).records.push(Record {
            offset,
            at,
            key,
            value,
            headers,
            goes_at: None,
        });
        self.end += 1;
        offset
    }

    /// Takes what no reader sees: the end of a transaction, or a record of an aborted one.
    pub(crate) fn pass(&mut self, at: i64) {
        self.segment(at);
        self.end += 1;
    }

    fn segment(&mut self, at: i64) -> &mut Segment {
        let (Policy::Delete { segment, .. } | Policy::Compact { segment, .. }) = self.policy;
        let is_full = |last: &Segment| at - last.first_at >= segment;
        if self.segments.back().is_none_or(is_full) {
            self.segments.push_back(Segment {
                base: self.end,
                first_at: at,
                last_at: at,
                records: Vec::new(),
            });
        }
        let last = self.segments.len() - 1;
        self.segments[last].last_at = at;
        &mut self.segments[last]
    }

    /// Committed records from `offset` on.
    pub(crate) fn from(&self, offset: i64) -> impl Iterator<Item = &Record> {
        let first = self.segments.partition_point(|one| one.base <= offset);
        let segments = self.segments.range(first.saturating_sub(1)..);
        segments
            .flat_map(|one| &one.records)
            .skip_while(move |record| record.offset < offset)
    }

    /// The first record at or after `time`.
    pub(crate) fn offset_at(&self, time: i64) -> i64 {
        let segments = self.segments.iter();
        let mut records = segments
            .skip_while(|one| one.last_at < time)
            .flat_map(|one| &one.records);
        records
            .find(|record| record.at >= time)
            .map_or(self.end, |record| record.offset)
    }

    /// What the broker does by itself now and then.
    pub(crate) fn clean(&mut self, now: i64) {
        match self.policy {
            Policy::Delete { retention, .. } => self.delete(now - retention),
            Policy::Compact {
                tombstones,
                retention,
                ..
            } => {
                self.compact(now, tombstones);
                if let Some(retention) = retention {
                    self.delete(now - retention);
                }
            }
        }
    }

    fn delete(&mut self, before: i64) {
        while self
            .segments
            .front()
            .is_some_and(|one| one.last_at < before)
        {
            self.segments.pop_front();
            self.start = self.segments.front().map_or(self.end, |one| one.base);
        }
    }

    fn compact(&mut self, now: i64, tombstones: i64) {
        let Some(closed) = self.segments.len().checked_sub(1) else {
            return;
        };
        let mut last: HashMap<Bytes, i64> = HashMap::new();
        for record in self.segments.range(..closed).flat_map(|one| &one.records) {
            last.insert(record.key.clone().unwrap_or_default(), record.offset);
        }
        for segment in self.segments.range_mut(..closed) {
            segment.records.retain_mut(|record| {
                let key = record.key.clone().unwrap_or_default();
                if last[&key] != record.offset {
                    return false;
                }
                let goes_at = *record.goes_at.get_or_insert(now + tombstones);
                record.value.is_some() || now < goes_at
            });
        }
        let mut place = 0;
        self.segments.retain(|segment| {
            place += 1;
            !segment.records.is_empty() || place > closed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_idle_log_begins_at_its_end() {
        let mut log = Log::new(Policy::Delete {
            retention: 100,
            segment: 50,
        });
        log.append(0, None, bytes("a"), Vec::new());
        log.pass(0);
        log.append(60, None, bytes("b"), Vec::new());
        log.clean(110);
        assert_eq!((log.start(), log.end(), log.len()), (2, 3, 1));
        log.clean(161);
        assert_eq!((log.start(), log.end(), log.len()), (3, 3, 0));
    }

    #[test]
    fn the_last_of_each_key_stays_and_tombstones_go_later() {
        let mut log = Log::new(Policy::Compact {
            tombstones: 100,
            segment: 10,
            retention: None,
        });
        log.append(0, bytes("k"), bytes("1"), Vec::new());
        log.append(1, bytes("k"), None, Vec::new());
        log.append(2, bytes("l"), bytes("2"), Vec::new());
        log.clean(2);
        assert_eq!(log.len(), 3, "the active segment is left alone");
        log.append(20, bytes("l"), bytes("3"), Vec::new());
        log.clean(20);
        let left: Vec<i64> = log.from(0).map(|record| record.offset).collect();
        assert_eq!(left, [1, 2, 3]);
        log.clean(121);
        let left: Vec<i64> = log.from(0).map(|record| record.offset).collect();
        assert_eq!(left, [2, 3]);
        log.policy = Policy::Compact {
            tombstones: 100,
            segment: 10,
            retention: Some(150),
        };
        log.clean(160);
        let left: Vec<i64> = log.from(0).map(|record| record.offset).collect();
        assert_eq!(left, [3], "the other is too old");
    }
}
