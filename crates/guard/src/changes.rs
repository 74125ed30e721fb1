//! The blocklist for those who cannot follow Kafka: all of it in pages, then what changes.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use serde::Serialize;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::BlocklistEntry;

use crate::entry::Entry;
use crate::guard::Replica;

/// Changes kept for followers; who is further behind fetches everything again.
const KEPT_CHANGES: usize = 65_536;

/// One record as readers saw it become visible.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) what: Changed,
    /// Whether what it replaces made a difference ([`crate::standing`]).
    pub(crate) mattered: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Changed {
    Set(Arc<Entry>),
    Removed(Box<str>),
}

/// What lies between a cursor and the next one.
pub(crate) struct Stretch {
    pub(crate) changes: Vec<Change>,
    pub(crate) cursor: String,
    pub(crate) more: bool,
}

/// The last changes of this run.
pub(crate) struct ChangeLog {
    /// Tells cursors of this run from those of another.
    run: u64,
    /// Number of changes that are no longer kept.
    first: u64,
    kept: VecDeque<Change>,
}

/// One page of entries, or of changes.
#[derive(Debug, PartialEq, Serialize)]
pub struct BlocklistPage {
    /// Keys and values as in topic `spendfuse.blocklist`, to be applied in this order; a null value
    /// removes the key.
    pub entries: Vec<PageEntry>,
    /// What to ask with next.
    pub cursor: String,
    /// Whether more is there already; else ask again after a while.
    pub more: bool,
}

/// One entry of a page.
#[derive(Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PageEntry {
    pub key: String,
    pub value: Option<BlocklistEntry>,
}

/// The cursor is of another run, or what came after it is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor has expired; fetch the whole blocklist without a cursor")]
pub struct CursorExpired;

impl ChangeLog {
    pub(crate) fn new() -> Self {
        Self {
            run: RandomState::new().hash_one("spendfuse-blocklist-run"),
            first: 0,
            kept: VecDeque::new(),
        }
    }

    pub(crate) fn extend(&mut self, changes: impl Iterator<Item = Change>) {
        for change in changes {
            if self.kept.len() == KEPT_CHANGES {
                self.kept.pop_front();
                self.first += 1;
            }
            self.kept.push_back(change);
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }
}

/// Where a reader stands: at a shard of the whole list, or (`shard` = `None`) in the changes, from
/// number `seq`.
struct Cursor {
    run: u64,
    seq: u64,
    shard: Option<usize>,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let run = u64::from_str_radix(parts.next()?, 16).ok()?;
        let seq = parts.next()?.parse().ok()?;
        let shard = parts.next().map(str::parse).transpose().ok()?;
        parts.next().is_none().then_some(Self { run, seq, shard })
    }

    fn text(&self) -> String {
        let shard = self
            .shard
            .map_or(String::new(), |shard| format!("-{shard}"));
        format!("{:016x}-{}{shard}", self.run, self.seq)
    }
}

pub(crate) fn page(
    replica: &Replica,
    cursor: Option<&str>,
    at_most: usize,
    now: UnixMillis,
) -> Result<BlocklistPage, CursorExpired> {
    let stretch = stretch(replica, cursor, at_most, at_most, now, |_| true)?;
    Ok(BlocklistPage {
        entries: stretch.changes.iter().map(page_entry).collect(),
        cursor: stretch.cursor,
        more: stretch.more,
    })
}

/// At most so many changes, or of the entries at the beginning those that are `wanted` (exceeded by
/// less than a shard), for which at most `looked_at` are looked at.
pub(crate) fn stretch(
    replica: &Replica,
    cursor: Option<&str>,
    at_most: usize,
    looked_at: usize,
    now: UnixMillis,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Stretch, CursorExpired> {
    let log = replica.log();
    let cursor = match cursor {
        Some(text) => Cursor::parse(text).ok_or(CursorExpired)?,
        None => Cursor {
            run: log.run,
            seq: log.end(),
            shard: Some(0),
        },
    };
    if cursor.run != log.run || cursor.seq < log.first || cursor.seq > log.end() {
        return Err(CursorExpired);
    }
    let Some(shard) = cursor.shard else {
        return Ok(changes_since(&log, cursor, at_most));
    };
    drop(log);
    let mut looked = 0;
    let mut changes = Vec::new();
    let mut next = shard;
    let shards = replica.entries.shard_count();
    while next < shards && changes.len() < at_most && looked < looked_at {
        replica.entries.for_each_in(next, |_, entry| {
            looked += 1;
            if !entry.is_expired(now) && wanted(entry) {
                changes.push(Change {
                    what: Changed::Set(Arc::clone(entry)),
                    mattered: false,
                });
            }
        });
        next += 1;
    }
    let more = next < shards;
    let shard = more.then_some(next);
    Ok(Stretch {
        changes,
        cursor: Cursor { shard, ..cursor }.text(),
        more,
    })
}

fn changes_since(log: &ChangeLog, cursor: Cursor, at_most: usize) -> Stretch {
    let skipped = (cursor.seq - log.first) as usize;
    let taken = log.kept.iter().skip(skipped).take(at_most);
    let changes: Vec<_> = taken.cloned().collect();
    let seq = cursor.seq + changes.len() as u64;
    Stretch {
        more: seq < log.end(),
        cursor: Cursor { seq, ..cursor }.text(),
        changes,
    }
}

fn page_entry(change: &Change) -> PageEntry {
    match &change.what {
        Changed::Set(entry) => PageEntry {
            key: entry.key().to_owned(),
            value: Some(entry.to_published()),
        },
        Changed::Removed(key) => PageEntry {
            key: key.to_string(),
            value: None,
        },
    }
}
