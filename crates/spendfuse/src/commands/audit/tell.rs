//! What `audit --watch` finds is told to people: once for each difference and hour.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_bus::BusError;
use spendfuse_bus::producer::{EventProducer, ProducerOptions};
use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};
use spendfuse_engine::audit::{Differences, Group, Site};

use super::super::output::{self, counted, dollars};
use crate::loader_alerts::publish;
use crate::settings::Settings;

/// Tells people of drift.
pub struct Teller {
    producer: EventProducer,
    topic: String,
    told: Told,
}

/// The keys of the running hour.
#[derive(Default)]
struct Told {
    hour: i64,
    keys: BTreeSet<String>,
}

impl Teller {
    /// Tells in the alerts topic.
    ///
    /// # Errors
    /// Those of a client that cannot be made.
    pub fn new(settings: &Settings) -> Result<Self, BusError> {
        Ok(Self {
            producer: EventProducer::open(&settings.kafka(), &ProducerOptions::default())?,
            topic: settings.topics().alerts,
            told: Told::default(),
        })
    }

    /// Tells what is new in what is `found`.
    pub fn tell(&mut self, found: &Differences) {
        for alert in self.told.news(found, output::now()) {
            publish(&self.producer, &self.topic, &alert);
        }
    }
}

impl Told {
    /// One alert for each kind of difference that was not told in this hour.
    fn news(&mut self, found: &Differences, now: UnixMillis) -> Vec<Alert> {
        let hour = now.hour();
        if hour != self.hour {
            self.keys.clear();
            self.hour = hour;
        }
        let mut kinds: BTreeMap<&str, Vec<(&Site, &Group)>> = BTreeMap::new();
        for (kind, site, group) in found.groups() {
            kinds.entry(kind.name()).or_default().push((site, group));
        }
        let alerts = kinds.into_iter().filter_map(|(kind, groups)| {
            let key = format!("drift|{hour}|{kind}");
            let is_new = self.keys.insert(key.clone());
            is_new.then(|| alert(key, kind, &groups, now))
        });
        alerts.collect()
    }
}

fn alert(key: String, kind: &str, groups: &[(&Site, &Group)], now: UnixMillis) -> Alert {
    let count = groups.iter().map(|(_, group)| group.count).sum();
    let drift = groups.iter().map(|(_, group)| group.drift).sum();
    let mut message = format!(
        "the audit finds drift, {kind}: {} over {}",
        counted(count, "difference"),
        dollars(drift)
    );
    if let Some((site, group)) = groups.first() {
        let commit = group.from_seq.map(|seq| format!(" from commit {seq}"));
        let example = group
            .examples
            .first()
            .map(|example| format!(" ({example})"));
        message.push_str(&format!(
            ", the first at {}{}{}",
            site.text(),
            commit.unwrap_or_default(),
            example.unwrap_or_default()
        ));
    }
    Alert {
        v: 1,
        key,
        kind: AlertKind::Drift,
        severity: Severity::Critical,
        scope: "*".to_owned(),
        subject: kind.to_owned(),
        message,
        at: now,
        count: None,
        details: AlertDetails::default(),
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_engine::audit::{Difference, Kind, Tally};

    use super::*;

    #[test]
    fn each_difference_is_told_once_an_hour_with_its_first_place() {
        let difference = |kind, partition| Difference {
            kind,
            site: Site::Meter(partition),
            seq: Some(7),
            expected: Tally::default(),
            found: Tally::default(),
            detail: "r-1 of app".to_owned(),
        };
        let mut found = Differences::default();
        let noon = UnixMillis(1_795_348_800_000);
        let mut told = Told::default();
        assert_eq!(told.news(&found, noon), []);
        found.push(difference(Kind::NotCounted, 3));
        found.push(difference(Kind::NotCounted, 1));
        let news = told.news(&found, noon);
        assert_eq!(news.len(), 1);
        assert_eq!(
            news[0].message,
            "the audit finds drift, not_counted: 2 differences over $0.00, the first at meter 1 from commit 7 (r-1 of app)"
        );
        found.push(difference(Kind::CountedTwice, 1));
        assert_eq!(told.news(&found, noon).len(), 1, "the other one");
        assert_eq!(told.news(&found, noon.plus(3_600_000)).len(), 2);
    }
}
