//! Deltas: what one commit of a meter partition tells one ledger partition.

use minicbor::{Decode, Encode};
use spendfuse_domain::{Nanos, UnixMillis};

use crate::codec;

/// The record of topic `spendfuse.deltas`.
///
/// `prev` and `seq` chain the records of one (meter partition, ledger partition): the ledger checks
/// that each `prev` is the `seq` before, so that a lost or doubled record is seen at once.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Deltas {
    /// The partition that counted.
    #[n(0)]
    pub meter_partition: u32,
    /// The commit in which it last told this ledger partition anything; 0 = never.
    #[n(1)]
    pub prev: u64,
    /// The commit in which it tells this.
    #[n(2)]
    pub seq: u64,
    /// Ids of the series that the entries belong to.
    #[n(3)]
    pub series: Vec<String>,
    /// What was added up.
    #[n(4)]
    pub entries: Vec<DeltaEntry>,
    /// Version of the budgets that the series come from. A ledger with older budgets would not know
    /// who counts an entry, so it waits for this version first.
    #[n(5)]
    #[cbor(default)]
    pub budget_version: u64,
}

/// Spend of one scope in one UTC minute of the events' own time, summed over a commit.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct DeltaEntry {
    /// Place in [`Deltas::series`].
    #[n(0)]
    pub series: u32,
    /// Scope text.
    #[n(1)]
    pub scope: String,
    /// Minutes since 1970.
    #[n(2)]
    pub minute: i64,
    /// Money.
    #[n(3)]
    #[cbor(with = "codec::nanos")]
    pub cost: Nanos,
    /// The part charged at a ceiling.
    #[n(4)]
    #[cbor(with = "codec::nanos")]
    pub unpriced: Nanos,
    /// All tokens.
    #[n(5)]
    pub tokens: u64,
    /// Model calls.
    #[n(6)]
    pub calls: u64,
    /// `source` of the last event.
    #[n(7)]
    pub source: String,
    /// `id` of the last event.
    #[n(8)]
    pub id: String,
    /// Its own time.
    #[n(9)]
    #[cbor(with = "codec::millis")]
    pub time: UnixMillis,
}
