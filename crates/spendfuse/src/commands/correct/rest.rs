//! Whether a call may still grow. What is corrected does not: what is told of it later is a conflict, and
//! is never counted. So whoever corrects waits until a call is at rest.
//!
//! Silence is judged by what the warehouse has, so it says something only up to where the meters have
//! read: what waits in the usage topic for a processor that is behind may tell more of the call.

use std::cell::Cell;

use spendfuse_domain::UnixMillis;

use super::Failure;
use super::entry::Entry;
use super::ingest::Mark;
use crate::settings::Settings;

/// A call is at rest once it was not heard of for so long.
const AT_REST_MILLIS: i64 = 5_000;
/// The same of one that has grown already.
const GROWN_AT_REST_MILLIS: i64 = 20_000;
/// Marks that are looked at together: one from before, and one of now, which is reached at once where
/// nobody is behind.
const MARKS: usize = 2;

impl Entry {
    /// For how long it must not have been heard of, milliseconds.
    pub fn rest_millis(&self) -> i64 {
        match self.has_grown() {
            true => GROWN_AT_REST_MILLIS,
            false => AT_REST_MILLIS,
        }
    }

    /// Whether it does not grow any more, where everything is loaded that arrived before `heard_to`, by
    /// the brokers' clock: it was not heard of for long enough, or was corrected before.
    pub fn is_at_rest(&self, heard_to: UnixMillis) -> bool {
        let silent_millis = heard_to.since(self.last_received_at());
        !self.corrections.is_empty() || silent_millis >= self.rest_millis()
    }
}

/// For how long a call was not heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Long enough to be at rest.
    Long,
    /// It may still grow.
    Short,
    /// Long enough, but for what is not loaded yet.
    Unheard,
}

impl Silence {
    /// That since `last`, where a call is at rest after `rest_millis`, by all that arrived before
    /// `heard_to`, at `now`.
    pub fn since(
        last: UnixMillis,
        rest_millis: i64,
        (heard_to, now): (UnixMillis, UnixMillis),
    ) -> Self {
        match (heard_to.since(last), now.since(last)) {
            (heard, _) if heard >= rest_millis => Self::Long,
            (_, until_now) if until_now >= rest_millis => Self::Unheard,
            _ => Self::Short,
        }
    }
}

/// Tells the first text alone.
pub fn once(tell: impl Fn(String)) -> impl Fn(String) {
    let is_told = Cell::new(false);
    move |text| {
        if !is_told.replace(true) {
            tell(text);
        }
    }
}

/// Waits until everything that was told before now is counted and loaded; returns the time of now, by
/// the brokers' clock. `tell` is given what is waited for, again and again.
pub fn wait_until_heard(settings: &Settings, tell: impl Fn(String)) -> Result<UnixMillis, Failure> {
    let mut mark = Mark::now(settings)?;
    mark.wait(tell)?;
    Ok(mark.made_at())
}

/// The same for who does not wait.
#[derive(Default)]
pub struct Heard<'s> {
    to: UnixMillis,
    /// The next time that is waited for.
    next: Option<Mark<'s>>,
}

impl<'s> Heard<'s> {
    /// Up to which time everything that arrived is known to be loaded.
    pub fn to(&mut self, settings: &'s Settings) -> Result<UnixMillis, Failure> {
        for _ in 0..MARKS {
            let mut next = match self.next.take() {
                Some(next) => next,
                None => Mark::now(settings)?,
            };
            if !next.is_reached()? {
                self.next = Some(next);
                break;
            }
            self.to = self.to.max(next.made_at());
        }
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_is_behind_is_not_taken_for_a_call_that_grows() {
        let silence = |heard_to: i64, now: i64| {
            let times = (UnixMillis(heard_to), UnixMillis(now));
            Silence::since(UnixMillis(1_000_000), AT_REST_MILLIS, times)
        };
        assert_eq!(silence(1_005_000, 1_005_000), Silence::Long);
        assert_eq!(silence(1_004_000, 1_004_000), Silence::Short);
        // The loader has an hour to go, or nothing was heard at all yet.
        assert_eq!(silence(1_004_000, 4_600_000), Silence::Unheard);
        assert_eq!(silence(0, 4_600_000), Silence::Unheard);
    }
}
