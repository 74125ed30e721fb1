//! Topic `spendfuse.inflight` as a command reads it: who is there, what each told, and what those may have
//! held who are gone.

use std::collections::BTreeMap;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::in_flight::{InFlightKey, InFlightRecord};

use super::super::super::{Failure, kafka};
use super::{AllHeld, Held};
use crate::settings::Settings;

/// A sidecar that was not heard for so long holds nothing any more, by the time of its partition's log.
const DROPPED_AFTER_MILLIS: i64 = 15_000;
/// What was told of a scope counts for so long after anybody spoke of it; then all may hold their shares
/// of it again.
const FORGOTTEN_AFTER_MILLIS: i64 = 600_000;
/// Millionths of each limit that all who are there may hold of what they told nothing of.
const SHARED_OUT: i128 = 500_000;

#[derive(Debug)]
struct Logged {
    /// By the broker's clock.
    at: i64,
    record: InFlightRecord,
}

/// A sidecar since one of its starts, in a partition: what an earlier start held may still cost
/// something.
#[derive(Clone, Copy, Debug)]
struct Holder<'a> {
    name: &'a str,
    incarnation: &'a str,
    partition: u32,
    beat_at: i64,
    /// Millionths of each limit.
    share: i128,
    is_alive: bool,
}

/// A record of what a holder has of a scope.
#[derive(Clone, Copy, Debug)]
struct Word<'a> {
    holder: &'a str,
    logged: &'a Logged,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    /// The last of each sort, by partition, key, and the random bits of its writer's start.
    last: BTreeMap<(u32, String, String), Logged>,
    /// When each partition took its last heartbeat.
    pub(super) heard_at: BTreeMap<u32, i64>,
    /// No sidecar is heard any more.
    pub(super) is_silent: bool,
}

impl Log {
    pub(super) fn read(settings: &Settings, topic: &str) -> Result<Self, Failure> {
        let mut log = Self::default();
        kafka::read_topic(settings, topic, |record| {
            let at = record.timestamp_millis;
            log.take(record.partition, at, record.key, record.value);
        })?;
        Ok(log)
    }

    /// Passes over what cannot be read: a meter's word, or one of a later release.
    fn take(&mut self, partition: u32, at: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let record = value.and_then(|value| serde_json::from_slice::<InFlightRecord>(value).ok());
        let (Some(key), Some(record)) = (key, record) else {
            return;
        };
        if let Some(InFlightKey::Heartbeat { .. }) = InFlightKey::parse(key) {
            self.heard_at.insert(partition, at);
        }
        let writer = record.incarnation.clone();
        let logged = Logged { at, record };
        self.last
            .insert((partition, key.to_owned(), writer), logged);
    }

    /// Whether all of it is old by this machine's clock, which may be wrong.
    pub(super) fn seems_silent(&self, now: UnixMillis) -> bool {
        let is_old = |at: &i64| now.since(UnixMillis(*at)).abs() > DROPPED_AFTER_MILLIS;
        !self.heard_at.is_empty() && self.heard_at.values().all(is_old)
    }

    fn holders(&self) -> impl Iterator<Item = Holder<'_>> {
        self.last
            .iter()
            .filter_map(move |((partition, key, _), logged)| {
                let Some(InFlightKey::Heartbeat { holder }) = InFlightKey::parse(key) else {
                    return None;
                };
                let silent_for = self.heard_at.get(partition)? - logged.at;
                Some(Holder {
                    name: holder,
                    incarnation: &logged.record.incarnation,
                    partition: *partition,
                    beat_at: logged.at,
                    share: logged.record.share_ppm.unwrap_or(0).into(),
                    is_alive: !self.is_silent && silent_for.abs() <= DROPPED_AFTER_MILLIS,
                })
            })
    }

    /// What was told, by partition and `{budget}|{scope}`.
    fn words(&self) -> BTreeMap<(u32, &str), Vec<Word<'_>>> {
        let mut words: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((partition, key, _), logged) in &self.last {
            if let Some(InFlightKey::Held { entry, holder }) = InFlightKey::parse(key) {
                let word = Word { holder, logged };
                words.entry((*partition, entry)).or_default().push(word);
            }
        }
        words
    }

    /// Whether anybody is gone who may have held something of which it told nothing.
    pub(super) fn has_silent_shares(&self) -> bool {
        let mut holders = self.holders();
        holders.any(|holder| !holder.is_alive && holder.share > 0)
    }

    /// By what `limits` say at how much budgets block.
    pub(super) fn sums(&self, limits: &BTreeMap<String, i128>, partitions: u32) -> AllHeld {
        let mut all = AllHeld {
            partitions,
            ..AllHeld::default()
        };
        let mut by_partition: BTreeMap<u32, Vec<Holder<'_>>> = BTreeMap::new();
        for holder in self.holders() {
            let holders = by_partition.entry(holder.partition).or_default();
            holders.push(holder);
        }
        for ((partition, entry), words) in self.words() {
            let holders = by_partition.get(&partition).map(Vec::as_slice);
            let (budget, _) = entry.split_once('|').unwrap_or((entry, ""));
            let limit = limits.get(budget).copied().unwrap_or(0);
            let told = all.told.entry(entry.to_owned()).or_default();
            told.add(sum(&words, holders.unwrap_or_default(), limit));
        }
        for (partition, holders) in by_partition {
            let gone = holders.iter().filter(|holder| !holder.is_alive);
            let gone: i128 = gone.map(|holder| holder.share).sum();
            if gone == 0 {
                continue;
            }
            for (budget, limit) in limits {
                let held = Held {
                    bound: part(*limit, gone),
                    fits_at: Some(limit - part(*limit, SHARED_OUT + gone)),
                    ..Held::default()
                };
                all.untold.insert((partition, budget.clone()), held);
            }
        }
        all
    }
}

/// Millionths of a limit.
fn part(limit: i128, millionths: i128) -> i128 {
    limit.saturating_mul(millionths) / 1_000_000
}

/// What was told of one scope, by these of a partition.
fn sum(words: &[Word<'_>], holders: &[Holder<'_>], limit: i128) -> Held {
    let mut sum = Held::default();
    for word in words {
        let record = &word.logged.record;
        let (Some((held, _)), (pending, exceeding)) = (record.held(), record.told_people()) else {
            continue;
        };
        sum.bound += exceeding;
        let mut alive = holders.iter().filter(|holder| holder.is_alive);
        match alive.any(|holder| is_by(word, holder)) {
            true => {
                sum.pending += pending;
                sum.reserved += held - pending;
            }
            // Its calls may go on, and nobody holds anything for them.
            false => sum.bound += held,
        }
    }
    // Nor do those tell of what they held of which they told nothing, or not lately.
    for holder in holders.iter().filter(|holder| !holder.is_alive) {
        let own = words.iter().find(|word| is_by(word, holder));
        let is_lately = |word: &Word<'_>| {
            let before = holder.beat_at - word.logged.at;
            (0..=FORGOTTEN_AFTER_MILLIS).contains(&before)
        };
        let is_told =
            own.is_some_and(|own| own.logged.at > holder.beat_at || words.iter().any(is_lately));
        if !is_told {
            let told = own.and_then(|own| own.logged.record.held());
            let told = told.map_or(0, |(held, _)| held);
            sum.bound += (part(limit, holder.share) - told).max(0);
        }
    }
    sum
}

fn is_by(word: &Word<'_>, holder: &Holder<'_>) -> bool {
    let incarnation = word.logged.record.incarnation.as_str();
    (word.holder, incarnation) == (holder.name, holder.incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_342_530_000);
    const CENT: i128 = 10_000_000;
    const SHARE: &str = r#""share_ppm":250000"#;

    /// Key, random bits of a start, how many seconds ago it was logged, and what it says.
    type Line<'a> = (&'a str, &'a str, i64, &'a str);

    /// In the order of the log; the clocks of those who wrote it are a day behind.
    fn log(lines: &[Line<'_>]) -> Log {
        let mut log = Log::default();
        for (key, incarnation, seconds, rest) in lines {
            let at = NOW.plus(-1_000 * seconds);
            let wrong = at.plus(-86_400_000);
            let value = format!(
                r#"{{"v":1,"incarnation":"{incarnation}","n":1,"at":"{wrong}","seen":{{}},{rest}}}"#
            );
            log.take(0, at.0, Some(key.as_bytes()), Some(value.as_bytes()));
        }
        log
    }

    fn sums(log: &Log) -> AllHeld {
        log.sums(&BTreeMap::from([("cap".to_owned(), 100 * CENT)]), 1)
    }

    fn bound(all: &AllHeld, key: &str) -> i128 {
        all.get(key).expect("it is known").bound
    }

    #[test]
    fn what_the_living_hold_is_held_and_what_the_dead_held_may_come_on_top() {
        let beat = r#""share_ppm":0"#;
        let held = r#""reserved_usd":"0.30","asked_usd":"0.09","pending_usd":"0.10","exceeding_usd":"0.02""#;
        let nothing = r#""reserved_usd":"0.00","asked_usd":"0.00""#;
        let mut log = log(&[
            ("cap|acme|a", "1", 60, held),
            ("cap|acme|b", "2", 60, held),
            // It was started again since.
            ("cap|acme|c", "3", 60, held),
            ("heartbeat|b", "2", 30, beat),
            ("heartbeat|a", "1", 3, beat),
            ("cap|acme|c", "4", 1, nothing),
            ("heartbeat|c", "4", 1, beat),
        ]);
        let settled = br#"{"v":1,"settled":[]}"#;
        log.take(0, NOW.0, Some(b"settled|a|0"), Some(settled));
        let sums = sums(&log);
        let Held {
            reserved,
            pending,
            bound,
            fits_at,
        } = *sums.get("cap|acme").expect("it is told");
        assert_eq!((reserved, pending), (20 * CENT, 10 * CENT));
        assert_eq!(bound, (2 * 3 + 30 * 2) * CENT);
        assert_eq!((sums.told.len(), fits_at), (1, None));
        assert!(sums.get("cap|other").is_none());
    }

    #[test]
    fn who_is_gone_may_have_held_its_share_of_what_it_told_nothing_of() {
        let dime = r#""reserved_usd":"0.10","asked_usd":"0.00""#;
        let nothing = r#""reserved_usd":"0.00","asked_usd":"0.00""#;
        let log = log(&[
            ("cap|long-ago|gone", "1", 700, nothing),
            ("cap|spoken-of|gone", "1", 700, nothing),
            ("cap|spoken-of|a", "2", 300, nothing),
            ("cap|told|gone", "1", 40, dime),
            ("heartbeat|gone", "1", 30, SHARE),
            ("cap|acme|a", "2", 10, dime),
            ("free|acme|a", "2", 10, dime),
            ("heartbeat|a", "2", 1, SHARE),
        ]);
        let sums = sums(&log);
        assert_eq!(bound(&sums, "cap|acme"), 25 * CENT);
        assert_eq!(bound(&sums, "cap|told"), 10 * CENT);
        assert_eq!(bound(&sums, "cap|spoken-of"), 0);
        assert_eq!(bound(&sums, "cap|long-ago"), 25 * CENT);
        assert_eq!(bound(&sums, "free|acme"), 0, "it blocks nothing");
        // Nobody told anything: it fits, with what others may hold, in what is left.
        let other = sums.get("cap|other").expect("somebody is gone");
        assert_eq!((other.bound, other.fits_at), (25 * CENT, Some(25 * CENT)));
    }

    #[test]
    fn where_nobody_is_heard_any_more_nobody_is_there() {
        let dime = r#""reserved_usd":"0.10","asked_usd":"0.00""#;
        let mut log = log(&[
            ("cap|acme|a", "1", 30, dime),
            ("heartbeat|a", "1", 30, SHARE),
        ]);
        assert!(log.seems_silent(NOW) && !log.has_silent_shares());
        assert_eq!(
            bound(&sums(&log), "cap|acme"),
            0,
            "its clock may be another"
        );
        log.is_silent = true;
        assert!(log.has_silent_shares());
        assert_eq!(bound(&sums(&log), "cap|acme"), 10 * CENT);
        log.is_silent = false;
        log.take(0, NOW.0, Some(b"heartbeat|a"), Some(BEAT.as_bytes()));
        assert!(!log.seems_silent(NOW));
    }

    const BEAT: &str =
        r#"{"v":1,"incarnation":"1","n":9,"at":"2026-11-22T10:15:30Z","share_ppm":250000}"#;
}
