//! A counted call as it is written.

use minicbor::{Decode, Decoder};
use smallvec::SmallVec;
use spendfuse_domain::growth::{ToldCall, Who};
use spendfuse_domain::row::{CostParts, MeterAddress};
use spendfuse_domain::units::{Quantity, UnitKind};
use spendfuse_domain::{Identity, Nanos, TokenClass, TokenClasses, UnixMillis};

use super::counted_call::CountedCall;
use super::estimated::Estimated;
use super::stored_texts::Texts;
use crate::codec;

/// A call as it is written: an entry of `calls` in a record of the ids changelog. What is absent is 0.
#[derive(Debug, Default, Decode)]
#[cfg_attr(test, derive(minicbor::Encode))]
pub(super) struct StoredCall {
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
    /// Of an estimate: its event's time.
    #[n(12)]
    estimated_at: Option<i64>,
    /// Its names by their dimensions' numbers, without the empty ones at the end.
    #[n(13)]
    estimated_who: Option<Texts>,
    /// Names and values of its tags, in turn.
    #[n(14)]
    estimated_tags: Option<Texts>,
}

/// A short list of numbers.
#[derive(Debug, Default)]
struct Numbers(SmallVec<[i64; 12]>);

/// A [`Who`] as bytes; those that a later release adds are not known here.
#[derive(Debug)]
struct WhoBytes(Who);

/// The identity of the call that begins here, without the rest of it.
pub(super) fn identity_in(bytes: &[u8]) -> Identity {
    let mut decoder = Decoder::new(bytes);
    let mut halves = || {
        decoder.array().ok()?;
        Some((decoder.u64().ok()?, decoder.u64().ok()?))
    };
    let (high, low) = halves().unwrap_or_default();
    joined(high, low)
}

fn joined(high: u64, low: u64) -> Identity {
    Identity(u128::from(high) << 64 | u128::from(low))
}

impl StoredCall {
    pub(super) fn new(identity: Identity, call: &CountedCall) -> Self {
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
        let estimated = call.estimated.as_deref();
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
            estimated_at: estimated.map(|one| one.time.0),
            estimated_who: estimated.map(|one| Texts::of_names(&one.who)),
            estimated_tags: estimated.map(|one| Texts::of_tags(&one.who)),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        joined(self.high, self.low)
    }

    /// As minicbor's derive encodes it, which takes four times as long: this is written for every
    /// event.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let unit_count = self.units.as_ref().map_or(0, |units| units.0.len());
        let count = self.tokens.0.len() + self.money.0.len() + unit_count;
        out.reserve(LONGEST_HEAD * (count + 12));
        let texts = self
            .estimated_who
            .as_ref()
            .zip(self.estimated_tags.as_ref());
        let estimated = self.estimated_at.zip(texts);
        let fields = match (self.has_ended, &self.who, &self.units, self.is_estimate) {
            _ if estimated.is_some() => 15,
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
        if fields > 11 {
            out.push(if self.has_ended { TRUE } else { FALSE });
        }
        if let Some((time, (who, tags))) = estimated {
            signed_head(out, time);
            who.write(out);
            tags.write(out);
        }
    }

    /// As it was counted in meter partition `partition`; `None` where it has units that this program
    /// does not know.
    pub(super) fn read(&self, partition: u32) -> Option<CountedCall> {
        // Of what was corrected an older release kept nothing, and no commit has number 0.
        if self.seq == 0 {
            return None;
        }
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
            estimated: self.estimated().map(Box::new),
            has_ended: self.has_ended,
        })
    }
}

impl StoredCall {
    fn estimated(&self) -> Option<Estimated> {
        let texts = self
            .estimated_who
            .as_ref()
            .zip(self.estimated_tags.as_ref());
        let (names, tags) = texts?;
        Some(Estimated {
            time: UnixMillis(self.estimated_at?),
            who: Texts::attribution(names, tags),
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
            signed_head(out, *number);
        }
    }
}

/// Major types and simple values of CBOR (RFC 8949, 3).
const UNSIGNED: u8 = 0x00;
const NEGATIVE: u8 = 0x20;
const BYTES: u8 = 0x40;
pub(super) const TEXT: u8 = 0x60;
pub(super) const ARRAY: u8 = 0x80;
const TRUE: u8 = 0xf5;
const FALSE: u8 = 0xf4;
const NULL: u8 = 0xf6;
const LONGEST_HEAD: usize = 9;

/// Appends a number.
fn signed_head(out: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(number) => head(out, UNSIGNED, number),
        Err(_) => head(out, NEGATIVE, !number.cast_unsigned()),
    }
}

/// Appends the head of a CBOR item.
#[inline]
pub(super) fn head(out: &mut Vec<u8>, major: u8, value: u64) {
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
                estimated_at: (place % 11 == 0).then_some(number),
                estimated_who: (place % 11 == 0).then(|| Texts(vec!["c-1".to_owned(); place])),
                estimated_tags: (place % 11 == 0).then(|| Texts(vec!["x".repeat(300); 2])),
            };
            let mut written = Vec::new();
            stored.write(&mut written);
            assert_eq!(written, minicbor::to_vec(&stored).unwrap(), "{stored:?}");
        }
    }
}
