//! Events without a row: duplicates, in the DLQ, on the way to their home, or missing.

use std::collections::HashMap;

use spendfuse_bus::InputRecord;
use spendfuse_domain::UnixMillis;
use spendfuse_engine::audit::{Difference, Kind, Site, Tally};
use spendfuse_warehouse::EventKey;

use super::{Place, Reading};
use crate::error::AuditError;

const PARTITION: &str = "spendfuse_partition";
const OFFSET: &str = "spendfuse_offset";
const ARRIVED_PARTITION: &str = "spendfuse_arrived_partition";
const ARRIVED_OFFSET: &str = "spendfuse_arrived_offset";

/// Clocks of brokers differ: what a stage wrote later may bear an earlier stamp, where another broker
/// leads that topic, or where the clock was set back. Milliseconds.
const CLOCKS_APART: i64 = 60 * 60 * 1000;

/// An event that has no row.
pub(super) struct WithoutRow {
    pub(super) place: Place,
    pub(super) at: UnixMillis,
    /// Its home, and the commit of the row before it there.
    pub(super) site: (u32, u64),
    pub(super) tally: Tally,
    pub(super) key: Option<EventKey>,
}

impl Reading<'_> {
    /// Leaves out events whose identity the warehouse knows from another record.
    pub(super) fn leave_out_duplicates(
        &mut self,
        events: &mut Vec<WithoutRow>,
    ) -> Result<(), AuditError> {
        let keys: Vec<EventKey> = events.iter().filter_map(|one| one.key.clone()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let context = self.context;
        let known = context.wait(context.warehouse.contains_events(&keys))?;
        let before = events.len();
        events.retain(|one| one.key.as_ref().is_none_or(|key| !known.contains(key)));
        self.sums.duplicates += (before - events.len()) as u64;
        Ok(())
    }

    /// Looks for what has no row in the DLQ and on the way to its home partition; the rest is
    /// missing.
    pub(super) fn explain(&mut self) -> Result<(), AuditError> {
        let mut events: HashMap<Place, WithoutRow> = self
            .unexplained
            .drain(..)
            .map(|event| (event.place, event))
            .collect();
        if events.is_empty() {
            return Ok(());
        }
        let since = written_since(events.values());
        let topics = &self.context.topics;
        let rejected = &mut self.sums.rejected;
        self.context.read_since(&topics.dlq, since, |record| {
            let place = place_in(record, PARTITION, OFFSET);
            if place.is_some_and(|place| events.remove(&place).is_some()) {
                *rejected += 1;
            }
        })?;
        let mut not_at_home = events.values();
        if not_at_home.any(|event| event.site.0 != event.place.0) {
            self.leave_out_on_the_way(&mut events, since)?;
        }
        for (place, event) in events {
            if self.is_loader_behind {
                self.waiting_for_loader += 1;
                self.on_the_way.insert(place);
                continue;
            }
            let id = event.key.map_or_else(
                || "a record that is no event".to_owned(),
                |key| format!("event {} of {}", key.id, key.source),
            );
            let difference = Difference {
                kind: Kind::NotCounted,
                site: Site::Meter(event.site.0),
                seq: Some(event.site.1),
                expected: event.tally,
                found: Tally::default(),
                detail: format!(
                    "{id} at usage {}@{}, after commit {}: no row, no duplicate, not in the DLQ",
                    place.0, place.1, event.site.1
                ),
            };
            self.differences.push((place, difference));
        }
        Ok(())
    }

    /// Events that were handed over, and that their home partition has not processed yet.
    fn leave_out_on_the_way(
        &mut self,
        events: &mut HashMap<Place, WithoutRow>,
        since: Option<i64>,
    ) -> Result<(), AuditError> {
        let rerouted = &self.context.topics.rerouted;
        let processed = self.context.processed(rerouted)?;
        let on_the_way = &mut self.on_the_way;
        self.context.read_since(rerouted, since, |record| {
            let Some(place) = place_in(record, ARRIVED_PARTITION, ARRIVED_OFFSET) else {
                return;
            };
            let next = processed.get(record.partition as usize).copied().flatten();
            if record.offset >= next.unwrap_or(0) && events.remove(&place).is_some() {
                on_the_way.insert(place);
            }
        })
    }
}

/// From when on topics say what became of these events.
fn written_since<'e>(events: impl Iterator<Item = &'e WithoutRow>) -> Option<i64> {
    let first = events.map(|event| event.at.0).min();
    first.map(|at| at - CLOCKS_APART)
}

fn place_in(record: &InputRecord<'_>, partition: &str, offset: &str) -> Option<Place> {
    let text = |name: &str| std::str::from_utf8(record.headers.get(name)?).ok();
    Some((text(partition)?.parse().ok()?, text(offset)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The usage topic's broker is two seconds ahead of the one that leads the DLQ.
    #[test]
    fn what_a_broker_with_a_slower_clock_has_stamped_is_read() {
        let event = |at| WithoutRow {
            place: (0, 0),
            at: UnixMillis(at),
            site: (0, 0),
            tally: Tally::default(),
            key: None,
        };
        let (taken, set_aside) = (1_795_341_602_000, 1_795_341_600_050);
        let since = written_since([event(taken + 1), event(taken)].iter());
        assert!(since.is_some_and(|since| since <= set_aside), "{since:?}");
        assert_eq!(written_since([].iter()), None);
    }
}
