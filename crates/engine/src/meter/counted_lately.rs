//! What was counted of the calls that were counted last.
//!
//! A call whose counts grow is told of again within seconds or minutes, so the last calls are enough.
//! They are written with their identities and are part of the state: a restart must not change what
//! becomes of an event. They lie encoded, some 75 bytes each; where they were counted longer ago than
//! that, a larger event is a conflict.

use std::collections::VecDeque;

use hashbrown::HashTable;
use minicbor::Decoder;
use spendfuse_domain::Identity;

use super::counted_call::CountedCall;
use super::stored_call::{self, StoredCall};
use crate::codec::CodecError;

/// Bytes of a piece: the oldest one is forgotten as a whole.
const PIECE: usize = 1 << 16;
/// Pieces that are kept: 2 MiB a partition, some 25,000 calls.
const MOST_PIECES: usize = 32;

/// The last calls.
#[derive(Debug, Default)]
pub(super) struct CountedLately {
    pieces: VecDeque<Piece>,
    /// Number of the first of them, modulo 2^16.
    first_piece: u16,
    places: HashTable<Place>,
    scratch: Vec<u8>,
}

/// Calls one after the other.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// The [`Place::check`] of each.
    checks: Vec<u32>,
}

/// Where a call lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The low bits of its identity, which is a hash already.
    check: u32,
    piece: u16,
    at: u16,
}

impl CountedLately {
    /// Remembers what stands for `identity` now, instead of what stood for it before; what the
    /// changelog is to keep is appended to `log`.
    pub(super) fn remember(&mut self, identity: Identity, call: &CountedCall, log: &mut Vec<u8>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        StoredCall::new(identity, call).write(&mut scratch);
        log.extend_from_slice(&scratch);
        self.insert(identity, &scratch);
        self.scratch = scratch;
    }

    /// Remembers calls from the changelog.
    ///
    /// # Errors
    /// [`CodecError`] where they cannot be read.
    pub(super) fn restore(&mut self, calls: &[u8]) -> Result<(), CodecError> {
        let mut decoder = Decoder::new(calls);
        while decoder.position() < calls.len() {
            let begin = decoder.position();
            let stored: StoredCall = decoder
                .decode()
                .map_err(|error| CodecError::Damaged(error.to_string()))?;
            self.insert(stored.identity(), &calls[begin..decoder.position()]);
        }
        Ok(())
    }

    /// What stands for `identity` in meter partition `partition`, where it was counted lately.
    pub(super) fn of(&self, identity: Identity, partition: u32) -> Option<CountedCall> {
        let check = check_of(identity);
        let is_it = |place: &Place| place.check == check && self.identity_at(*place) == identity;
        let place = self.places.find(hash_of(check), is_it)?;
        self.stored_at(*place)?.read(partition)
    }

    /// The same where it may still grow: what was corrected does not.
    pub(super) fn growing(&self, identity: Identity, partition: u32) -> Option<CountedCall> {
        self.of(identity, partition).filter(|call| !call.has_ended)
    }

    fn insert(&mut self, identity: Identity, bytes: &[u8]) {
        debug_assert!(bytes.len() < PIECE);
        let fits = |piece: &Piece| piece.bytes.len() + bytes.len() <= PIECE;
        if !self.pieces.back().is_some_and(fits) {
            self.begin_piece();
        }
        let last = self.pieces.len() - 1;
        let piece = &mut self.pieces[last];
        let place = Place {
            check: check_of(identity),
            piece: self.first_piece.wrapping_add(last as u16),
            at: piece.bytes.len() as u16,
        };
        piece.bytes.extend_from_slice(bytes);
        piece.checks.push(place.check);
        let known = |other: &Place| {
            other.check == place.check
                && identity_at(&self.pieces, self.first_piece, *other) == identity
        };
        match self.places.find_mut(hash_of(place.check), known) {
            Some(known) => *known = place,
            None => {
                let hash = |other: &Place| hash_of(other.check);
                self.places.insert_unique(hash_of(place.check), place, hash);
            }
        }
    }

    fn begin_piece(&mut self) {
        if self.pieces.len() < MOST_PIECES {
            self.pieces.push_back(Piece {
                bytes: Vec::with_capacity(PIECE),
                checks: Vec::new(),
            });
            return;
        }
        let Some(mut oldest) = self.pieces.pop_front() else {
            return;
        };
        let gone = self.first_piece;
        self.first_piece = gone.wrapping_add(1);
        // Each by itself: there are thirty times as many others.
        for check in oldest.checks.drain(..) {
            let is_gone = |place: &Place| place.check == check && place.piece == gone;
            // What was remembered anew since then lies elsewhere.
            if let Ok(entry) = self.places.find_entry(hash_of(check), is_gone) {
                entry.remove();
            }
        }
        oldest.bytes.clear();
        self.pieces.push_back(oldest);
    }

    fn identity_at(&self, place: Place) -> Identity {
        identity_at(&self.pieces, self.first_piece, place)
    }

    fn stored_at(&self, place: Place) -> Option<StoredCall> {
        minicbor::decode(bytes_at(&self.pieces, self.first_piece, place)).ok()
    }
}

/// Calls one after the other, in parts of at most `most_bytes` or a single call.
pub(super) fn parts(calls: &[u8], most_bytes: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = calls;
    std::iter::from_fn(move || {
        let mut decoder = Decoder::new(rest);
        let mut end = 0;
        while decoder.position() < rest.len() && decoder.skip().is_ok() {
            if end > 0 && decoder.position() > most_bytes {
                break;
            }
            end = decoder.position();
        }
        let (part, after) = rest.split_at(end);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

fn bytes_at(pieces: &VecDeque<Piece>, first: u16, place: Place) -> &[u8] {
    let piece = pieces.get(place.piece.wrapping_sub(first).into());
    piece.map_or(&[], |piece| &piece.bytes[place.at.into()..])
}

fn identity_at(pieces: &VecDeque<Piece>, first: u16, place: Place) -> Identity {
    stored_call::identity_in(bytes_at(pieces, first, place))
}

fn check_of(identity: Identity) -> u32 {
    identity.0 as u32
}

/// The table finds a place by the lowest bits of a hash, and what may lie there by the highest.
fn hash_of(check: u32) -> u64 {
    u64::from(check) << 32 | u64::from(check)
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;
    use spendfuse_domain::growth::{ToldCall, Who};
    use spendfuse_domain::row::{CostParts, MeterAddress};
    use spendfuse_domain::units::{Quantity, UnitKind};
    use spendfuse_domain::{Attribution, Nanos, TokenClasses, UnixMillis};

    use super::super::estimated::Estimated;
    use super::*;

    fn call(number: u64) -> CountedCall {
        CountedCall {
            address: MeterAddress {
                partition: 3,
                seq: number,
                index: 7,
            },
            told: ToldCall {
                model: 0xfeed,
                is_estimate: number.is_multiple_of(2),
                tokens: TokenClasses {
                    input: number,
                    reasoning: 5,
                    ..TokenClasses::default()
                },
                units: SmallVec::from_slice(&[(UnitKind::Images, Quantity(number + 1))]),
                tool_calls: 2,
                reported_cost: Nanos::new(-3),
                who: Who([number as u8 % 3; Who::BYTES]),
            },
            cost: CostParts {
                output: Nanos::new(999_999_999_999_999),
                ..CostParts::default()
            },
            at_ceiling: Nanos::new(8),
            estimated: number.is_multiple_of(4).then(|| {
                Box::new(Estimated {
                    time: UnixMillis(1_795_348_800_000 + number as i64),
                    who: Attribution {
                        customer: format!("c-{number}").into(),
                        tags: vec![("team".into(), "blue".into())],
                        ..Attribution::default()
                    },
                })
            }),
            has_ended: number.is_multiple_of(5),
        }
    }

    #[test]
    fn what_is_remembered_comes_back_here_and_from_the_log() {
        let (mut lately, mut log) = (CountedLately::default(), Vec::new());
        for number in 0..1_000_u64 {
            let identity = Identity(u128::from(number) << 70 | 5);
            lately.remember(identity, &call(number), &mut log);
            lately.remember(identity, &call(number + 1), &mut log);
        }
        let mut restored = CountedLately::default();
        restored.restore(&log).unwrap();
        for number in 0..1_000_u64 {
            let identity = Identity(u128::from(number) << 70 | 5);
            assert_eq!(lately.of(identity, 3), Some(call(number + 1)));
            assert_eq!(restored.of(identity, 3), Some(call(number + 1)));
        }
        assert_eq!(lately.of(Identity(5), 3), Some(call(1)));
        assert_eq!(lately.of(Identity(6), 3), None);
        let mut in_parts = CountedLately::default();
        for part in parts(&log, 500) {
            assert!(part.len() <= 500);
            in_parts.restore(part).unwrap();
        }
        assert_eq!(in_parts.of(Identity(5), 3), Some(call(1)));
        assert_eq!(in_parts.places.len(), restored.places.len());
        assert!(restored.restore(&log[..log.len() - 1]).is_err());
    }

    #[test]
    fn the_oldest_are_forgotten_and_the_room_is_bounded() {
        let (mut lately, mut log) = (CountedLately::default(), Vec::new());
        let identity = |number: u64| Identity(u128::from(number) << 64 | u128::from(number));
        const MANY: u64 = 200_000;
        for number in 0..MANY {
            log.clear();
            lately.remember(identity(number), &call(number), &mut log);
        }
        assert!(lately.pieces.len() <= MOST_PIECES);
        let known = |number: u64| lately.of(identity(number), 3);
        assert_eq!(known(0), None);
        assert_eq!(known(MANY - 1), Some(call(MANY - 1)));
        let kept = (0..MANY).filter(|number| known(*number).is_some()).count();
        assert_eq!(kept, lately.places.len());
        assert!((20_000..60_000).contains(&kept), "{kept}");
    }
}
