//! Records of the corrections topic: what stands for a counted entry from now on.
//!
//! A record carries the entry as whoever made it found it in the warehouse, so that the meter needs
//! neither the event, which retention removes, nor the warehouse. It is written by `spendfuse correct`
//! and `spendfuse rerate`, and by the loader, for calls that were counted twice.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::event::{Body, Event, Flags, decode, encode};
use crate::identity::Identity;
use crate::money::Nanos;
use crate::row::{CostParts, MeterAddress, PriceBasis};
use crate::time::UnixMillis;

/// Who corrects and why may take this many bytes each.
pub const MAX_TEXT_BYTES: usize = 256;
/// The name of a re-rating may take this many bytes.
pub const MAX_JOB_BYTES: usize = 64;
/// Where the identities of corrections come from.
const SOURCE: &str = "spendfuse.corrections";

/// A correction of one entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CorrectionRecord {
    /// Version of the format.
    pub v: u32,
    /// Its id: 32 hex digits that follow from what it does to which entry; in a re-rating from job,
    /// entry and price book.
    pub id: String,
    /// The re-rating that it belongs to; empty where this entry alone is corrected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// The entry.
    pub entry: EntryPlace,
    /// Which correction of this entry it is, from 1 on: of two with one number the first in the log
    /// stands.
    pub number: u64,
    /// When the entry's event arrived.
    pub received_at: UnixMillis,
    /// Version of the budgets that the entry was counted with.
    pub budget_version: u64,
    /// Everything that was counted and corrected before this time was in the warehouse that was asked.
    pub judged_at: UnixMillis,
    /// Who corrects.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What stood for the entry; absent where that was void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<StandingRecord>,
    /// What stands for it from now on; absent where it is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<StandingRecord>,
}

/// Where an entry was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryPlace {
    /// Of the set of topics.
    pub epoch: u32,
    /// Of the meter.
    pub partition: u32,
    /// Number of the commit.
    pub seq: u64,
    /// Place within the commit.
    pub index: u32,
}

/// What stands for an entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StandingRecord {
    /// A usage event.
    pub event: Box<RawValue>,
    /// Flags of its row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// What it costs.
    pub cost: CostRecord,
    /// Where the price comes from: `book`, `reported`, `ceiling`.
    pub priced: String,
    /// Version of the price book.
    pub price_version: String,
    /// The entry of the price book that was used, where it is not the model itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub priced_as: String,
}

/// The parts of a cost, in dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CostRecord {
    pub input: Nanos,
    pub cache_read: Nanos,
    pub cache_write: Nanos,
    pub output: Nanos,
    pub units: Nanos,
    /// The part of all that is charged at a ceiling.
    pub at_ceiling: Nanos,
}

/// What stands for an entry, read.
#[derive(Clone, Debug)]
pub struct Stands<'a> {
    /// The event.
    pub event: Event<'a>,
    /// What it costs.
    pub cost: CostParts,
    /// The part that is charged at a ceiling.
    pub at_ceiling: Nanos,
    /// Where the price comes from.
    pub priced: PriceBasis,
    /// Version of the price book.
    pub price_version: &'a str,
    /// The entry of the price book that was used.
    pub priced_as: &'a str,
}

/// Why a record of the corrections topic is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorrectionError {
    /// It is not JSON of that form.
    #[error("cannot be read: {0}")]
    Malformed(String),
    /// It is of a newer release.
    #[error("has version {0}, this release knows 1")]
    Version(u32),
    /// It says something that no correction may say.
    #[error("{0}")]
    Inconsistent(String),
}

fn inconsistent(what: impl Into<String>) -> CorrectionError {
    CorrectionError::Inconsistent(what.into())
}

impl EntryPlace {
    /// Its address in this set of topics.
    pub fn address(self) -> MeterAddress {
        MeterAddress {
            partition: self.partition,
            seq: self.seq,
            index: self.index,
        }
    }
}

impl std::fmt::Display for EntryPlace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            epoch,
            partition,
            seq,
            index,
        } = self;
        write!(formatter, "{epoch}/{partition}/{seq}/{index}")
    }
}

impl std::str::FromStr for EntryPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no address: EPOCH/PARTITION/SEQ/INDEX, such as 1/3/4711/0");
        let parts: Vec<&str> = text.split('/').collect();
        let [epoch, partition, seq, index] = parts[..] else {
            return Err(wrong());
        };
        let small = |part: &str| part.parse::<u32>().map_err(|_| wrong());
        Ok(Self {
            epoch: small(epoch)?,
            partition: small(partition)?,
            seq: seq.parse().map_err(|_| wrong())?,
            index: small(index)?,
        })
    }
}

impl CorrectionRecord {
    /// Reads a record, and that it does not contradict itself.
    ///
    /// # Errors
    /// [`CorrectionError`] says what is wrong.
    pub fn parse(value: &[u8]) -> Result<Self, CorrectionError> {
        let record: Self = serde_json::from_slice(value)
            .map_err(|error| CorrectionError::Malformed(error.to_string()))?;
        if record.v != 1 {
            return Err(CorrectionError::Version(record.v));
        }
        if record.id != record.derived_id() {
            return Err(inconsistent(format!(
                "its id {} is not that of what it says",
                crate::printable(&record.id)
            )));
        }
        if record.job.len() > MAX_JOB_BYTES {
            let bytes = record.job.len();
            return Err(inconsistent(format!(
                "job has {bytes} bytes, not at most {MAX_JOB_BYTES}"
            )));
        }
        let texts = [("by", &record.by), ("reason", &record.reason)];
        for (name, text) in texts {
            if text.is_empty() || text.len() > MAX_TEXT_BYTES {
                return Err(inconsistent(format!(
                    "{name} has {} bytes, not 1 to {MAX_TEXT_BYTES}",
                    text.len()
                )));
            }
        }
        let before = record
            .before
            .as_ref()
            .map(|one| one.read(record.received_at));
        let after = record
            .after
            .as_ref()
            .map(|one| one.read(record.received_at));
        match (before.transpose()?, after.transpose()?) {
            (None, None) => return Err(inconsistent("it has neither before nor after")),
            (Some(before), Some(after)) => {
                same_entry(&before.event, &after.event)?;
                if record.is_rerate() {
                    same_call(&before.event, &after.event)?;
                }
            }
            (Some(_), None) | (None, Some(_)) if record.is_rerate() => {
                return Err(inconsistent("a re-rating neither voids nor restores"));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        Ok(record)
    }

    /// The id that follows from what it says.
    pub fn derived_id(&self) -> String {
        if self.is_rerate() {
            let book = self.after.as_ref().map_or("", |after| &after.price_version);
            return rerate_id(&self.job, self.entry, book);
        }
        let side = |one: &Option<StandingRecord>| serde_json::to_string(one).unwrap_or_default();
        let (before, after) = (side(&self.before), side(&self.after));
        let said = [
            &self.entry.to_string(),
            &self.number.to_string(),
            &before,
            &after,
        ]
        .map(|text| format!("{}:{text}", text.len()));
        format!("{:032x}", xxh3_128(said.concat().as_bytes()))
    }

    /// Whether it is the same call at another price, among many.
    pub fn is_rerate(&self) -> bool {
        !self.job.is_empty()
    }

    /// What is remembered of it: that this entry has a correction of this number.
    pub fn identity(&self) -> Identity {
        let (entry, number) = (self.entry.to_string(), self.number.to_string());
        Identity::of("", SOURCE, &entry, &number)
    }

    /// And which one that is.
    pub fn content(&self) -> u32 {
        xxh3_64(self.id.as_bytes()) as u32
    }

    /// What the row says of it: `alice: sent twice`.
    pub fn says(&self) -> String {
        let named = match self.is_rerate() {
            true => of_job(&self.job),
            false => String::new(),
        };
        format!("{}: {}{named}", self.by, self.reason)
    }
}

/// The id of what the re-rating `job` by price book `book` does to an entry.
pub fn rerate_id(job: &str, entry: EntryPlace, book: &str) -> String {
    let said = ["rerate", job, &entry.to_string(), book];
    let said = said.map(|text| format!("{}:{text}", text.len()));
    format!("{:032x}", xxh3_128(said.concat().as_bytes()))
}

/// The end of what rows of a re-rating say: ` (job prices-of-may)`.
pub fn of_job(job: &str) -> String {
    format!(" (job {job})")
}

/// What a correction changes does not move the entry to another partition, nor make another of it.
fn same_entry(before: &Event<'_>, after: &Event<'_>) -> Result<(), CorrectionError> {
    let (old, new) = (&before.attribution, &after.attribution);
    let same = before.source == after.source
        && before.id == after.id
        && before.time == after.time
        && old.workspace == new.workspace
        && old.session == new.session
        && old.root_session == new.root_session;
    match same {
        true => Ok(()),
        false => Err(inconsistent(
            "source, id, time, workspace, session and root session cannot be corrected",
        )),
    }
}

/// Another price does not make another call of it.
fn same_call(before: &Event<'_>, after: &Event<'_>) -> Result<(), CorrectionError> {
    match before.attribution == after.attribution && before.body == after.body {
        true => Ok(()),
        false => Err(inconsistent("a re-rating changes nothing but the price")),
    }
}

impl StandingRecord {
    /// What stands, as a record.
    pub fn of(stands: &Stands<'_>) -> Self {
        let text = String::from_utf8(encode(&stands.event)).expect("JSON is text");
        let cost = stands.cost;
        Self {
            event: RawValue::from_string(text).expect("an event is JSON"),
            flags: stands.event.flags.names().map(str::to_owned).collect(),
            cost: CostRecord {
                input: cost.input,
                cache_read: cost.cache_read,
                cache_write: cost.cache_write,
                output: cost.output,
                units: cost.units,
                at_ceiling: stands.at_ceiling,
            },
            priced: stands.priced.name().to_owned(),
            price_version: stands.price_version.to_owned(),
            priced_as: stands.priced_as.to_owned(),
        }
    }

    /// What it says of an entry whose event arrived at `received_at`.
    ///
    /// # Errors
    /// [`CorrectionError`] says what is wrong.
    pub fn read(&self, received_at: UnixMillis) -> Result<Stands<'_>, CorrectionError> {
        let event = decode(self.event.get().as_bytes(), &[], received_at);
        let mut event = event.map_err(|rejection| inconsistent(rejection.to_string()))?;
        if !matches!(event.body, Body::Usage(_)) {
            return Err(inconsistent("only entries of usage can be corrected"));
        }
        for name in &self.flags {
            let flag = Flags::named(name);
            event.flags.insert(flag.ok_or_else(|| {
                inconsistent(format!("there is no flag {}", crate::printable(name)))
            })?);
        }
        let priced = PriceBasis::named(&self.priced);
        let cost = CostParts {
            input: self.cost.input,
            cache_read: self.cost.cache_read,
            cache_write: self.cost.cache_write,
            output: self.cost.output,
            units: self.cost.units,
        };
        let parts = [
            cost.input,
            cost.cache_read,
            cost.cache_write,
            cost.output,
            cost.units,
        ];
        let most = Nanos::from_dollars(1_000_000);
        if parts.iter().any(|part| !(Nanos::ZERO..most).contains(part)) {
            return Err(inconsistent(
                "a part of its cost is not between 0 and 1,000,000 USD",
            ));
        }
        if !(Nanos::ZERO..=cost.total()).contains(&self.cost.at_ceiling) {
            return Err(inconsistent(
                "more of its cost is at a ceiling than there is",
            ));
        }
        Ok(Stands {
            event,
            cost,
            at_ceiling: self.cost.at_ceiling,
            priced: priced.ok_or_else(|| inconsistent("priced is book, reported or ceiling"))?,
            price_version: &self.price_version,
            priced_as: &self.priced_as,
        })
    }
}

#[cfg(test)]
mod tests;
