//! What an audit finds: differences, grouped so that a million of a kind are one line.

use std::collections::BTreeMap;

use spendfuse_domain::Nanos;

/// Details kept of a group; the rest is only counted.
const EXAMPLES: usize = 5;

/// Entries and their cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries: usage and revenue events, or rows.
    pub events: i64,
    /// What they cost.
    pub cost: Nanos,
}

impl Tally {
    /// A tally of so many events at this cost.
    pub fn new(events: i64, cost: Nanos) -> Self {
        Self { events, cost }
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.cost += other.cost;
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An event of the input has no row, is no duplicate and is not in the DLQ.
    NotCounted,
    /// A row's coordinates name no event of the input.
    NotFromInput,
    /// Several rows of one identity.
    CountedTwice,
    /// A row's cost is not what the price book named in it says.
    CostDiffers,
    /// A row says something else than its event.
    ContentDiffers,
    /// A row block does not continue the one before: blocks are missing.
    RowGap,
    /// A row block begins before the end of the one before.
    RowOverlap,
    /// The warehouse has fewer rows than a row block, or more.
    RowsDiffer,
    /// Sums of a rollup are not those of its rows.
    RollupDiffers,
    /// A delta does not continue the one before: deltas are missing.
    DeltaGap,
    /// A delta begins before the end of the one before.
    DeltaOverlap,
    /// Deltas tell the ledger something else than the rows say.
    DeltasDiffer,
    /// A window's account, or its close and late lines, are not the sum of its rows.
    WindowDiffers,
    /// The blocklist says something else than the ledger has published.
    BlocklistDiffers,
}

impl Kind {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotCounted => "not_counted",
            Self::NotFromInput => "not_from_input",
            Self::CountedTwice => "counted_twice",
            Self::CostDiffers => "cost_differs",
            Self::ContentDiffers => "content_differs",
            Self::RowGap => "row_gap",
            Self::RowOverlap => "row_overlap",
            Self::RowsDiffer => "rows_differ",
            Self::RollupDiffers => "rollup_differs",
            Self::DeltaGap => "delta_gap",
            Self::DeltaOverlap => "delta_overlap",
            Self::DeltasDiffer => "deltas_differ",
            Self::WindowDiffers => "window_differs",
            Self::BlocklistDiffers => "blocklist_differs",
        }
    }
}

/// Where a difference is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// In what a meter partition counted.
    Meter(u32),
    /// In what a ledger partition wrote.
    Ledger(u32),
    /// In the windows of a budget.
    Budget(String),
    /// In a table of the warehouse that has no partitions of ours.
    Table(&'static str),
}

impl Site {
    /// Text form: `meter 2`, `ledger 0`, `budget cap`.
    pub fn text(&self) -> String {
        match self {
            Self::Meter(partition) => format!("meter {partition}"),
            Self::Ledger(partition) => format!("ledger {partition}"),
            Self::Budget(id) => format!("budget {id}"),
            Self::Table(name) => format!("table {name}"),
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What is wrong.
    pub kind: Kind,
    /// Where.
    pub site: Site,
    /// The commit of the site's partition where it begins; `None` for a budget.
    pub seq: Option<u64>,
    /// What should be.
    pub expected: Tally,
    /// What is.
    pub found: Tally,
    /// In words: coordinates, ids.
    pub detail: String,
}

impl Difference {
    /// How many events it is about: at least one.
    pub fn drift_events(&self) -> u64 {
        self.expected.events.abs_diff(self.found.events).max(1)
    }

    /// By how much money both sides differ.
    pub fn drift(&self) -> Nanos {
        let difference = self.expected.cost - self.found.cost;
        difference.or_zero() + (-difference).or_zero()
    }
}

/// Differences of one kind at one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// The first commit that is concerned.
    pub from_seq: Option<u64>,
    /// The last one.
    pub to_seq: Option<u64>,
    /// Sum of what should be.
    pub expected: Tally,
    /// Sum of what is.
    pub found: Tally,
    /// Sum of [`Difference::drift_events`].
    pub drift_events: u64,
    /// Sum of [`Difference::drift`].
    pub drift: Nanos,
    /// The details of the first few.
    pub examples: Vec<String>,
}

impl Group {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.from_seq = min_of(self.from_seq, other.from_seq);
        self.to_seq = self.to_seq.max(other.to_seq);
        self.expected.add(other.expected);
        self.found.add(other.found);
        self.drift_events += other.drift_events;
        self.drift += other.drift;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// Everything that was found, in bounded memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    groups: BTreeMap<(Kind, Site), Group>,
}

impl Differences {
    /// Adds a difference.
    pub fn push(&mut self, difference: Difference) {
        let (drift_events, drift) = (difference.drift_events(), difference.drift());
        let key = (difference.kind, difference.site);
        self.groups.entry(key).or_default().add(Group {
            count: 1,
            from_seq: difference.seq,
            to_seq: difference.seq,
            expected: difference.expected,
            found: difference.found,
            drift_events,
            drift,
            examples: vec![difference.detail],
        });
    }

    /// Takes over what another part of the audit found.
    pub fn merge(&mut self, other: Self) {
        for (key, group) in other.groups {
            self.groups.entry(key).or_default().add(group);
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The groups, by kind and site.
    pub fn groups(&self) -> impl Iterator<Item = (Kind, &Site, &Group)> {
        let groups = self.groups.iter();
        groups.map(|((kind, site), group)| (*kind, site, group))
    }

    /// Events that differences are about, added up over all comparisons: an event that is missing in
    /// two places counts twice.
    pub fn drift_events(&self) -> u64 {
        self.groups.values().map(|group| group.drift_events).sum()
    }

    /// The same in money.
    pub fn drift(&self) -> Nanos {
        self.groups.values().map(|group| group.drift).sum()
    }
}

fn min_of(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(seq: u64, nanos: i128) -> Difference {
        Difference {
            kind: Kind::NotCounted,
            site: Site::Meter(2),
            seq: Some(seq),
            expected: Tally::new(1, Nanos::new(nanos)),
            found: Tally::default(),
            detail: format!("commit {seq}"),
        }
    }

    #[test]
    fn a_lost_event_and_a_doubled_one_do_not_cancel_out() {
        let mut all = Differences::default();
        all.push(missing(7, 10));
        all.push(Difference {
            expected: Tally::new(1, Nanos::new(10)),
            found: Tally::new(2, Nanos::new(20)),
            ..missing(5, 0)
        });
        assert_eq!((all.drift_events(), all.drift()), (2, Nanos::new(20)));
        let (_, _, group) = all.groups().next().unwrap();
        assert_eq!((group.from_seq, group.to_seq), (Some(5), Some(7)));
    }

    #[test]
    fn any_number_of_differences_takes_bounded_memory() {
        let mut all = Differences::default();
        for seq in 0..10_000 {
            all.push(missing(seq, 1));
        }
        assert_eq!(all.groups().count(), 1);
        assert_eq!(all.groups().next().unwrap().2.examples.len(), EXAMPLES);
        assert_eq!(all.drift_events(), 10_000);
    }
}
