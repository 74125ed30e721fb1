//! Where the events that were counted last came from.
//!
//! The dedupe memory would grow by a third if it said where each identity was counted; a conflict
//! mostly follows its first event soon, so the places of those that were counted last are enough.
//! They are not part of the state: after a restore they are unknown until events are counted.

use spendfuse_domain::Identity;
use spendfuse_domain::row::Origin;

/// So many identities share the memory: 16 bytes each, 4 MiB a partition, used as they fill.
const SLOTS: usize = 1 << 18;

/// The places of events that were counted lately. An identity has one slot, and whoever comes to
/// it later overwrites it.
#[derive(Debug)]
pub(super) struct RecentOrigins {
    /// A check of the identity and the partition; the offset, counted from 1 (0 is an empty slot).
    /// Plain numbers, because pages of zeros cost nothing until they are written.
    slots: Vec<[u64; 2]>,
}

impl Default for RecentOrigins {
    fn default() -> Self {
        Self {
            slots: vec![[0; 2]; SLOTS],
        }
    }
}

impl RecentOrigins {
    /// The event of this identity was counted.
    #[inline]
    pub(super) fn remember(&mut self, identity: Identity, origin: Origin) {
        let (slot, check) = slot_of(identity);
        self.slots[slot] = [
            check | u64::from(origin.partition),
            origin.offset.unsigned_abs() + 1,
        ];
    }

    /// Partition and offset of the event that was counted with this identity, where it was one of
    /// the last.
    pub(super) fn of(&self, identity: Identity) -> Option<(u32, u64)> {
        let (slot, check) = slot_of(identity);
        let [checked, from_one] = self.slots[slot];
        let is_known = checked & CHECK == check && from_one > 0;
        is_known.then(|| ((checked & !CHECK) as u32, from_one - 1))
    }
}

/// Bits of a slot's first number that belong to the identity.
const CHECK: u64 = !(u32::MAX as u64);

/// Identities are hashes already.
#[inline]
fn slot_of(identity: Identity) -> (usize, u64) {
    let high = (identity.0 >> 64) as u64;
    (identity.0 as usize % SLOTS, high & CHECK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: u32, offset: i64) -> Origin {
        Origin {
            partition,
            offset,
            ..Origin::default()
        }
    }

    fn identity(high: u32, low: usize) -> Identity {
        Identity(u128::from(high) << 96 | low as u128)
    }

    #[test]
    fn the_last_event_of_a_slot_is_known_and_no_other_is_taken_for_it() {
        let mut origins = RecentOrigins::default();
        assert_eq!(origins.of(identity(0, 0)), None);
        origins.remember(identity(1, 7), at(3, 0));
        assert_eq!(origins.of(identity(1, 7)), Some((3, 0)));
        assert_eq!(origins.of(identity(2, 7)), None);
        origins.remember(identity(2, 7 + SLOTS), at(u32::MAX, 9));
        assert_eq!(origins.of(identity(2, 7)), Some((u32::MAX, 9)));
        assert_eq!(origins.of(identity(1, 7)), None);
    }
}
