//! Admission near a limit, among all who admit: what may be held of a budget without asking, and
//! what only by the log. No I/O and no clock; `docs/formats/inflight.md` has the records.
//!
//! Every holder (a sidecar since one start) says what it holds in topic `spendfuse.inflight`. All
//! that decides about a key `{budget}|{scope}` lies in one partition, the lives of the holders
//! included, so that the order of the log decides, and every reader of the same records knows the
//! same ([`log`]). A [`Desk`] is a holder's side of one partition. For each key a holder may hold
//! without asking again
//! - its **share** of the limit, where nobody has told anything of the key: half of the limit is
//!   shared out, by heartbeats. A newcomer has no share until the others have lowered theirs;
//! - else what it told last: what it held, and what it asked for and got.
//!
//! It asks by a record, reads it back, and gets what fits behind what stands before it in the log:
//! the limit, less what is spent, less what each other live holder told before, or holds as it has
//! told since. Who asked for something before, or may hold a share of which it told nothing, answers
//! first.
//!
//! Why what is admitted never passes the limit: an admission is judged by a place in the log. Take
//! the judgement with the last place. Every other holder has at most what that judgement counted for
//! it, since whatever it was given later would have been judged later. Three rules make "has" exact:
//! - what is held leaves a holder's sum only once an entry of the blocklist shows it as spent, and
//!   records say which entries their holder had read ([`Seen`]); nobody judges with fewer;
//! - what was held when a record was sent and what was admitted since are, together, within what the
//!   record says. Holding again what has been spent meanwhile needs another record first;
//! - who does not hear itself in the log admits nothing, some seconds before others drop it.

mod answering;
mod desk;
mod facts;
mod log;
#[cfg(test)]
mod modelled;
mod own;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use desk::{Decided, Desk, Way, Weighed};
pub use facts::Facts;

/// `{budget}|{scope}`.
pub type Key = Arc<str>;

/// A sidecar since one start: its name and 64 random bits.
pub type Holder = Arc<str>;

/// Per partition of the blocklist, the offset of the last record that was read.
pub type Seen = BTreeMap<u32, i64>;

/// What a holder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who.
    pub holder: Holder,
    /// Counts what it says in a partition; what was said twice counts once.
    pub number: u64,
    /// Which entries it had read.
    pub seen: Seen,
    /// What.
    pub what: What,
}

/// Of what a holder speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is there, and holds at most this part of a limit, in millionths, of what it tells nothing
    /// of.
    Beat {
        /// Millionths of each limit.
        share: u32,
    },
    /// What it holds of a key, in the unit of the limit, and asks for besides.
    Held {
        /// Of which budget and scope.
        key: Key,
        /// Calls under way, and costs that the entries it has read do not show.
        held: i64,
        /// What it asks for.
        asked: i64,
    },
}

/// All that is shared out for admission without asking, millionths of each limit.
const SHARED_OUT: u32 = 500_000;
/// Heartbeats are sent this often, milliseconds, and this often where nothing is held.
const BEAT_EVERY: i64 = 1_000;
const IDLE_BEAT_EVERY: i64 = 4_000;
/// A holder that is not heard for this long, by the log's time, is dropped, milliseconds.
const DROPPED_AFTER: i64 = 15_000;
/// Where anybody lives, somebody is heard this often at least, milliseconds.
const SILENT_AT_MOST: i64 = 10_000;
/// After a longer pause each of them is heard within this, milliseconds.
const SPEAKS_WITHIN: i64 = 5_000;
/// It admits nothing this long after it sent the last heartbeat that it heard, milliseconds.
const MUTE_AFTER: i64 = 10_000;
/// What was asked for and is not heard for this long, while heartbeats are, is refused, milliseconds.
const LOST_AFTER: i64 = 3_000;
/// A key of which nobody speaks for this long is one of which nothing was told, milliseconds.
const FORGOTTEN_AFTER: i64 = 600_000;
/// What is held is told again before, milliseconds.
const TOLD_AGAIN_AFTER: i64 = 120_000;

/// Millionths of a limit.
fn part(limit: i64, millionths: u32) -> i64 {
    let part = i128::from(limit) * i128::from(millionths) / 1_000_000;
    i64::try_from(part).unwrap_or(i64::MAX)
}

/// Whether a tenth of a limit is left for certain, where so much is spent, and no more than `most` held.
fn is_far(spent: i64, most: i64, limit: i64) -> bool {
    limit - limit / 10 - spent >= most
}

/// Whether everything in `these` is in `those`.
pub fn is_behind(these: &Seen, those: &Seen) -> bool {
    these.iter().all(|(partition, offset)| {
        let known = those.get(partition);
        known.is_some_and(|known| known >= offset)
    })
}
