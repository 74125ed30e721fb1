//! What people are told, an hour at a time: the first ten alerts of a kind one by one, then one
//! that counts the rest.
//!
//! Names come from outside, and whoever invents them must not decide how often somebody's phone
//! rings. The counts are part of a partition's state, so that none is lost with a process.

use minicbor::{Decode, Encode};
use spendfuse_domain::{Severity, UnixMillis};

use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::codec;

/// Alerts of a kind that are told one by one in an hour.
pub const TOLD_ONE_BY_ONE: u32 = 10;
/// The count of the others is told again when it has grown by this factor, and when the hour ends.
const GROWTH: u64 = 10;
const HOUR_MILLIS: i64 = 3_600_000;

/// The alerts of the running hour, by kind. It holds one count for each kind.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct AlertLimit {
    /// Start of the hour.
    #[n(0)]
    #[cbor(with = "codec::millis")]
    hour: UnixMillis,
    #[n(1)]
    counts: Vec<KindCount>,
    /// Counts of hours that ended within the running commit.
    #[cbor(skip)]
    ended: Vec<(UnixMillis, KindCount)>,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct KindCount {
    /// By its name: an older binary skips kinds that it does not know.
    #[n(0)]
    kind: String,
    #[n(1)]
    one_by_one: u32,
    /// All others.
    #[n(2)]
    more: u64,
    /// How many of these people know of.
    #[n(3)]
    told: u64,
    /// Whether one of these was critical.
    #[n(4)]
    is_critical: bool,
}

impl AlertLimit {
    /// The alert, where it is told by itself; else it is counted.
    pub fn admit(&mut self, alert: Alert) -> Option<Alert> {
        self.begin_hour_of(alert.at);
        let kind = alert.kind.name();
        let known = self.counts.iter().position(|count| count.kind == kind);
        let place = known.unwrap_or_else(|| {
            self.counts.push(KindCount {
                kind: kind.to_owned(),
                ..KindCount::default()
            });
            self.counts.len() - 1
        });
        let count = &mut self.counts[place];
        if count.one_by_one < TOLD_ONE_BY_ONE {
            count.one_by_one += 1;
            return Some(alert);
        }
        count.more += 1;
        count.is_critical |= alert.severity == Severity::Critical;
        None
    }

    /// The counts that people are told of now. `place` names who counts, since each partition
    /// counts its own: `meter partition 3`.
    pub fn counted(&mut self, now: UnixMillis, place: impl Fn() -> String) -> Vec<Alert> {
        self.begin_hour_of(now);
        let mut alerts = Vec::new();
        for (hour, count) in self.ended.drain(..) {
            alerts.extend(count.alert(hour, now, place()));
        }
        for count in &mut self.counts {
            if count.more > 0 && count.more >= count.told * GROWTH {
                alerts.extend(count.alert(self.hour, now, place()));
                count.told = count.more;
            }
        }
        alerts
    }

    /// Whether an hour has ended whose counts people do not know.
    pub fn is_due(&self, now: UnixMillis) -> bool {
        hour_of(now) > self.hour && self.counts.iter().any(|count| count.more > count.told)
    }

    fn begin_hour_of(&mut self, time: UnixMillis) {
        let hour = hour_of(time);
        if hour > self.hour {
            let unknown = self
                .counts
                .drain(..)
                .filter(|count| count.more > count.told);
            self.ended.extend(unknown.map(|count| (self.hour, count)));
            self.hour = hour;
        }
    }
}

impl KindCount {
    fn alert(&self, hour: UnixMillis, now: UnixMillis, place: String) -> Option<Alert> {
        let kind = AlertKind::named(&self.kind)?;
        let (more, name) = (self.more, kind.name());
        let noun = if more == 1 { "alert" } else { "alerts" };
        let begins = hour.timestamp();
        let message = format!(
            "{more} more {noun} of kind {name} in the hour from {begins} on {place}, besides the {TOLD_ONE_BY_ONE} that were told one by one"
        );
        Some(Alert {
            v: 1,
            key: format!("{name}|{begins}|{place}"),
            kind,
            severity: match self.is_critical {
                true => Severity::Critical,
                false => Severity::Warning,
            },
            scope: "*".to_owned(),
            subject: place,
            message,
            at: now,
            count: Some(more),
            details: AlertDetails::default(),
        })
    }
}

fn hour_of(time: UnixMillis) -> UnixMillis {
    UnixMillis(time.0.div_euclid(HOUR_MILLIS) * HOUR_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixMillis = UnixMillis(1_795_003_200_000);

    fn alert(number: u64, at: UnixMillis) -> Alert {
        Alert {
            v: 1,
            key: format!("k{number}"),
            kind: AlertKind::UnpricedModel,
            severity: Severity::Warning,
            scope: "acme".to_owned(),
            subject: format!("m{number}"),
            message: "a model".to_owned(),
            at,
            count: None,
            details: AlertDetails::default(),
        }
    }

    /// Tells `alerts` of one commit; what people get.
    fn commit(
        limit: &mut AlertLimit,
        alerts: impl Iterator<Item = Alert>,
        now: UnixMillis,
    ) -> Vec<Alert> {
        let mut told: Vec<Alert> = alerts.filter_map(|alert| limit.admit(alert)).collect();
        told.extend(limit.counted(now, || "meter partition 3".to_owned()));
        told
    }

    #[test]
    fn ten_are_told_one_by_one_and_the_rest_as_one_that_counts() {
        let mut limit = AlertLimit::default();
        let mut told = Vec::new();
        for batch in 0..1_000 {
            let numbers = batch * 100..(batch + 1) * 100;
            told.extend(commit(
                &mut limit,
                numbers.map(|number| alert(number, NOON)),
                NOON,
            ));
        }
        let counts: Vec<u64> = told.iter().filter_map(|alert| alert.count).collect();
        assert_eq!(told.len() - counts.len(), 10);
        assert_eq!(counts, [90, 990, 9_990, 99_990]);
        assert_eq!(
            told[10].key,
            "unpriced_model|2026-11-18T12:00:00Z|meter partition 3"
        );

        // The next hour ends this one and tells ten again.
        let later = NOON.plus(HOUR_MILLIS);
        assert!(!limit.is_due(later), "all is told");
        commit(&mut limit, std::iter::once(alert(0, NOON)), NOON);
        assert!(limit.is_due(later));
        let told = commit(&mut limit, (0..3).map(|number| alert(number, later)), later);
        let counts: Vec<Option<u64>> = told.iter().map(|alert| alert.count).collect();
        assert_eq!(counts, [None, None, None, Some(99_991)]);
        assert_eq!(
            told[3].key,
            "unpriced_model|2026-11-18T12:00:00Z|meter partition 3"
        );
    }

    #[test]
    fn the_count_goes_on_after_a_restart() {
        let mut limit = AlertLimit::default();
        commit(&mut limit, (0..50).map(|number| alert(number, NOON)), NOON);
        let mut restored: AlertLimit = codec::decode(&codec::encode(&limit)).unwrap();
        assert_eq!(restored, limit);
        let told = commit(
            &mut restored,
            (0..400).map(|number| alert(number, NOON)),
            NOON,
        );
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].count, Some(440));
    }
}
