//! Calls that a job changes, and that may still grow: once corrected they do not, and what is told of
//! them later would never be counted. They are looked at again when they are at rest, for a while.

use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use spendfuse_domain::UnixMillis;

use super::super::Failure;
use super::super::correct::rest::wait_until_heard;
use super::super::ingest::Mark;
use super::super::output::grouped;
use super::judge::{Judged, Rerated, Why};
use super::scan::Position;
use super::tally::Tally;
use crate::settings::Settings;

/// Calls that are put aside, at most; more stay as they are.
const MOST: usize = 1_000_000;
/// How long is waited for them, after all others are done.
const RESTS_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(5);

/// What is put aside.
#[derive(Default)]
pub struct Later {
    calls: Vec<Position>,
    /// Those that found no room.
    left_out: u64,
    /// Since when others are waited for.
    since: Option<Instant>,
}

impl Later {
    /// What changes now: `add` counts what became of an entry. What may still grow, where everything is
    /// known that arrived before `heard_to`, is put aside; without a time nothing is.
    pub fn sift(
        &mut self,
        judged: impl Iterator<Item = Judged>,
        heard_to: Option<UnixMillis>,
        mut add: impl FnMut(Judged) -> Option<Rerated>,
    ) -> Vec<Rerated> {
        let mut changes = Vec::new();
        for judged in judged {
            match judged {
                Judged::Change(one) if heard_to.is_some_and(|to| !one.entry.is_at_rest(to)) => {
                    self.put_aside(&one);
                }
                judged => changes.extend(add(judged)),
            }
        }
        changes
    }

    fn put_aside(&mut self, one: &Rerated) {
        if self.calls.len() >= MOST {
            self.left_out += 1;
            return;
        }
        let place = one.entry.place;
        self.calls.push([
            one.before.event.time.0,
            place.partition.into(),
            place.seq as i64,
            place.index.into(),
        ]);
    }

    /// How many are put aside.
    pub fn count(&self) -> u64 {
        self.calls.len() as u64
    }

    /// Waits a while; what was put aside is then to be looked at again, with all that arrived before that
    /// time. `None` where nothing is, or it has taken too long.
    pub fn wait(
        &mut self,
        settings: &Settings,
        progress: &ProgressBar,
    ) -> Result<Option<(Vec<Position>, UnixMillis)>, Failure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.calls.is_empty() || since.elapsed() >= RESTS_WITHIN {
            return Ok(None);
        }
        let calls = grouped(self.count());
        progress.set_message(format!("{calls} may still grow, and are waited for"));
        thread::park_timeout(AGAIN);
        let heard_to = wait_until_heard(settings, |text| progress.set_message(text))?;
        let mut mark = Mark::of_corrections(settings)?;
        mark.wait(|text| progress.set_message(text))?;
        Ok(Some((std::mem::take(&mut self.calls), heard_to)))
    }

    /// What is still put aside stays as it is.
    pub fn leave_out(self, tally: &mut Tally) {
        tally.leave_out(Why::Growing, self.count() + self.left_out);
    }
}
