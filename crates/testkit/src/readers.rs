//! Naive readers of the output topics: what anybody who follows them in log order knows.

use std::collections::BTreeMap;

use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{UnixMillis, Verdict};

/// Who writes a key of the blocklist: stage and partition.
pub type Writer = (StageName, u32);

/// The two stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum StageName {
    Meter,
    Ledger,
}

/// A guard without any cleverness: the last value of each key.
#[derive(Debug, Default)]
pub struct NaiveGuard {
    entries: BTreeMap<String, (Writer, BlocklistEntry)>,
}

impl NaiveGuard {
    /// Applies the records of one commit.
    pub fn apply(&mut self, writer: Writer, records: &[(String, Option<BlocklistEntry>)]) {
        for (key, entry) in records {
            match entry {
                Some(entry) => {
                    let known = (writer, entry.clone());
                    self.entries.insert(key.clone(), known);
                }
                None => {
                    self.entries.remove(key);
                }
            }
        }
    }

    /// The entry under `key`, expired or not.
    pub fn entry(&self, key: &str) -> Option<&BlocklistEntry> {
        self.entries.get(key).map(|(_, entry)| entry)
    }

    /// The verdict under `key` at `now`; an expired entry says nothing.
    pub fn verdict(&self, key: &str, now: UnixMillis) -> Verdict {
        self.entry(key)
            .filter(|entry| entry.expires_at.is_none_or(|end| end > now))
            .map_or(Verdict::Ok, |entry| entry.verdict)
    }

    /// Every entry that `writer` wrote.
    pub fn of(&self, writer: Writer) -> impl Iterator<Item = (&str, &BlocklistEntry)> {
        self.entries
            .iter()
            .filter(move |(_, (known, _))| *known == writer)
            .map(|(key, (_, entry))| (key.as_str(), entry))
    }
}

/// The last value of each finding, and how many episodes were closed.
#[derive(Debug, Default)]
pub struct FindingsReader {
    latest: BTreeMap<String, (Writer, Finding)>,
    closed: BTreeMap<Writer, usize>,
}

impl FindingsReader {
    /// Applies the records of one commit.
    pub fn apply(&mut self, writer: Writer, records: &[(String, Finding)]) {
        for (key, finding) in records {
            if finding.state == FindingState::Closed {
                *self.closed.entry(writer).or_default() += 1;
            }
            let known = (writer, finding.clone());
            self.latest.insert(key.clone(), known);
        }
    }

    /// The findings of `writer` that are open.
    pub fn open(&self, writer: Writer) -> impl Iterator<Item = (&str, &Finding)> {
        self.latest
            .iter()
            .filter(move |(_, (known, finding))| {
                *known == writer && finding.state == FindingState::Open
            })
            .map(|(key, (_, finding))| (key.as_str(), finding))
    }

    /// Records with state `closed` that `writer` wrote.
    pub fn closed(&self, writer: Writer) -> usize {
        self.closed.get(&writer).copied().unwrap_or(0)
    }
}
