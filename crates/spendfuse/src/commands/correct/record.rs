//! The record by which a correction reaches the meter that counted its entry.

use spendfuse_bus::OutputRecord;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::correction::{CorrectionRecord, EntryPlace, StandingRecord};

use super::entry::{Entry, Standing};
use crate::settings::Settings;

/// Who corrects, and why.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Empty where it is no re-rating.
    pub job: &'a str,
    pub by: &'a str,
    pub reason: &'a str,
}

/// What stands for an entry, before and after.
#[derive(Clone, Copy)]
pub struct Stood<'a> {
    pub before: Option<&'a Standing>,
    pub after: Option<&'a Standing>,
}

/// The next correction of `entry`, and as it is written. Everything that was counted before `judged_at`
/// was in ClickHouse when the entry was read.
///
/// # Errors
/// What the meter would refuse is refused here.
pub fn correction_of(
    entry: &Entry,
    told: Told<'_>,
    judged_at: UnixMillis,
    stood: Stood<'_>,
) -> Result<(CorrectionRecord, Vec<u8>), String> {
    let written = |one: Option<&Standing>| one.map(|one| StandingRecord::of(&one.stands()));
    let mut record = CorrectionRecord {
        v: 1,
        id: String::new(),
        job: told.job.to_owned(),
        entry: entry.place,
        number: entry.corrections.len() as u64 + 1,
        received_at: entry.received_at,
        budget_version: entry.budget_version,
        judged_at,
        by: told.by.to_owned(),
        reason: told.reason.to_owned(),
        before: written(stood.before),
        after: written(stood.after),
    };
    record.id = record.derived_id();
    let value = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
    CorrectionRecord::parse(&value).map_err(|error| error.to_string())?;
    Ok((record, value))
}

/// A correction of the entry at `place`, as it goes into the corrections topic.
pub fn output_of(settings: &Settings, place: EntryPlace, written: Vec<u8>) -> OutputRecord {
    OutputRecord {
        topic: settings.topics().corrections,
        partition: place.partition,
        key: Some(place.to_string().into_bytes()),
        value: Some(written),
        headers: Vec::new(),
    }
}
