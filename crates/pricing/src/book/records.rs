//! Records of topic `spendfuse.prices`: a version as chunks, closed by a manifest.
//!
//! Key `{version}/{chunk}` with `{"v":1,"version":…,"chunk":0,"entries":[…]}`, then key
//! `{version}/manifest` with `{"v":1,"version":…,"chunks":3,"sha256":…}`. The entries are the lines
//! of the canonical text, header first; the SHA-256 is over that text. All records of a version are
//! written in one transaction, and a reader takes a version only when its manifest and all of its
//! chunks are there and the hash fits ([`Assembly`]).

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::PriceBook;
use crate::error::BookError;

/// Records stay below this many bytes, so that they pass any usual broker.
pub const LARGEST_RECORD: usize = 512 * 1024;
/// Room for the envelope of a chunk.
const ENVELOPE: usize = 1024;
const MANIFEST: &str = "manifest";

/// One record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `{version}/{chunk}` or `{version}/manifest`.
    pub key: String,
    /// JSON.
    pub value: Vec<u8>,
}

#[derive(Serialize)]
struct ChunkOut<'a> {
    v: u32,
    version: &'a str,
    chunk: u32,
    entries: &'a [&'a RawValue],
}

#[derive(Deserialize)]
struct ChunkIn<'a> {
    v: u32,
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    v: u32,
    version: String,
    chunks: u32,
    sha256: String,
}

impl PriceBook {
    /// The records of this version, the manifest last.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut entries: Vec<&RawValue> = Vec::new();
        let mut bytes = 0;
        for line in self.text.lines() {
            let is_full = bytes + line.len() + 1 > LARGEST_RECORD - ENVELOPE;
            if is_full {
                records.push(self.chunk(records.len(), &entries));
                entries.clear();
                bytes = 0;
            }
            bytes += line.len() + 1;
            entries.push(serde_json::from_str(line).expect("canonical lines are JSON"));
        }
        records.push(self.chunk(records.len(), &entries));
        let manifest = Manifest {
            v: 1,
            version: self.version.clone(),
            chunks: u32::try_from(records.len()).expect("a book has a handful of chunks"),
            sha256: self.sha256.clone(),
        };
        records.push(Record {
            key: format!("{}/{MANIFEST}", self.version),
            value: serde_json::to_vec(&manifest).expect("texts and integers always serialise"),
        });
        records
    }

    fn chunk(&self, number: usize, entries: &[&RawValue]) -> Record {
        let chunk = ChunkOut {
            v: 1,
            version: &self.version,
            chunk: u32::try_from(number).expect("a book has a handful of chunks"),
            entries,
        };
        Record {
            key: format!("{}/{number}", self.version),
            value: serde_json::to_vec(&chunk).expect("canonical lines are JSON"),
        }
    }

    /// The book of which these are all records, in any order.
    ///
    /// # Errors
    /// [`BookError::Record`] where one cannot be read, is missing, or the hash differs.
    pub fn from_records<'a>(
        records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, BookError> {
        let mut assembly = Assembly::default();
        let mut last_key = "(none)";
        for (key, value) in records {
            last_key = key;
            if let Some(book) = assembly.accept(key, value)? {
                return Ok(book);
            }
        }
        Err(refused(last_key, "the version is not complete"))
    }
}

/// Collects records of all versions as they come, and gives out each book when it is complete.
#[derive(Debug, Default)]
pub struct Assembly {
    versions: HashMap<String, Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    /// Number of a chunk → its lines.
    chunks: BTreeMap<u32, String>,
    manifest: Option<Manifest>,
}

impl Assembly {
    /// Takes one record; the book, where this record completes one. A record that came before is
    /// taken again without harm: a book that was given out is collected anew.
    ///
    /// # Errors
    /// [`BookError::Record`] where the record cannot be read or the whole does not have the hash
    /// that the manifest names; what was collected of the version is then dropped.
    pub fn accept(&mut self, key: &str, value: &[u8]) -> Result<Option<PriceBook>, BookError> {
        let (version, part) = key
            .rsplit_once('/')
            .ok_or_else(|| refused(key, "the key is not version/chunk"))?;
        let parts = self.versions.entry(version.to_owned()).or_default();
        if part == MANIFEST {
            parts.manifest = Some(read_manifest(key, version, value)?);
        } else {
            let number = part
                .parse()
                .map_err(|_| refused(key, "the chunk has no number"))?;
            parts.chunks.insert(number, read_chunk(key, value)?);
        }
        let Some(manifest) = &parts.manifest else {
            return Ok(None);
        };
        if !(0..manifest.chunks).all(|number| parts.chunks.contains_key(&number)) {
            return Ok(None);
        }
        let manifest = manifest.clone();
        let parts = self.versions.remove(version).unwrap_or_default();
        let chunks = parts.chunks.range(..manifest.chunks);
        let text: String = chunks.map(|(_, lines)| lines.as_str()).collect();
        let book = PriceBook::parse(&text).map_err(|error| refused(key, &error.to_string()))?;
        if book.sha256 != manifest.sha256 || book.version != manifest.version {
            return Err(refused(key, "the hash of the chunks is not the manifest's"));
        }
        Ok(Some(book))
    }
}

/// The books of a topic that is followed. While it is read, from the beginning or again, no book is
/// given out: all but the last are prices of former times.
#[derive(Debug, Default)]
pub struct FollowedBooks {
    assembly: Assembly,
    /// The book that was completed last while the topic is read.
    newest: Option<PriceBook>,
    is_live: bool,
}

impl FollowedBooks {
    /// Takes one record; the book that is to be in force from now on, where this record completes
    /// one and the topic has been read.
    ///
    /// # Errors
    /// As [`Assembly::accept`].
    pub fn accept(&mut self, key: &str, value: &[u8]) -> Result<Option<PriceBook>, BookError> {
        let completed = self.assembly.accept(key, value)?;
        if self.is_live {
            return Ok(completed);
        }
        self.newest = completed.or(self.newest.take());
        Ok(None)
    }

    /// The topic is about to be read from its beginning again.
    pub fn begin_again(&mut self) {
        *self = Self::default();
    }

    /// The topic has been read: the book that is to be in force, where there is one.
    pub fn caught_up(&mut self) -> Option<PriceBook> {
        self.is_live = true;
        self.newest.take()
    }
}

fn read_manifest(key: &str, version: &str, value: &[u8]) -> Result<Manifest, BookError> {
    let manifest: Manifest =
        serde_json::from_slice(value).map_err(|error| refused(key, &error.to_string()))?;
    if manifest.v != 1 || manifest.version != version {
        return Err(refused(key, "the manifest is of another version"));
    }
    Ok(manifest)
}

fn read_chunk(key: &str, value: &[u8]) -> Result<String, BookError> {
    let chunk: ChunkIn<'_> =
        serde_json::from_slice(value).map_err(|error| refused(key, &error.to_string()))?;
    if chunk.v != 1 {
        return Err(refused(key, "written by a newer version of spendfuse"));
    }
    let mut lines = String::with_capacity(value.len());
    for entry in chunk.entries {
        lines.push_str(entry.get());
        lines.push('\n');
    }
    Ok(lines)
}

fn refused(key: &str, reason: &str) -> BookError {
    BookError::Record {
        key: key.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(assembly: &mut Assembly, record: &Record) -> Option<PriceBook> {
        assembly.accept(&record.key, &record.value).unwrap()
    }

    #[test]
    fn a_book_survives_its_records_in_any_order() {
        let book = PriceBook::snapshot();
        let mut records = book.to_records();
        assert!(records.len() > 2);
        assert!(
            records
                .iter()
                .all(|record| record.value.len() < LARGEST_RECORD)
        );
        records.reverse();
        let pairs = records
            .iter()
            .map(|record| (record.key.as_str(), record.value.as_slice()));
        let read = PriceBook::from_records(pairs).unwrap();
        assert_eq!(read.version(), book.version());
        assert_eq!(read.models(), book.models());
    }

    #[test]
    fn while_a_topic_is_read_no_book_of_former_times_is_given_out() {
        let newest = PriceBook::snapshot();
        let mut draft = newest.to_draft();
        draft.label = "former".to_owned();
        let former = draft.finish().unwrap();
        let mut books = FollowedBooks::default();
        let read = |books: &mut FollowedBooks, book: &PriceBook| {
            let given = book.to_records().into_iter();
            given
                .filter_map(|record| books.accept(&record.key, &record.value).unwrap())
                .map(|book| book.version().to_owned())
                .collect::<Vec<_>>()
        };
        for _ in 0..2 {
            assert_eq!(read(&mut books, &former), [""; 0]);
            assert_eq!(read(&mut books, &newest), [""; 0]);
            let in_force = books.caught_up().unwrap();
            assert_eq!(in_force.version(), newest.version());
            assert_eq!(read(&mut books, &former), [former.version()]);
            books.begin_again();
        }
    }

    #[test]
    fn an_incomplete_or_altered_version_is_not_given_out() {
        let book = PriceBook::snapshot();
        let records = book.to_records();
        let (manifest, chunks) = records.split_last().unwrap();
        let mut assembly = Assembly::default();
        for chunk in &chunks[1..] {
            assert!(accept(&mut assembly, chunk).is_none());
        }
        assert!(accept(&mut assembly, manifest).is_none());
        let first = String::from_utf8(chunks[0].value.clone()).unwrap();
        let altered = first.replacen("\"input\":", "\"input\":9", 1);
        assert_ne!(first, altered);
        assert!(assembly.accept(&chunks[0].key, altered.as_bytes()).is_err());
    }
}
