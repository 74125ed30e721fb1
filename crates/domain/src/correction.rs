//! Records of the corrections topic: what stands for a counted entry from now on.
//!
//! A record carries the entry as whoever made it found it in the warehouse, so that the meter needs
//! neither the event, which retention removes, nor the warehouse. It is written by `spendfuse
//! correct` alone.

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
/// Where the identities of corrections come from.
const SOURCE: &str = "spendfuse.corrections";

/// A correction of one entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CorrectionRecord {
    /// Version of the format.
    pub v: u32,
    /// Its id: 32 hex digits that follow from what it does to which entry.
    pub id: String,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        let texts = [("by", &record.by), ("reason", &record.reason)];
        for (name, text) in texts {
            if text.is_empty() || text.len() > MAX_TEXT_BYTES {
                return Err(inconsistent(format!(
                    "{name} has {} bytes, not 1 to {MAX_TEXT_BYTES}",
                    text.len()
                )));
            }
        }
        let before = record.before.as_ref().map(|one| one.read(&record));
        let after = record.after.as_ref().map(|one| one.read(&record));
        match (before.transpose()?, after.transpose()?) {
            (None, None) => return Err(inconsistent("it has neither before nor after")),
            (Some(before), Some(after)) => same_entry(&before.event, &after.event)?,
            (Some(_), None) | (None, Some(_)) => {}
        }
        Ok(record)
    }

    /// The id that follows from what it says.
    pub fn derived_id(&self) -> String {
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
        format!("{}: {}", self.by, self.reason)
    }
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

    /// What it says.
    ///
    /// # Errors
    /// [`CorrectionError`] says what is wrong.
    pub fn read(&self, record: &CorrectionRecord) -> Result<Stands<'_>, CorrectionError> {
        let event = decode(self.event.get().as_bytes(), &[], record.received_at);
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
mod tests {
    use super::*;

    fn record(customer: &str, cost: &str) -> CorrectionRecord {
        let event = format!(
            r#"{{"specversion":"1.0","type":"spendfuse.usage","source":"app","id":"r-1","time":"2026-11-22T10:15:30.123Z","data":{{"workspace":"acme","customer":"{customer}","model":"gpt-4o","usage":{{"input_tokens":5}}}}}}"#
        );
        let standing = StandingRecord {
            event: RawValue::from_string(event).unwrap(),
            flags: vec!["backfilled".to_owned()],
            cost: CostRecord {
                input: Nanos::parse_usd(cost).unwrap().amount,
                ..CostRecord::default()
            },
            priced: "book".to_owned(),
            price_version: "2026-11-01".to_owned(),
            priced_as: String::new(),
        };
        let mut record = CorrectionRecord {
            v: 1,
            id: String::new(),
            entry: "1/3/77/0".parse().unwrap(),
            number: 1,
            received_at: UnixMillis::parse_rfc3339("2026-11-22T10:15:31Z").unwrap(),
            budget_version: 4,
            judged_at: UnixMillis::parse_rfc3339("2026-11-23T00:00:00Z").unwrap(),
            by: "alice".to_owned(),
            reason: "sent twice".to_owned(),
            before: Some(standing),
            after: None,
        };
        record.id = record.derived_id();
        record
    }

    fn parse(record: &CorrectionRecord) -> Result<CorrectionRecord, CorrectionError> {
        CorrectionRecord::parse(&serde_json::to_vec(record).unwrap())
    }

    #[test]
    fn what_is_written_is_read_and_has_its_id_from_what_it_does() {
        let one = record("c-1", "0.5");
        let read = parse(&one).unwrap();
        let stands = read.before.as_ref().unwrap().read(&read).unwrap();
        assert!(stands.event.flags.contains(Flags::BACKFILLED));
        assert_eq!(&*stands.event.attribution.customer, "c-1");
        let again = StandingRecord::of(&stands);
        assert_eq!(again.cost, one.before.as_ref().unwrap().cost);
        let elsewhere = CorrectionRecord {
            by: "bob".to_owned(),
            ..one.clone()
        };
        assert_eq!(elsewhere.derived_id(), one.id);
        assert_ne!(record("c-2", "0.5").id, one.id);
        assert_eq!(record("c-2", "0.5").identity(), one.identity());
        assert_ne!(record("c-2", "0.5").content(), one.content());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let good = record("c-1", "0.5");
        let mut other = good.clone();
        other.reason = String::new();
        assert!(parse(&other).is_err());
        other = good.clone();
        other.number = 2;
        assert!(parse(&other).is_err(), "its id is of number 1");
        other = record("c-1", "-0.5");
        assert!(parse(&other).is_err());
        other = good.clone();
        other.before = None;
        other.id = other.derived_id();
        assert!(parse(&other).is_err());
        other = good.clone();
        other.after = other.before.clone();
        let moved = other.after.as_mut().unwrap();
        let text = moved.event.get().replace("acme", "globex");
        moved.event = RawValue::from_string(text).unwrap();
        other.id = other.derived_id();
        let error = parse(&other).unwrap_err().to_string();
        assert!(error.contains("cannot be corrected"), "{error}");
        assert!("1/2/3".parse::<EntryPlace>().is_err());
    }
}
