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

/// A record of the ids changelog, as [`RememberedIds`] is read from it.
#[derive(Clone, Copy, Debug, Encode)]
pub struct IdsRecord<'a> {
    #[n(0)]
    ids: &'a [RememberedId],
    #[n(1)]
    #[cbor(with = "codec::bytes", has_nil)]
    calls: &'a [u8],
}

/// An identity takes no more than this, bytes.
const ID_BYTES: usize = 29;

impl RememberedIds {
    /// As one record, or as several with at most `most_ids` identities or `most_bytes` of calls: what
    /// was counted of the calls then follows their identities. None where there are no identities.
    pub fn records(
        &self,
        most_ids: usize,
        most_bytes: usize,
    ) -> impl Iterator<Item = IdsRecord<'_>> {
        let all = IdsRecord {
            ids: &self.ids,
            calls: &self.calls,
        };
        let nothing = IdsRecord {
            ids: &[],
            calls: &[],
        };
        let fits = self.ids.len() <= most_ids && self.calls.len() <= most_bytes;
        let (whole, split) = match fits {
            true => ((!self.ids.is_empty()).then_some(all), nothing),
            false => (None, all),
        };
        let ids = split.ids.chunks(most_ids);
        let ids = ids.map(move |ids| IdsRecord { ids, ..nothing });
        let calls = counted_lately::parts(split.calls, most_bytes);
        let calls = calls.map(move |calls| IdsRecord { calls, ..nothing });
        whole.into_iter().chain(ids).chain(calls)
    }

    /// Nothing any more, but the room for as much.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.calls.clear();
    }
}

impl IdsRecord<'_> {
    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_large(self, 16 + self.ids.len() * ID_BYTES + self.calls.len())
    }
}

#[inline]
pub(super) fn minute_of(time: UnixMillis) -> u32 {
    u32::try_from(time.minute().max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_everything_once_as_one_or_as_several() {
        let id = |number: u64| RememberedId {
            high: u64::MAX - number,
            low: number,
            content: u32::MAX,
            minute: u32::MAX,
        };
        let all = RememberedIds {
            ids: (0..10).map(id).collect(),
            // Four calls, as far as a reader that takes no look into them can tell.
            calls: vec![0x80; 4],
        };
        let one: Vec<_> = all.records(10, 4).collect();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].encode(), codec::encode(&all));
        assert!(one[0].encode().len() <= 16 + 10 * ID_BYTES + 4);
        let several: Vec<RememberedIds> = all
            .records(4, 3)
            .map(|record| codec::decode(&record.encode()).unwrap())
            .collect();
        let sizes = several.iter().map(|one| (one.ids.len(), one.calls.len()));
        assert_eq!(
            sizes.collect::<Vec<_>>(),
            [(4, 0), (4, 0), (2, 0), (0, 3), (0, 1)]
        );
        let ids: Vec<_> = several.into_iter().flat_map(|one| one.ids).collect();
        assert_eq!(ids, all.ids);
        assert_eq!(RememberedIds::default().records(4, 3).count(), 0);
    }
}
