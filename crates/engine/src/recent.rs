//! How fast an account or a session spends: what was spent in the last hour, minute by minute where
//! it is fresh and in pieces of five minutes of the clock where it is older.
//!
//! A sum belongs to the minute of the events' own time, so that a spool that is played back does not
//! look like a burst. Sums are exact; the two windows move by whole pieces:
//! * the *last five minutes* are the running minute and the four before it;
//! * the *last hour* is every piece of five minutes that began within the last sixty minutes, the
//!   running one included: 55 to 60 minutes.
//!
//! At most 17 sums are kept, most accounts have one or two.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use spendfuse_domain::rates::Rates;
use spendfuse_domain::{Amount, Unit, UnixMillis};

const HOUR_MINUTES: i64 = 60;
const FRESH_MINUTES: i64 = 5;
/// Sums that are kept: five minutes, and twelve pieces of five minutes.
#[cfg(test)]
const MOST_PIECES: usize = 17;
/// What can be foreseen, milliseconds: beyond a year nobody asks.
const FORESEEN: i128 = 366 * 24 * 3_600_000;
const HOUR_MILLIS: i128 = 3_600_000;

/// What was spent lately, in one unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    unit: Unit,
    /// In the order of time; those below [`FRESH_MINUTES`] may be of a minute, older ones are of
    /// five, named by the first.
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    /// Minutes since 1970.
    minute: i64,
    /// Nano-dollars, tokens or calls.
    number: i64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            unit: Unit::Usd,
            pieces: Vec::new(),
        }
    }
}

impl Recent {
    /// Adds what was spent in `minute`, as it is counted at `now`. A minute that lies ahead counts
    /// as the running one, spend of before the last hour is not recent.
    pub fn add(&mut self, amount: Amount, minute: i64, now: UnixMillis) {
        let now = now.minute();
        let minute = minute.min(now);
        if !is_in_hour(minute, now) || amount.number() == 0 {
            return;
        }
        if amount.unit() != self.unit {
            // The limit is in another unit since then: what was added before says nothing of it.
            self.unit = amount.unit();
            self.pieces.clear();
        }
        let number = i64::try_from(amount.number()).unwrap_or(i64::MAX);
        // Nearly always the minute of the sum before.
        if let Some(last) = self.pieces.last_mut()
            && last.minute == minute
            && is_fresh(minute, now)
        {
            last.number = last.number.saturating_add(number);
            return;
        }
        self.gather(now);
        let minute = match is_fresh(minute, now) {
            true => minute,
            false => piece_of(minute),
        };
        match self.pieces.binary_search_by_key(&minute, |one| one.minute) {
            Ok(place) => {
                let sum = &mut self.pieces[place].number;
                *sum = sum.saturating_add(number);
            }
            Err(place) => {
                // By itself it would make room for four, and there are millions of accounts.
                self.pieces.reserve_exact(1);
                self.pieces.insert(place, Piece { minute, number });
            }
        }
    }

    /// Puts minutes that are not fresh any more into their piece, and forgets what is older than an
    /// hour.
    fn gather(&mut self, now: i64) {
        self.pieces.retain(|piece| is_in_hour(piece.minute, now));
        for piece in &mut self.pieces {
            if !is_fresh(piece.minute, now) {
                piece.minute = piece_of(piece.minute);
            }
        }
        self.pieces.dedup_by(|later, earlier| {
            let is_same = later.minute == earlier.minute;
            if is_same {
                earlier.number = earlier.number.saturating_add(later.number);
            }
            is_same
        });
    }

    /// How fast it spends at `now`, in `unit` an hour.
    pub fn rates(&self, unit: Unit, now: UnixMillis) -> Rates {
        let now = now.minute();
        let sum = |counts: fn(i64, i64) -> bool| -> i128 {
            let pieces = self.pieces.iter().filter(|_| self.unit == unit);
            let counted = pieces.filter(|piece| counts(piece.minute, now));
            counted.map(|piece| i128::from(piece.number)).sum()
        };
        let pieces_an_hour = i128::from(HOUR_MINUTES / FRESH_MINUTES);
        Rates {
            hour: Some(Amount::new(unit, sum(is_in_hour))),
            five_minutes: Some(Amount::new(unit, sum(is_fresh) * pieces_an_hour)),
        }
    }
}

/// When `spent` reaches `limit` if the higher of both rates goes on. Nothing where it is reached,
/// where nothing is spent, where that is not before `ends_at`, or more than a year away.
pub fn exhausts_at(
    rates: &Rates,
    spent: Amount,
    limit: Amount,
    ends_at: Option<UnixMillis>,
    now: UnixMillis,
) -> Option<UnixMillis> {
    let remaining = (limit - spent).number();
    let rate = rates.higher()?.number();
    if remaining <= 0 || rate <= 0 {
        return None;
    }
    let millis = remaining.checked_mul(HOUR_MILLIS)? / rate;
    let time = now.plus(i64::try_from(millis).ok()?);
    let is_before_end = ends_at.is_none_or(|end| time < end);
    (millis <= FORESEEN && is_before_end).then_some(time)
}

/// The first minute of the piece of five minutes of the clock that `minute` lies in.
fn piece_of(minute: i64) -> i64 {
    minute.div_euclid(FRESH_MINUTES) * FRESH_MINUTES
}

fn is_fresh(minute: i64, now: i64) -> bool {
    now - minute < FRESH_MINUTES
}

fn is_in_hour(minute: i64, now: i64) -> bool {
    now - piece_of(minute) < HOUR_MINUTES
}

/// One array: the unit, then pairs of a minute and a sum; the first minute since 1970, each other
/// one since the one before, since an account is written with every commit that changes it.
impl<C> Encode<C> for Recent {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder
            .array(1 + 2 * self.pieces.len() as u64)?
            .u8(self.unit as u8)?;
        let mut before = 0;
        for piece in &self.pieces {
            encoder.i64(piece.minute - before)?.i64(piece.number)?;
            before = piece.minute;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Recent {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let length = decoder
            .array()?
            .ok_or_else(|| DecodeError::message("sums of minutes without a length"))?;
        let unit = match decoder.u8()? {
            0 => Unit::Usd,
            1 => Unit::Tokens,
            2 => Unit::Calls,
            _ => return Err(DecodeError::message("sums of minutes in an unknown unit")),
        };
        let count = length.saturating_sub(1) / 2;
        // No more room than needed, whatever the length says.
        let mut pieces = Vec::with_capacity(count.min(32) as usize);
        let mut before = 0_i64;
        for _ in 0..count {
            let minute = before.saturating_add(decoder.i64()?);
            let number = decoder.i64()?;
            pieces.push(Piece { minute, number });
            before = minute;
        }
        Ok(Self { unit, pieces })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    const BEGIN: i64 = 29_916_720;

    /// All that was ever added, with the minute at which it was counted.
    #[derive(Default)]
    struct Naive(Vec<(i64, i64, i64)>);

    impl Naive {
        /// By the words of the page: nothing is gathered or forgotten.
        fn rates(&self, now: i64) -> (i128, i128) {
            let mut hour = 0;
            let mut five = 0;
            for (minute, counted, number) in &self.0 {
                let minute = *minute.min(counted);
                let began = minute - minute.rem_euclid(5);
                if began <= counted - 60 {
                    continue;
                }
                if began > now - 60 {
                    hour += i128::from(*number);
                }
                if minute > now - 5 {
                    five += i128::from(*number);
                }
            }
            (hour, five * 12)
        }
    }

    fn numbers(rates: &Rates) -> (i128, i128) {
        (
            rates.hour.unwrap().number(),
            rates.five_minutes.unwrap().number(),
        )
    }

    fn at(minute: i64) -> UnixMillis {
        UnixMillis::from_minute(minute)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn rates_are_those_of_a_model_that_forgets_nothing(
            steps in proptest::collection::vec((0_i64..9, -80_i64..4, 0_i64..1_000, any::<bool>()), 1..120),
        ) {
            let mut recent = Recent::default();
            let mut naive = Naive::default();
            let mut now = BEGIN;
            for (passed, age, number, restart) in steps {
                // Most of what comes is of the running minute.
                now += passed / 3;
                let minute = now + if age % 3 == 0 { age } else { 0 };
                recent.add(Amount::Calls(number.into()), minute, at(now));
                naive.0.push((minute, now, number));
                if restart {
                    recent = codec::decode(&codec::encode(&recent)).unwrap();
                }
                for later in [0, 1, 4, 5, 30, 61] {
                    let rates = recent.rates(Unit::Calls, at(now + later));
                    prop_assert_eq!(numbers(&rates), naive.rates(now + later));
                }
                prop_assert!(recent.pieces.len() <= MOST_PIECES, "{:?}", recent);
            }
        }
    }

    #[test]
    fn a_limit_in_another_unit_begins_anew() {
        let mut recent = Recent::default();
        recent.add(Amount::Tokens(500), BEGIN, at(BEGIN));
        assert_eq!(numbers(&recent.rates(Unit::Usd, at(BEGIN))), (0, 0));
        recent.add(Amount::Calls(1), BEGIN, at(BEGIN));
        assert_eq!(numbers(&recent.rates(Unit::Calls, at(BEGIN))), (1, 12));
        assert_eq!(numbers(&recent.rates(Unit::Tokens, at(BEGIN))), (0, 0));
    }

    #[test]
    fn the_end_is_foreseen_by_the_higher_rate_and_only_within_the_window() {
        let rates = |hour, five| Rates {
            hour: Some(Amount::Calls(hour)),
            five_minutes: Some(Amount::Calls(five)),
        };
        let (now, left) = (at(BEGIN), |spent| {
            (Amount::Calls(spent), Amount::Calls(100))
        });
        let when = |rates: Rates, spent, ends_at| {
            let (spent, limit) = left(spent);
            exhausts_at(&rates, spent, limit, ends_at, now)
        };
        let half_hour = at(BEGIN + 30);
        assert_eq!(when(rates(40, 40), 80, None), Some(half_hour));
        assert_eq!(when(rates(40, 10), 80, None), Some(half_hour));
        assert_eq!(when(rates(10, 40), 80, None), Some(half_hour));
        assert_eq!(
            when(rates(40, 40), 80, Some(half_hour)),
            None,
            "it ends first"
        );
        assert_eq!(when(rates(0, 0), 80, None), None);
        assert_eq!(when(rates(40, 40), 100, None), None, "it is reached");
        assert_eq!(when(rates(1, 0), -100_000, None), None, "years away");
    }
}
