//! Counts of a batch of the meter.

use metrics::counter;

use crate::metrics::{
    CORRECTIONS_APPLIED, EVENTS_CONFLICT, EVENTS_COUNTED, EVENTS_DUPLICATE, EVENTS_ECHO,
    EVENTS_GROWN, EVENTS_PARTLY_READ, EVENTS_RECOVERED,
};

/// Counts of the running batch, exported when it is committed.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    pub(super) usage: u64,
    pub(super) revenue: u64,
    pub(super) session_ends: u64,
    pub(super) duplicates: u64,
    pub(super) conflicts: u64,
    pub(super) grown: u64,
    pub(super) echoes: u64,
    pub(super) partly_read: u64,
    pub(super) corrections: u64,
    pub(super) recovered: u64,
}

impl Tallies {
    /// Exports the counts.
    pub(super) fn export(&mut self) {
        let tallies = std::mem::take(self);
        for (kind, count) in [
            ("usage", tallies.usage),
            ("revenue", tallies.revenue),
            ("session_end", tallies.session_ends),
        ] {
            counter!(EVENTS_COUNTED, "kind" => kind).increment(count);
        }
        counter!(EVENTS_DUPLICATE).increment(tallies.duplicates);
        counter!(EVENTS_CONFLICT).increment(tallies.conflicts);
        counter!(EVENTS_GROWN).increment(tallies.grown);
        counter!(EVENTS_ECHO).increment(tallies.echoes);
        counter!(EVENTS_PARTLY_READ).increment(tallies.partly_read);
        counter!(CORRECTIONS_APPLIED).increment(tallies.corrections);
        counter!(EVENTS_RECOVERED).increment(tallies.recovered);
    }
}
