//! What sidecars hold of budgets near a limit, as they tell each other, and by how much their calls may
//! pass it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spendfuse_bus::{BusError, topics};
use spendfuse_domain::in_flight::{InFlightKey, InFlightRecord};
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Amount, LineFigures, UnixMillis};

use super::super::{Failure, kafka};
use crate::settings::Settings;

/// A sidecar that was not heard for 15 s holds nothing any more; a heartbeat may be four seconds old,
/// and clocks differ a little.
const DROPPED_AFTER_MILLIS: i64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(5);

/// What all sidecars told of one budget in one scope, in the unit of its limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    reserved: i128,
    pending: i128,
    /// By how much calls may pass the limit all the same.
    bound: i128,
}

impl Held {
    /// The figures of `entry` with what is held.
    pub fn figures(self, entry: &BlocklistEntry) -> Option<LineFigures> {
        let (spent, limit) = (entry.figures.spent?, entry.figures.limit?);
        Some(LineFigures::new(spent, limit, self.pending, self.reserved))
    }

    /// What is held beside what is spent of `entry`, and the bound.
    pub fn amounts(self, entry: &BlocklistEntry) -> Option<(Amount, Amount)> {
        let limit = entry.figures.limit?;
        let held = self.reserved + self.pending;
        Some((limit.with(held), limit.with(self.bound)))
    }
}

/// By `{budget}|{scope}`; nothing of those of which nobody has told anything lately.
pub type AllHeld = BTreeMap<String, Held>;

/// Reads what was told.
pub fn read(settings: &Settings, now: UnixMillis) -> Result<AllHeld, Failure> {
    let topic = settings.topics().inflight;
    match topics::partition_count(&settings.kafka(), &topic, PATIENCE) {
        Ok(_) => {
            let mut last = BTreeMap::new();
            kafka::read_topic(settings, &topic, |record| {
                last.extend(told(record.key, record.value));
            })?;
            Ok(sums(&last, now))
        }
        // An installation of an older release has none.
        Err(BusError::TopicMissing { .. }) => Ok(AllHeld::new()),
        Err(error) => Err(kafka::failure(settings, &error)),
    }
}

/// The last record of each key that a sidecar told since one of its starts, whose random bits stand
/// behind the key: what an earlier start held may still cost something.
type Told = BTreeMap<(String, String), InFlightRecord>;

/// `None` for what cannot be read: a meter's word, or one of a later release.
fn told(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<((String, String), InFlightRecord)> {
    let key = std::str::from_utf8(key?).ok()?;
    let record: InFlightRecord = serde_json::from_slice(value?).ok()?;
    Some(((key.to_owned(), record.incarnation.clone()), record))
}

fn sums(told: &Told, now: UnixMillis) -> AllHeld {
    let records = told.iter();
    let records = records.filter_map(|((key, _), record)| Some((InFlightKey::parse(key)?, record)));
    let records: Vec<_> = records.collect();
    let is_alive = |record: &InFlightRecord| now.since(record.at) <= DROPPED_AFTER_MILLIS;
    let alive: BTreeSet<(&str, &str)> = { records.iter() }
        .filter(|(_, record)| is_alive(record))
        .filter_map(|(key, record)| match key {
            InFlightKey::Heartbeat { holder } => Some((*holder, record.incarnation.as_str())),
            InFlightKey::Held { .. } => None,
        })
        .collect();
    let mut all = AllHeld::new();
    for (key, record) in &records {
        let (InFlightKey::Held { entry, holder }, Some((held, _))) = (key, record.held()) else {
            continue;
        };
        let (pending, exceeding) = record.told_people();
        let sum = all.entry((*entry).to_owned()).or_default();
        sum.bound += exceeding;
        match alive.contains(&(*holder, record.incarnation.as_str())) {
            true => {
                sum.pending += pending;
                sum.reserved += held - pending;
            }
            // Its calls may go on, and nobody holds anything for them.
            false => sum.bound += held,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_living_hold_is_held_and_what_the_dead_held_may_come_on_top() {
        let now = UnixMillis::parse_rfc3339("2026-11-22T10:15:30Z").expect("a time");
        let record = |incarnation: &str, seconds: i64, rest: &str| {
            let at = now.plus(-1_000 * seconds);
            let value = format!(
                r#"{{"v":1,"incarnation":"{incarnation}","n":1,"at":"{at}","seen":{{}},{rest}}}"#
            );
            value.into_bytes()
        };
        let beat = r#""share_ppm":0"#;
        let held = r#""reserved_usd":"0.30","asked_usd":"0.09","pending_usd":"0.10","exceeding_usd":"0.02""#;
        let records = [
            ("heartbeat|a", record("1", 3, beat)),
            ("heartbeat|b", record("2", 30, beat)),
            ("heartbeat|c", record("4", 1, beat)),
            ("cap|acme|a", record("1", 60, held)),
            ("cap|acme|b", record("2", 60, held)),
            // It was started again since.
            ("cap|acme|c", record("3", 60, held)),
            (
                "cap|acme|c",
                record("4", 1, r#""reserved_usd":"0.00","asked_usd":"0.00""#),
            ),
            ("settled|a|0", br#"{"v":1,"settled":[]}"#.to_vec()),
        ];
        let records = records.iter();
        let last = records
            .filter_map(|(key, value)| told(Some(key.as_bytes()), Some(value)))
            .collect();
        let sums = sums(&last, now);
        let Held {
            reserved,
            pending,
            bound,
        } = sums["cap|acme"];
        let cents = |cents: i128| cents * 10_000_000;
        assert_eq!((reserved, pending), (cents(20), cents(10)));
        assert_eq!(bound, cents(2 * 3 + 30 * 2));
        assert_eq!(sums.len(), 1);
    }
}
