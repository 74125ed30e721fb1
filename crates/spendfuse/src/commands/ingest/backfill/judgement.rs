//! What the warehouse knows of the events that were counted, and what this run has sent since.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use spendfuse_domain::{Identity, UnixMillis};

use super::super::super::output;
use super::super::Failure;
use super::super::loaded::Mark;
use super::super::send::Sending;
use super::super::sent_lately::SentLately;
use crate::settings::Settings;

/// Events that were sent and may not be loaded, about 16 bytes each.
const MOST_UNLOADED: usize = 4_000_000;
/// The meter must remember for so long, and not much longer.
const OLDEST_JUDGEMENT_MILLIS: i64 = 5 * 60_000;
/// What the warehouse has by now is asked for so often: it takes three clients of Kafka.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What the warehouse knows at the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AsOf {
    /// It has everything that was counted before.
    pub(super) since: UnixMillis,
    /// How often that has changed: brokers' time may say the same twice.
    pub(super) changes: u64,
}

impl AsOf {
    /// Whether a piece that was asked about then is to be asked about again `now`: the meter would have
    /// to remember for so much longer, and what it does not it sets aside.
    fn is_outdated(self, now: Self) -> bool {
        now.since.since(self.since) > OLDEST_JUDGEMENT_MILLIS
    }
}

/// What judging tells asking, and asking judging.
#[derive(Debug, Default)]
pub(super) struct Told {
    as_of: Mutex<AsOf>,
    is_asked: AtomicBool,
}

impl Told {
    pub(super) fn as_of(&self) -> AsOf {
        *self.as_of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the warehouse is asked about events.
    pub(super) fn note_asked(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
    }

    fn change(&self, since: UnixMillis) {
        let mut as_of = self.as_of.lock().unwrap_or_else(PoisonError::into_inner);
        *as_of = AsOf {
            since,
            changes: as_of.changes + 1,
        };
    }
}

/// What the warehouse knows, and what else was sent.
pub(super) struct Judgement<'s> {
    settings: &'s Settings,
    pub(super) told: Arc<Told>,
    /// What the warehouse will have next.
    next: Mark<'s>,
    /// When that was last asked for.
    asked: Instant,
    sent: Sent,
    pub(super) lately: SentLately,
}

impl<'s> Judgement<'s> {
    pub(super) fn begin(settings: &'s Settings, progress: &ProgressBar) -> Result<Self, Failure> {
        let mut first = Mark::now(settings)?;
        first.wait(|text| progress.set_message(text))?;
        let told = Arc::new(Told::default());
        told.change(first.at);
        Ok(Self {
            settings,
            told,
            next: Mark::now(settings)?,
            asked: Instant::now(),
            sent: Sent::default(),
            lately: SentLately::default(),
        })
    }

    /// The warehouse was asked about a piece when it knew as much as `as_of` says, and about those that
    /// follow no earlier.
    pub(super) fn begin_piece(&mut self, as_of: AsOf) {
        if as_of == self.told.as_of() {
            self.sent.forget_loaded();
        }
    }

    pub(super) fn has_sent(&self, identity: Identity) -> bool {
        self.sent.holds(identity)
    }

    pub(super) fn note_sent(&mut self, identity: Identity) {
        self.sent.after_next.insert(identity);
    }

    /// Whether the warehouse must have more before anything else is judged.
    fn must_wait(&self) -> bool {
        let age_millis = output::now().since(self.told.as_of().since);
        self.sent.unloaded() >= MOST_UNLOADED || age_millis > OLDEST_JUDGEMENT_MILLIS
    }

    /// Whether a piece that was asked about as of `as_of` is to be asked about again, because the input
    /// or this run has stood still since.
    pub(super) fn is_outdated(
        &mut self,
        as_of: AsOf,
        sending: &Sending<'_>,
        progress: &ProgressBar,
    ) -> Result<bool, Failure> {
        if as_of == self.told.as_of() {
            // The next mark may be as old; the one after it is of now.
            for _ in 0..2 {
                if self.must_wait() {
                    self.go_on(sending, progress)?;
                }
            }
        }
        Ok(as_of.is_outdated(self.told.as_of()))
    }

    /// Takes note of what the warehouse has by now.
    pub(super) fn go_on(
        &mut self,
        sending: &Sending<'_>,
        progress: &ProgressBar,
    ) -> Result<(), Failure> {
        let must_wait = self.must_wait();
        // Of sources that it does not know it is not asked, until it has rows of this run: it is told
        // of them as late as may be.
        let is_asked = self.told.is_asked.load(Ordering::Relaxed);
        if !must_wait && (!is_asked || self.asked.elapsed() < ASK_EVERY) {
            return Ok(());
        }
        self.asked = Instant::now();
        if must_wait {
            self.next.wait(|text| progress.set_message(text))?;
        } else if !self.next.is_reached()? {
            return Ok(());
        }
        // The next mark holds for what has arrived.
        sending.wait_for_all()?;
        self.sent.advance();
        self.told.change(self.next.at);
        self.next = Mark::now(self.settings)?;
        Ok(())
    }
}

/// What this run has sent, as far as the warehouse may not know it when it is asked.
#[derive(Debug, Default)]
struct Sent {
    /// Loaded, but events that the warehouse was asked about before that are not judged yet.
    loaded: HashSet<Identity>,
    /// Since then: before and after the next mark was made.
    before_next: HashSet<Identity>,
    after_next: HashSet<Identity>,
}

impl Sent {
    fn holds(&self, identity: Identity) -> bool {
        let mut all = [&self.loaded, &self.before_next, &self.after_next].into_iter();
        all.any(|some| some.contains(&identity))
    }

    fn unloaded(&self) -> usize {
        self.before_next.len() + self.after_next.len()
    }

    /// The next mark is reached, and another one is made.
    fn advance(&mut self) {
        let loaded = std::mem::take(&mut self.before_next);
        match self.loaded.is_empty() {
            true => self.loaded = loaded,
            false => self.loaded.extend(loaded),
        }
        self.before_next = std::mem::take(&mut self.after_next);
    }

    fn forget_loaded(&mut self) {
        self.loaded = HashSet::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_has_waited_for_the_loader_is_asked_about_again() {
        let at = |minute: i64, changes| AsOf {
            since: UnixMillis(minute * 60_000),
            changes,
        };
        let asked = at(100, 1);
        assert!(!asked.is_outdated(asked));
        assert!(!asked.is_outdated(at(105, 2)));
        assert!(asked.is_outdated(at(106, 2)));
    }

    #[test]
    fn what_was_sent_is_known_until_the_warehouse_was_asked_after_it_was_loaded() {
        let mut sent = Sent::default();
        let [first, second] = [1, 2].map(Identity);
        sent.after_next.insert(first);
        sent.advance();
        sent.after_next.insert(second);
        // The mark that was made after the first one was sent is reached.
        sent.advance();
        assert_eq!(sent.unloaded(), 1);
        assert!(
            sent.holds(first),
            "a question before that is not judged yet"
        );
        sent.advance();
        assert!(sent.holds(first) && sent.holds(second));
        sent.forget_loaded();
        assert!(!sent.holds(first) && !sent.holds(second));
    }
}
