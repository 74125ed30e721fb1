//! What was counted of the calls that were counted last.
//!
//! A call whose counts grow is told of again within seconds or minutes, so the last calls are enough.
//! They are written with their identities and are part of the state: a restart must not change what
//! becomes of an event. They lie encoded, some 75 bytes each; where they were counted longer ago than
//! that, a larger event is a conflict.

use std::collections::VecDeque;

use hashbrown::HashTable;
use minicbor::{Decode, Decoder};
use smallvec::SmallVec;
use spendfuse_domain::growth::{ToldCall, Who};
use spendfuse_domain::row::{CostParts, MeterAddress};
use spendfuse_domain::units::{Quantity, UnitKind};
use spendfuse_domain::{Identity, Nanos, TokenClass, TokenClasses};

use super::counted_call::CountedCall;
use crate::codec::{self, CodecError};

/// Bytes of a piece: the oldest one is forgotten as a whole.
const PIECE: usize = 1 << 16;
/// Pieces that are kept: 2 MiB a partition, some 25,000 calls.
const MOST_PIECES: usize = 32;

/// A call as it is written: an entry of `calls` in a record of the ids changelog. What is absent is 0.
#[derive(Debug, Default, Decode)]
#[cfg_attr(test, derive(minicbor::Encode))]
struct StoredCall {
    /// High and low half of the identity.
    #[n(0)]
    high: u64,
    #[n(1)]
    low: u64,
    /// Address of its first event, whose partition is that of the record.
    #[n(2)]
    seq: u64,
    #[n(3)]
    index: u32,
    #[n(4)]
    model: u32,
    /// By token class, without the zeros at the end.
    #[n(5)]
    tokens: Numbers,
    /// Nano-dollars: input, cache read, cache write, output, units, then the part at a ceiling and
    /// the reported cost; without the zeros at the end.
    #[n(6)]
    money: Numbers,
    #[n(7)]
    tool_calls: u32,
    #[n(8)]
    #[cbor(with = "codec::only_true", has_nil)]
    is_estimate: bool,
    /// Places of kinds and billionths, in turn.
    #[n(9)]
    units: Option<Numbers>,
    #[n(10)]
    who: Option<WhoBytes>,
    #[n(11)]
    #[cbor(with = "codec::only_true", has_nil)]
    has_ended: bool,
}

/// A short list of numbers.
#[derive(Debug, Default)]
struct Numbers(SmallVec<[i64; 12]>);

/// A [`Who`] as bytes; those that a later release adds are not known here.
#[derive(Debug)]
struct WhoBytes(Who);

/// The last calls.
#[derive(Debug, Default)]
pub(super) struct CountedLately {
    pieces: VecDeque<Vec<u8>>,
    /// Number of the first of them, modulo 2^16.
    first_piece: u16,
    places: HashTable<Place>,
    scratch: Vec<u8>,
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
        let place = self.places.find(check.into(), is_it)?;
        // Of what was corrected an older release kept nothing, and no commit has number 0.
        let stored = self.stored_at(*place).filter(|stored| stored.seq > 0)?;
        stored.read(partition)
    }

    /// The same where it may still grow: what was corrected does not.
    pub(super) fn growing(&self, identity: Identity, partition: u32) -> Option<CountedCall> {
        self.of(identity, partition).filter(|call| !call.has_ended)
    }

    fn insert(&mut self, identity: Identity, bytes: &[u8]) {
        debug_assert!(bytes.len() < PIECE);
        let fits = |piece: &Vec<u8>| piece.len() + bytes.len() <= PIECE;
        if !self.pieces.back().is_some_and(fits) {
            self.begin_piece();
        }
        let last = self.pieces.len() - 1;
        let place = Place {
            check: check_of(identity),
            piece: self.first_piece.wrapping_add(last as u16),
            at: self.pieces[last].len() as u16,
        };
        self.pieces[last].extend_from_slice(bytes);
        let known = |other: &Place| {
            other.check == place.check
                && identity_at(&self.pieces, self.first_piece, *other) == identity
        };
        match self.places.find_mut(place.check.into(), known) {
            Some(known) => *known = place,
            None => {
                let hash = |other: &Place| other.check.into();
                self.places.insert_unique(place.check.into(), place, hash);
            }
        }
    }

    fn begin_piece(&mut self) {
        if self.pieces.len() < MOST_PIECES {
            self.pieces.push_back(Vec::with_capacity(PIECE));
            return;
        }
        let Some(mut oldest) = self.pieces.pop_front() else {
            return;
        };
        let gone = self.first_piece;
        self.first_piece = gone.wrapping_add(1);
        self.places.retain(|place| place.piece != gone);
        oldest.clear();
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

fn bytes_at(pieces: &VecDeque<Vec<u8>>, first: u16, place: Place) -> &[u8] {
    let piece = pieces.get(place.piece.wrapping_sub(first).into());
    piece.map_or(&[], |piece| &piece[place.at.into()..])
}

fn identity_at(pieces: &VecDeque<Vec<u8>>, first: u16, place: Place) -> Identity {
    let mut decoder = Decoder::new(bytes_at(pieces, first, place));
    let mut halves = || {
        decoder.array().ok()?;
        Some((decoder.u64().ok()?, decoder.u64().ok()?))
    };
    let (high, low) = halves().unwrap_or_default();
    Identity(u128::from(high) << 64 | u128::from(low))
}

fn check_of(identity: Identity) -> u32 {
    identity.0 as u32
}

impl StoredCall {
    fn new(identity: Identity, call: &CountedCall) -> Self {
        let (told, cost) = (&call.told, &call.cost);
        let money = [
            cost.input,
            cost.cache_read,
            cost.cache_write,
            cost.output,
            cost.units,
            call.at_ceiling,
            told.reported_cost,
        ];
        // A call of a million dollars is refused before it comes here.
        let nanos = |amount: Nanos| i64::try_from(amount.get()).unwrap_or(i64::MAX);
        let units = told.units.iter();
        let units = units.flat_map(|(kind, quantity)| [*kind as i64, signed(quantity.0)]);
        Self {
            high: (identity.0 >> 64) as u64,
            low: identity.0 as u64,
            seq: call.address.seq,
            index: call.address.index,
            model: told.model,
            tokens: Numbers::without_zeros(told.tokens.each().into_iter().map(signed)),
            money: Numbers::without_zeros(money.into_iter().map(nanos)),
            tool_calls: told.tool_calls,
            is_estimate: told.is_estimate,
            units: (!told.units.is_empty()).then(|| Numbers(units.collect())),
            who: (told.who != Who::default()).then_some(WhoBytes(told.who)),
            has_ended: call.has_ended,
        }
    }

    fn identity(&self) -> Identity {
        Identity(u128::from(self.high) << 64 | u128::from(self.low))
    }

    /// As minicbor's derive encodes it, which takes four times as long: this is written for every
    /// event.
    fn write(&self, out: &mut Vec<u8>) {
        let unit_count = self.units.as_ref().map_or(0, |units| units.0.len());
        let count = self.tokens.0.len() + self.money.0.len() + unit_count;
        out.reserve(LONGEST_HEAD * (count + 12));
        let fields = match (self.has_ended, &self.who, &self.units, self.is_estimate) {
            (true, ..) => 12,
            (_, Some(_), ..) => 11,
            (_, _, Some(_), _) => 10,
            (_, _, _, true) => 9,
            _ => 8,
        };
        head(out, ARRAY, fields);
        head(out, UNSIGNED, self.high);
        head(out, UNSIGNED, self.low);
        head(out, UNSIGNED, self.seq);
        head(out, UNSIGNED, self.index.into());
        head(out, UNSIGNED, self.model.into());
        self.tokens.write(out);
        self.money.write(out);
        head(out, UNSIGNED, self.tool_calls.into());
        if fields > 8 {
            out.push(if self.is_estimate { TRUE } else { FALSE });
        }
        match &self.units {
            Some(units) => units.write(out),
            None if fields > 9 => out.push(NULL),
            None => {}
        }
        match &self.who {
            Some(WhoBytes(who)) => {
                head(out, BYTES, who.0.len() as u64);
                out.extend_from_slice(&who.0);
            }
            None if fields > 10 => out.push(NULL),
            None => {}
        }
        if self.has_ended {
            out.push(TRUE);
        }
    }

    /// `None` where it has units that this program does not know.
    fn read(&self, partition: u32) -> Option<CountedCall> {
        let mut tokens = TokenClasses::default();
        for class in TokenClass::ALL {
            tokens[class] = self.tokens.get(class as usize).unsigned_abs();
        }
        let units = self.units.as_ref().map_or(&[][..], |units| &units.0);
        let units = units.chunks_exact(2).map(|pair| {
            let kind = UnitKind::ALL.get(usize::try_from(pair[0]).ok()?)?;
            Some((*kind, Quantity(pair[1].unsigned_abs())))
        });
        let money = |place| Nanos::new(self.money.get(place).into());
        Some(CountedCall {
            address: MeterAddress {
                partition,
                seq: self.seq,
                index: self.index,
            },
            told: ToldCall {
                model: self.model,
                is_estimate: self.is_estimate,
                tokens,
                units: units.collect::<Option<_>>()?,
                tool_calls: self.tool_calls,
                reported_cost: money(6),
                who: self.who.as_ref().map_or(Who::default(), |who| who.0),
            },
            cost: CostParts {
                input: money(0),
                cache_read: money(1),
                cache_write: money(2),
                output: money(3),
                units: money(4),
            },
            at_ceiling: money(5),
            has_ended: self.has_ended,
        })
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Numbers {
    fn without_zeros(numbers: impl Iterator<Item = i64>) -> Self {
        let mut numbers: SmallVec<_> = numbers.collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Self(numbers)
    }

    fn get(&self, place: usize) -> i64 {
        self.0.get(place).copied().unwrap_or_default()
    }

    fn write(&self, out: &mut Vec<u8>) {
        head(out, ARRAY, self.0.len() as u64);
        for number in &self.0 {
            match u64::try_from(*number) {
                Ok(number) => head(out, UNSIGNED, number),
                Err(_) => head(out, NEGATIVE, !number.cast_unsigned()),
            }
        }
    }
}

/// Major types and simple values of CBOR (RFC 8949, 3).
const UNSIGNED: u8 = 0x00;
const NEGATIVE: u8 = 0x20;
const BYTES: u8 = 0x40;
const ARRAY: u8 = 0x80;
const TRUE: u8 = 0xf5;
const FALSE: u8 = 0xf4;
const NULL: u8 = 0xf6;
const LONGEST_HEAD: usize = 9;

/// Appends the head of a CBOR item.
#[inline]
fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

impl<'b, C> Decode<'b, C> for Numbers {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let numbers = decoder.array_iter::<i64>()?;
        numbers.collect::<Result<_, _>>().map(Self)
    }
}

impl<'b, C> Decode<'b, C> for WhoBytes {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut who = Who::default();
        let written = decoder.bytes()?;
        who.0
            .iter_mut()
            .zip(written)
            .for_each(|(byte, written)| *byte = *written);
        Ok(Self(who))
    }
}

#[cfg(test)]
mod tests {
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

    impl<C> minicbor::Encode<C> for Numbers {
        fn encode<W: minicbor::encode::Write>(
            &self,
            encoder: &mut minicbor::Encoder<W>,
            _: &mut C,
        ) -> Result<(), minicbor::encode::Error<W::Error>> {
            encoder.array(self.0.len() as u64)?;
            for number in &self.0 {
                encoder.i64(*number)?;
            }
            Ok(())
        }
    }

    impl<C> minicbor::Encode<C> for WhoBytes {
        fn encode<W: minicbor::encode::Write>(
            &self,
            encoder: &mut minicbor::Encoder<W>,
            _: &mut C,
        ) -> Result<(), minicbor::encode::Error<W::Error>> {
            encoder.bytes(&self.0.0)?.ok()
        }
    }

    #[test]
    fn a_call_is_written_as_minicbor_writes_it() {
        let numbers = [0, 1, 23, 24, 255, 256, 65_535, 65_536, 1 << 32, i64::MAX];
        let signed = || numbers.into_iter().flat_map(|number| [number, -1 - number]);
        for (place, number) in signed().enumerate() {
            let unsigned = number.unsigned_abs();
            let stored = StoredCall {
                high: unsigned,
                low: unsigned / 3,
                seq: unsigned >> 1,
                index: unsigned as u32,
                model: (unsigned >> 7) as u32,
                tokens: Numbers::without_zeros(signed().take(place)),
                money: Numbers::without_zeros([number, 0, 0].into_iter()),
                tool_calls: (unsigned >> 3) as u32,
                is_estimate: place % 3 == 0,
                units: (place % 4 == 0).then(|| Numbers(signed().collect())),
                who: (place % 5 == 0).then_some(WhoBytes(Who([place as u8; Who::BYTES]))),
                has_ended: place % 7 == 0,
            };
            let mut written = Vec::new();
            stored.write(&mut written);
            assert_eq!(written, minicbor::to_vec(&stored).unwrap(), "{stored:?}");
        }
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
