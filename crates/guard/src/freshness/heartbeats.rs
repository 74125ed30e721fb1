//! The heartbeats of all partitions, and up to when they make everything complete together.

use std::collections::VecDeque;

use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::{Heartbeat, Stage};

use super::{Complete, CountedTo, Freshness};

/// One heartbeat of a meter partition.
#[derive(Clone, Copy, Debug)]
struct MeterBeat {
    logged_at: UnixMillis,
    /// Number of the meter's commit.
    version: u64,
    /// Events of its usage partition before this offset are counted.
    usage_offset: Option<i64>,
    complete: Complete,
}

/// More beats than this wait for a ledger or another meter only while it stands still, or where a
/// log of hours is read again.
const MAX_BEATS: usize = 256;

/// The heartbeats of all partitions.
pub(crate) struct Heartbeats {
    /// Per meter partition: the last beat that may be taken at its word, and all later ones.
    meters: Vec<VecDeque<MeterBeat>>,
    ledgers: Vec<Option<UnixMillis>>,
    /// The latest that is known: what was complete once stays so, whatever beats are forgotten.
    complete: Option<Complete>,
}

impl Heartbeats {
    pub(crate) fn new(partitions: u32) -> Self {
        Self {
            meters: vec![VecDeque::new(); partitions as usize],
            ledgers: vec![None; partitions as usize],
            complete: None,
        }
    }

    /// So many heartbeats of each stage make a whole from now on.
    pub(crate) fn expect(&mut self, partitions: u32) {
        self.meters.resize(partitions as usize, VecDeque::new());
        self.ledgers.resize(partitions as usize, None);
    }

    pub(crate) fn partitions(&self) -> usize {
        self.meters.len()
    }

    /// Takes a heartbeat that was logged at `logged_at` and then waited `transit_millis` for the
    /// guard, as far as known. Returns whether the partition exists.
    pub(crate) fn beat(
        &mut self,
        stage: Stage,
        partition: u32,
        heartbeat: &Heartbeat,
        logged_at: UnixMillis,
        transit_millis: i64,
        monotonic_millis: i64,
    ) -> bool {
        let index = partition as usize;
        if index >= self.meters.len() {
            return false;
        }
        // A log that is read again begins with heartbeats from before.
        if stage == Stage::Ledger {
            self.ledgers[index] = self.ledgers[index].max(Some(heartbeat.complete_to));
            return true;
        }
        let lag = i64::try_from(heartbeat.lag_ms).unwrap_or(i64::MAX);
        let beats = &mut self.meters[index];
        let version = heartbeat.version;
        let is_later = |last: &MeterBeat| last.logged_at >= logged_at;
        if beats
            .back()
            .is_some_and(|last| is_later(last) && last.version >= version)
        {
            return true;
        }
        // Logged behind it and stamped before it: that stamp was of a clock that had jumped.
        while beats.back().is_some_and(is_later) {
            beats.pop_back();
        }
        // What stood still will pass the newest when it goes on.
        if beats.len() >= MAX_BEATS {
            beats.pop_front();
        }
        beats.push_back(MeterBeat {
            logged_at,
            version,
            usage_offset: heartbeat.usage_offset,
            complete: Complete {
                to: heartbeat.complete_to,
                monotonic_millis: monotonic_millis
                    .saturating_sub(lag)
                    .saturating_sub(transit_millis),
            },
        });
        true
    }

    /// Per meter partition, what every ledger has of it.
    pub(crate) fn counted_to(&self) -> impl Iterator<Item = CountedTo> {
        let applied_to = oldest(self.ledgers.iter().copied(), UnixMillis::min);
        let partitions = (0_u32..).zip(&self.meters);
        partitions.filter_map(move |(partition, beats)| {
            let last = last_beat_before(beats, applied_to?)?;
            Some(CountedTo {
                partition,
                seq: last.version,
                usage_offset: last.usage_offset,
            })
        })
    }

    /// Where the replica stands; forgets beats that no longer matter.
    pub(crate) fn freshness(&mut self, caught_up: bool) -> Freshness {
        let known = self
            .complete
            .filter(|_| !is_broken(Break::HeartbeatBegunAnew));
        self.complete = match (self.judged(), known) {
            (Some(judged), Some(known)) => Some(judged.max(known)),
            (judged, known) => judged.or(known),
        };
        Freshness {
            caught_up,
            complete: self.complete,
        }
    }

    fn judged(&mut self) -> Option<Complete> {
        let applied_to = oldest(self.ledgers.iter().copied(), UnixMillis::min)?;
        // What every meter has counted of what was handed over to it, ledgers included.
        let counted = self
            .meters
            .iter()
            .map(|beats| last_before(beats, applied_to));
        let counted_to = oldest(counted, Complete::min)?.to;
        for beats in &mut self.meters {
            while beats.get(1).is_some_and(|next| next.logged_at < counted_to) {
                beats.pop_front();
            }
        }
        let held = self
            .meters
            .iter()
            .map(|beats| last_before(beats, counted_to));
        oldest(held, Complete::min)
    }
}

/// What the last beat that was logged before `time` says; those behind the first are in its order.
fn last_before(beats: &VecDeque<MeterBeat>, time: UnixMillis) -> Option<Complete> {
    last_beat_before(beats, time).map(|last| last.complete)
}

fn last_beat_before(beats: &VecDeque<MeterBeat>, time: UnixMillis) -> Option<&MeterBeat> {
    let count = beats.partition_point(|beat| beat.logged_at < time);
    beats.get(count.checked_sub(1)?)
}

/// The least of all, `None` where one is missing.
fn oldest<T>(all: impl Iterator<Item = Option<T>>, least: impl Fn(T, T) -> T) -> Option<T> {
    all.reduce(|one, other| Some(least(one?, other?))).flatten()
}
