//! How internal records (deltas, changelog) are written: one version byte, then CBOR.
//!
//! Structures are CBOR arrays. New fields are appended with a default, so that a newer binary reads
//! what an older one wrote and an older one skips what it does not know.

use minicbor::{Decode, Decoder, Encode};

/// The version that this binary writes; it reads this one and all before.
pub const FORMAT_VERSION: u8 = 1;

/// A stored record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer binary.
    #[error(
        "record has format version {found}, this binary knows up to {FORMAT_VERSION}; run a newer spendfuse"
    )]
    Newer {
        /// The version byte found.
        found: u8,
    },
    /// Empty, cut off or damaged.
    #[error("record cannot be decoded: {0}")]
    Damaged(String),
}

/// Writes `value` with its version byte.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    // Most records fit: growing step by step would cost more than the encoding.
    encode_large(value, 512)
}

/// The same for a record that takes about so many bytes.
pub fn encode_large<T: Encode<()>>(value: &T, about_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(about_bytes);
    bytes.push(FORMAT_VERSION);
    minicbor::encode(value, &mut bytes).expect("writing to a Vec cannot fail");
    bytes
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`CodecError`] when the record is newer than this binary or damaged.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&FORMAT_VERSION, body)) => {
            minicbor::decode(body).map_err(|error| CodecError::Damaged(error.to_string()))
        }
        Some((&found, _)) if found > FORMAT_VERSION => Err(CodecError::Newer { found }),
        _ => Err(CodecError::Damaged("no version byte".to_owned())),
    }
}

/// Whether null stands for a field, which is passed then: a field that is left out has it where
/// others follow.
fn is_left_out(decoder: &mut Decoder<'_>) -> Result<bool, minicbor::decode::Error> {
    let is_null = decoder.datatype()? == minicbor::data::Type::Null;
    if is_null {
        decoder.skip()?;
    }
    Ok(is_null)
}

/// A whole number as a pair of its high and low 64 bits: CBOR has no 128-bit integer.
pub mod wide {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    /// Writes the pair.
    pub fn encode<C, W: Write>(
        number: &i128,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder
            .array(2)?
            .i64((number >> 64) as i64)?
            .u64(*number as u64)?
            .ok()
    }

    /// Reads the pair.
    pub fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<i128, DecodeError> {
        decoder.array()?;
        let high = i128::from(decoder.i64()?);
        let low = i128::from(decoder.u64()?);
        Ok((high << 64) | low)
    }
}

/// [`Nanos`](spendfuse_domain::Nanos) as a [`wide`] number.
pub mod nanos {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};
    use spendfuse_domain::Nanos;

    /// Writes the pair.
    pub fn encode<C, W: Write>(
        amount: &Nanos,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        super::wide::encode(&amount.get(), encoder, context)
    }

    /// Reads the pair.
    pub fn decode<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<Nanos, DecodeError> {
        super::wide::decode(decoder, context).map(Nanos::new)
    }
}

/// [`UnixMillis`](spendfuse_domain::UnixMillis) as an integer.
pub mod millis {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};
    use spendfuse_domain::UnixMillis;

    /// Writes the milliseconds.
    pub fn encode<C, W: Write>(
        time: &UnixMillis,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.i64(time.0)?.ok()
    }

    /// Reads the milliseconds.
    pub fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<UnixMillis, DecodeError> {
        Ok(UnixMillis(decoder.i64()?))
    }
}

/// Offsets by partition, as a field that was appended: nothing is written where there are none.
pub mod offsets {
    use std::collections::BTreeMap;

    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decode as _, Decoder, Encode as _, Encoder};

    /// Writes them.
    pub fn encode<C, W: Write>(
        offsets: &BTreeMap<u32, i64>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        offsets.encode(encoder, context)
    }

    /// Reads them.
    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<BTreeMap<u32, i64>, DecodeError> {
        match super::is_left_out(decoder)? {
            true => Ok(BTreeMap::new()),
            false => BTreeMap::decode(decoder, context),
        }
    }

    /// What is left out.
    pub fn is_nil(offsets: &BTreeMap<u32, i64>) -> bool {
        offsets.is_empty()
    }

    /// What is meant where nothing stands.
    pub fn nil() -> Option<BTreeMap<u32, i64>> {
        Some(BTreeMap::new())
    }
}

/// Bytes, as a field that was appended: nothing is written where there are none.
pub mod bytes {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    /// Writes them.
    pub fn encode<C, W: Write>(
        bytes: &[u8],
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(bytes)?.ok()
    }

    /// Reads them.
    pub fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u8>, DecodeError> {
        Ok(match super::is_left_out(decoder)? {
            true => Vec::new(),
            false => decoder.bytes()?.to_vec(),
        })
    }

    /// What is left out.
    pub fn is_nil(bytes: &[u8]) -> bool {
        bytes.is_empty()
    }

    /// What is meant where nothing stands.
    pub fn nil() -> Option<Vec<u8>> {
        Some(Vec::new())
    }
}

/// A field that was appended: only `true` is written, so that records without it stay as they were.
pub mod only_true {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    /// Writes it.
    pub fn encode<C, W: Write>(
        is_so: &bool,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bool(*is_so)?.ok()
    }

    /// Reads it.
    pub fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<bool, DecodeError> {
        Ok(!super::is_left_out(decoder)? && decoder.bool()?)
    }

    /// What is left out.
    pub fn is_nil(is_so: &bool) -> bool {
        !is_so
    }

    /// What is meant where nothing stands.
    pub fn nil() -> Option<bool> {
        Some(false)
    }
}

/// An optional time.
pub mod optional_millis {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};
    use spendfuse_domain::UnixMillis;

    /// Writes the milliseconds or null.
    pub fn encode<C, W: Write>(
        time: &Option<UnixMillis>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match time {
            Some(time) => super::millis::encode(time, encoder, context),
            None => encoder.null()?.ok(),
        }
    }

    /// Reads the milliseconds or null.
    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<Option<UnixMillis>, DecodeError> {
        match super::is_left_out(decoder)? {
            true => Ok(None),
            false => super::millis::decode(decoder, context).map(Some),
        }
    }
}

/// A list of `(source, id, time)` of events.
pub mod event_refs {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};
    use spendfuse_domain::verdict::EventRef;

    /// Writes one array of three a reference.
    pub fn encode<C, W: Write>(
        events: &[EventRef],
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.array(events.len() as u64)?;
        for event in events {
            encoder.array(3)?.str(&event.source)?.str(&event.id)?;
            super::optional_millis::encode(&event.time, encoder, context)?;
        }
        Ok(())
    }

    /// Reads them.
    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<Vec<EventRef>, DecodeError> {
        let count = decoder
            .array()?
            .ok_or_else(|| DecodeError::message("list without a length"))?;
        // No more room than needed: millions of accounts hold one event each.
        let mut events = Vec::with_capacity(count.min(16) as usize);
        for _ in 0..count {
            decoder.array()?;
            events.push(EventRef {
                source: decoder.str()?.to_owned(),
                id: decoder.str()?.to_owned(),
                time: super::optional_millis::decode(decoder, context)?,
            });
        }
        Ok(events)
    }
}
