//! Whether a record's stamp can be right.
//!
//! Engine time never goes back, so that one stamp a day ahead would end every session and make
//! everything late for a day. Whoever drives the engine says with each commit what time it is as far
//! as a monotonic clock vouches for it. A stamp well ahead of that moves nothing: the record counts as
//! if it had come at engine time. A commit that is repeated may be judged by another present; nothing
//! of it was written the first time, and what is restored is engine time, never a stamp.

use spendfuse_domain::{Severity, UnixMillis};

use crate::alert::{Alert, AlertDetails, AlertKind};

/// A stamp may lie this far ahead of the present, milliseconds.
pub const MOST_AHEAD: i64 = 5 * 60_000;

/// Judges stamps by the present.
#[derive(Debug, Default)]
pub struct Stamps {
    /// `None` where nobody says what time it is: then stamps are believed.
    present: Option<UnixMillis>,
    /// Of the running commit, the last that was not believed.
    disbelieved: Option<UnixMillis>,
    /// The hour, since 1970, in which people were told last; after a restart they are told again,
    /// under the same key.
    told_in: i64,
}

impl Stamps {
    /// A commit begins at `present`.
    pub fn begin(&mut self, present: UnixMillis) {
        self.present = Some(present);
    }

    /// What to take for `stamp`, at engine time `now`.
    #[inline]
    pub fn believed(&mut self, stamp: UnixMillis, now: UnixMillis) -> UnixMillis {
        match self.present {
            Some(present) if is_ahead(stamp, present) => {
                self.disbelieved = Some(stamp);
                // A partition that has seen nothing yet has no time.
                if now > UnixMillis::default() {
                    now
                } else {
                    present
                }
            }
            _ => stamp,
        }
    }

    /// What people should be told, once an hour; `place` as in "meter partition 3".
    pub fn alert(&mut self, now: UnixMillis, place: impl Fn() -> String) -> Option<Alert> {
        let stamp = self.disbelieved.take()?;
        let hour = now.hour();
        if hour <= std::mem::replace(&mut self.told_in, hour) {
            return None;
        }
        let place = place();
        Some(Alert {
            v: 1,
            key: format!("clock|{hour}|{place}"),
            kind: AlertKind::Clock,
            severity: Severity::Critical,
            scope: "*".to_owned(),
            message: format!(
                "a broker stamped a record of {place} with {stamp}, though it is about {now}: no time passes for it, and the event counts as of now. A jump that lasts is believed after five minutes, which would end sessions and make events late; check the clocks (NTP) of the brokers"
            ),
            subject: place,
            at: now,
            count: None,
            details: AlertDetails::default(),
        })
    }
}

/// Whether a record stamped with `stamp` cannot have been logged before `present`.
pub fn is_ahead(stamp: UnixMillis, present: UnixMillis) -> bool {
    stamp.since(present) > MOST_AHEAD
}
