//! What the warehouse knows of the events that were counted, and what this run has sent since.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use spendfuse_domain::{Identity, UnixMillis};

use super::super::super::output;
use super::super::loaded::Mark;
use super::super::sent_lately::SentLately;
use super::super::{Failure, InputLines};
use crate::settings::Settings;

/// Events that were sent and may not be loaded, about 16 bytes each.
const MOST_UNLOADED: usize = 4_000_000;
/// The meter must remember for so long, and not much longer.
const OLDEST_JUDGEMENT_MILLIS: i64 = 5 * 60_000;
/// What the warehouse has by now is asked for so often: it takes three clients of Kafka.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What the warehouse knows, and what else was sent.
pub(super) struct Judgement<'s> {
    settings: &'s Settings,
    /// The warehouse has everything that was counted before.
    pub(super) since: UnixMillis,
    /// What it will have next.
    next: Mark<'s>,
    /// When that was last asked for.
    asked: Instant,
    /// Sent since then, before and after the next mark.
    before_next: HashSet<Identity>,
    pub(super) after_next: HashSet<Identity>,
    pub(super) lately: SentLately,
}

impl<'s> Judgement<'s> {
    pub(super) fn begin(settings: &'s Settings, lines: &InputLines) -> Result<Self, Failure> {
        let mut first = Mark::now(settings)?;
        first.wait(|text| lines.progress.set_message(text))?;
        Ok(Self {
            settings,
            since: first.at,
            next: Mark::now(settings)?,
            asked: Instant::now(),
            before_next: HashSet::new(),
            after_next: HashSet::new(),
            lately: SentLately::default(),
        })
    }

    pub(super) fn has_sent(&self, identity: Identity) -> bool {
        self.before_next.contains(&identity) || self.after_next.contains(&identity)
    }

    /// Whether the warehouse must have more before anything else is judged.
    fn must_wait(&self) -> bool {
        let unloaded = self.before_next.len() + self.after_next.len();
        unloaded >= MOST_UNLOADED || output::now().since(self.since) > OLDEST_JUDGEMENT_MILLIS
    }

    /// Takes note of what the warehouse has by now. Everything that was sent is acknowledged.
    pub(super) fn go_on(&mut self, lines: &InputLines) -> Result<(), Failure> {
        let must_wait = self.must_wait();
        if !must_wait && self.asked.elapsed() < ASK_EVERY {
            return Ok(());
        }
        self.asked = Instant::now();
        if must_wait {
            self.next.wait(|text| lines.progress.set_message(text))?;
        } else if !self.next.is_reached()? {
            return Ok(());
        }
        self.since = self.next.at;
        self.before_next = std::mem::take(&mut self.after_next);
        self.next = Mark::now(self.settings)?;
        Ok(())
    }
}
