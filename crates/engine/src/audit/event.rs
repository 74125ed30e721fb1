//! An event of the input and the row that it became.

use spendfuse_domain::Nanos;
use xxhash_rust::xxh3::xxh3_64;

use super::differences::{Difference, Kind, Site, Tally};

/// What a row of `spend` says of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedRow {
    /// Its address: partition.
    pub partition: u32,
    /// Its address: commit.
    pub seq: u64,
    /// Its address: place in the commit.
    pub index: u32,
    /// [`identity_hash`] of its event.
    pub identity: u64,
    /// What it cost.
    pub cost: Nanos,
    /// What the customer paid.
    pub revenue: Nanos,
    /// All tokens.
    pub tokens: i64,
}

/// What the input says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputEvent {
    /// Its home partition.
    pub home: u32,
    /// [`identity_hash`].
    pub identity: u64,
    /// Its price by the book that its row names; `None` where that book is not there any more.
    pub cost: Option<Nanos>,
    /// What the customer paid.
    pub revenue: Nanos,
    /// All tokens.
    pub tokens: i64,
}

/// Identity of an event, as ClickHouse computes it too:
/// `xxh3(concat(workspace, '\0', source, '\0', event_id))`.
pub fn identity_hash(workspace: &str, source: &str, id: &str) -> u64 {
    let mut text = Vec::with_capacity(workspace.len() + source.len() + id.len() + 2);
    text.extend_from_slice(workspace.as_bytes());
    text.push(0);
    text.extend_from_slice(source.as_bytes());
    text.push(0);
    text.extend_from_slice(id.as_bytes());
    xxh3_64(&text)
}

/// How the row of an event differs from it; `place` names the event.
pub fn compare_event(
    event: &InputEvent,
    row: &CountedRow,
    place: impl FnOnce() -> String,
) -> Option<Difference> {
    let same = event.home == row.partition
        && event.identity == row.identity
        && event.revenue == row.revenue
        && event.tokens == row.tokens;
    let cost = event.cost.unwrap_or(row.cost);
    if same && cost == row.cost {
        return None;
    }
    Some(Difference {
        kind: if same {
            Kind::CostDiffers
        } else {
            Kind::ContentDiffers
        },
        site: Site::Meter(row.partition),
        seq: Some(row.seq),
        expected: Tally::new(1, cost),
        found: Tally::new(1, row.cost),
        detail: format!("row {} of commit {}: {}", row.index, row.seq, place()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_must_say_what_its_event_says() {
        let event = InputEvent {
            home: 1,
            identity: identity_hash("acme", "api", "e-1"),
            cost: Some(Nanos::new(5)),
            revenue: Nanos::ZERO,
            tokens: 10,
        };
        let row = CountedRow {
            partition: 1,
            seq: 7,
            index: 0,
            identity: event.identity,
            cost: Nanos::new(5),
            revenue: Nanos::ZERO,
            tokens: 10,
        };
        let kind_of = |row: &CountedRow| {
            compare_event(&event, row, String::new).map(|difference| difference.kind)
        };
        assert_eq!(kind_of(&row), None);
        let dearer = CountedRow {
            cost: Nanos::new(6),
            ..row
        };
        assert_eq!(kind_of(&dearer), Some(Kind::CostDiffers));
        let elsewhere = CountedRow {
            partition: 2,
            ..row
        };
        assert_eq!(kind_of(&elsewhere), Some(Kind::ContentDiffers));
        let unknown_book = InputEvent {
            cost: None,
            ..event
        };
        assert_eq!(compare_event(&unknown_book, &dearer, String::new), None);
        assert_ne!(
            identity_hash("a", "bc", "d"),
            identity_hash("ab", "c", "d"),
            "fields do not run into each other"
        );
    }
}
