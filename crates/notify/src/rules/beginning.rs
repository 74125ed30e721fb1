//! The first start: what lies in the log by then is old news.

use spendfuse_domain::UnixMillis;
use spendfuse_engine::alert::Alert;

use super::message::{Entry, Untold};
use super::{MINUTE, Notifier, Stored, lasting};
use crate::letter::What;

/// What was raised so long before a notifier first ran is not told.
const BEFORE_FIRST_START: i64 = 10 * MINUTE;

impl Notifier {
    /// Whether the partition has had a notifier that knew the time.
    pub fn has_begun(&self) -> bool {
        self.tells_from.is_some()
    }

    /// The latest time that is known to have come.
    pub fn last_time(&self) -> Option<UnixMillis> {
        let seen = self.alerts.values().map(|entry| entry.seen_at);
        seen.chain(self.tells_from).max()
    }

    /// The partition has never had a notifier, and the time is not known yet: nobody is told of anything
    /// before [`Self::begin_first`].
    pub fn await_beginning(&mut self) {
        self.awaits_beginning = true;
    }

    /// The partition has never had a notifier: what lies in the log is old news. What came while the time
    /// was not known and is none is told.
    pub fn begin_first(&mut self, now: UnixMillis) {
        self.awaits_beginning = false;
        self.tells_from = Some(now.plus(-BEFORE_FIRST_START));
        self.changed.insert(Stored::Beginning);
        let is_news = |entry: &Entry| {
            let is_over = lasting::lasts(&entry.alert) && !entry.is_open;
            entry.untold == Some(Untold::Old) && !is_over && !self.is_old_news(&entry.alert)
        };
        let keys = self.by_age.iter().map(|(_, key)| key);
        let news = keys.filter(|key| self.alerts.get(*key).is_some_and(is_news));
        let news: Vec<String> = news.cloned().collect();
        for key in news {
            self.tell_after_all(&key, now);
        }
    }

    pub(super) fn is_old_news(&self, alert: &Alert) -> bool {
        self.awaits_beginning || self.tells_from.is_some_and(|from| alert.at < from)
    }

    fn tell_after_all(&mut self, key: &str, now: UnixMillis) {
        let Some(alert) = self.alerts.get(key).map(|entry| entry.alert.clone()) else {
            return;
        };
        let untold = self.reason_not_to_tell(&alert, now);
        if let Some(entry) = self.alerts.get_mut(key) {
            entry.untold = untold;
        }
        self.changed.insert(Stored::Alert(key.to_owned()));
        if untold.is_none() {
            self.tell(key, What::New, now);
            self.plan_reminder(key, now);
            self.plan(key);
        }
    }
}
