//! Identities as the ids changelog has them.

use minicbor::{Decode, Encode};
use spendfuse_domain::{Identity, UnixMillis};

use super::{Judgement, UNKNOWN_CONTENT};
use crate::codec;
use crate::meter::counted_lately;

/// One remembered identity, as in the ids changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RememberedId {
    /// High and low half of the identity.
    #[n(0)]
    pub high: u64,
    /// See [`Self::high`].
    #[n(1)]
    pub low: u64,
    /// Content hash.
    #[n(2)]
    pub content: u32,
    /// Engine time when it was counted, minutes since 1970: that of its arrival, or later where it was
    /// handed over, or the broker's clock ran back.
    #[n(3)]
    pub minute: u32,
}

impl RememberedId {
    #[inline]
    pub(super) fn is_of(&self, other: Self) -> bool {
        self.low == other.low && self.high == other.high
    }

    /// What `later` of the same identity is, where identities are forgotten after so many minutes.
    #[inline]
    pub(super) fn judge(&self, later: Self, forgets_after: u32) -> Judgement {
        if later.minute > self.minute.saturating_add(forgets_after) {
            // Older than the horizon: it only waits for the next sweep.
            Judgement::Fresh
        } else if self.content == later.content || self.content == UNKNOWN_CONTENT {
            Judgement::Duplicate
        } else {
            let first = UnixMillis::from_minute(self.minute.into());
            Judgement::Conflict { first }
        }
    }

    /// The changelog entry of a fresh event, counted at `at`.
    #[inline]
    pub fn new(identity: Identity, content: u32, at: UnixMillis) -> Self {
        Self {
            high: (identity.0 >> 64) as u64,
            low: identity.0 as u64,
            content,
            minute: minute_of(at),
        }
    }
}

/// The new identities of one commit: the record of the ids changelog.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct RememberedIds {
    /// In the order of counting; once more each time that more is told of a call.
    #[n(0)]
    pub ids: Vec<RememberedId>,
    /// What was counted of calls whose counts may still grow, one after the other.
    #[n(1)]
    #[cbor(with = "codec::bytes", has_nil)]
    pub calls: Vec<u8>,
}

impl RememberedIds {
    /// The same in several records, each with at most `most_ids` identities or `most_bytes` of calls.
    pub fn parts(&self, most_ids: usize, most_bytes: usize) -> Vec<Self> {
        let ids = self.ids.chunks(most_ids).map(|ids| Self {
            ids: ids.to_vec(),
            calls: Vec::new(),
        });
        let calls = counted_lately::parts(&self.calls, most_bytes).map(|calls| Self {
            ids: Vec::new(),
            calls: calls.to_vec(),
        });
        ids.chain(calls).collect()
    }
}

#[inline]
pub(super) fn minute_of(time: UnixMillis) -> u32 {
    u32::try_from(time.minute().max(0)).unwrap_or(u32::MAX)
}
