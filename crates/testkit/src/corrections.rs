//! Makes corrections, as `spendfuse correct` does: from what the warehouse knows of an entry.

use std::collections::BTreeMap;

use spendfuse_domain::row::{CostParts, MeterAddress, PriceBasis};
use spendfuse_domain::{Body, Event, Identity, Nanos, UnixMillis};
use xxhash_rust::xxh3::xxh3_64;

use crate::scenario::{Known, LogEvent, Scenario, Wanted};

/// What stands for an entry.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Stands {
    pub event: Event<'static>,
    pub cost: CostParts,
    pub priced: PriceBasis,
}

impl Stands {
    fn of(one: &LogEvent) -> Self {
        Self {
            event: one.event.clone(),
            cost: one.cost,
            priced: one.priced,
        }
    }

    fn changed(&self, what: Wanted) -> Self {
        let mut after = self.clone();
        match (what, &mut after.event.body) {
            (Wanted::Usage { output, cost }, Body::Usage(call)) => {
                call.tokens.output = output;
                after.cost.output = Nanos::new(cost);
            }
            (Wanted::Customer(name), _) => after.event.attribution.customer = name.into(),
            (Wanted::Rate { cost, priced }, _) => {
                after.cost.output = Nanos::new(cost);
                after.priced = priced;
            }
            _ => {}
        }
        after
    }
}

/// A correction that was made.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Made {
    /// Place in the log of the event whose entry it corrects.
    pub of: usize,
    /// Place of the event that stands for it, but for corrections.
    pub stands: usize,
    pub address: MeterAddress,
    /// Version of the budgets that the entry was counted with.
    pub counted_with: u64,
    pub identity: Identity,
    pub content: u32,
    pub judged_at: UnixMillis,
    pub is_rerate: bool,
    pub before: Option<Stands>,
    pub after: Option<Stands>,
}

#[derive(Clone, Debug)]
struct Entry {
    address: MeterAddress,
    counted_with: u64,
    /// Place in the log of the event that stands for it, but for corrections.
    stands: usize,
    /// With their arrival.
    applied: Vec<(Made, UnixMillis)>,
}

/// What is known of every entry.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    entries: BTreeMap<usize, Entry>,
}

impl Desk {
    /// The event at `index` of the log was counted.
    pub fn counted(&mut self, index: usize, address: MeterAddress, counted_with: u64) {
        let entry = Entry {
            address,
            counted_with,
            stands: index,
            applied: Vec::new(),
        };
        self.entries.insert(index, entry);
    }

    /// The event at `index` of the log has grown from the one at `before`.
    pub fn grown(&mut self, index: usize, before: usize) {
        let mut entries = self.entries.values_mut();
        if let Some(entry) = entries.find(|entry| entry.stands == before) {
            entry.stands = index;
        }
    }

    /// Place in the log of what stands for the entry of `identity`.
    pub fn standing_of(&self, scenario: &Scenario, identity: Identity) -> Option<usize> {
        let places = self.entries.values().map(|entry| entry.stands);
        places
            .filter(|place| scenario.log[*place].event.identity == identity)
            .max()
    }

    /// Whether the entry of `identity` was voided.
    pub fn is_void(&self, scenario: &Scenario, identity: Identity) -> bool {
        let mut entries = self.entries.values();
        entries.any(|entry| {
            let is_of_it = scenario.log[entry.stands].event.identity == identity;
            let last = entry.applied.last();
            is_of_it && last.is_some_and(|(made, _)| made.after.is_none())
        })
    }

    /// `made` was applied.
    pub fn applied(&mut self, made: Made, arrival: UnixMillis) {
        if let Some(entry) = self.entries.get_mut(&made.of) {
            entry.applied.push((made, arrival));
        }
    }

    /// The correction that stands at `index` of the log; `None` where there is nothing to correct,
    /// so that none was made.
    pub fn make(&self, scenario: &Scenario, index: usize) -> Option<Made> {
        let one = &scenario.log[index];
        let wanted = one.corrects.as_ref()?;
        let original = &scenario.log[wanted.of];
        let entry = self.entries.get(&wanted.of)?;
        if !matches!(original.event.body, Body::Usage(_)) {
            return None;
        }
        let mut judged_at = one.arrival.plus(-wanted.judged_before);
        let known = match wanted.known {
            Known::All => entry.applied.len(),
            Known::Again => return entry.applied.last().map(|(made, _)| made.clone()),
            Known::AllButOne => {
                let (_, arrival) = entry.applied.last()?;
                judged_at = judged_at.min(arrival.plus(-1));
                entry.applied.len() - 1
            }
        };
        let known = &entry.applied[..known];
        let last = known.last().map(|(made, _)| &made.after);
        let counted = &scenario.log[entry.stands];
        let before = last.map_or_else(|| Some(Stands::of(counted)), Clone::clone);
        let after = match (wanted.what, &before) {
            (Wanted::Void, Some(_)) => None,
            (Wanted::Restore, None) => known.last()?.0.before.clone(),
            (Wanted::Restore, Some(_)) | (_, None) => return None,
            (what, Some(before)) => Some(before.changed(what)),
        };
        if before == after {
            return None;
        }
        let number = known.len() + 1;
        let said = format!("{before:?} {after:?}");
        Some(Made {
            of: wanted.of,
            stands: entry.stands,
            address: entry.address,
            counted_with: entry.counted_with,
            identity: Identity::of(
                "",
                "correction",
                &wanted.of.to_string(),
                &number.to_string(),
            ),
            content: xxh3_64(said.as_bytes()) as u32,
            judged_at,
            is_rerate: matches!(wanted.what, Wanted::Rate { .. }),
            before,
            after,
        })
    }
}
