//! Keys: who may ask what, and whom it counts against. One kind for the sidecar and the proxy.
//!
//! A key is 256 random bits as text ([`PREFIX`] and 64 hexadecimal digits); only its SHA-256 is kept.
//! [`Keyring`] holds those in force, which may be replaced at any time; [`login`] finds the one that a
//! request presents, [`Caller`] is what the request may do then.

mod failures;
mod login;
mod ring;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use login::{Denied, Presented, TOKEN_HEADER};
pub use ring::{BadKeys, Keyring};

/// What every key begins with; nothing that does ever goes to a provider.
pub const PREFIX: &str = "sf-";

/// What a key's owner may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Ask whether calls may go ahead, and hold what they may cost.
    Check,
    /// Tell of calls.
    Usage,
    /// Read what is spent.
    State,
    /// Give sessions limits.
    Limits,
    /// Use other clients' endpoints.
    Compat,
    /// All of these.
    Admin,
}

/// Where a request may carry a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `Authorization: Bearer …`.
    Bearer,
    /// `x-spendfuse-token`, and the headers in which providers' clients send theirs.
    Header,
    /// The query, as `key`.
    Query,
}

/// Values that have names, each at most once.
macro_rules! named {
    ($type:ty, $($name:literal = $value:expr),*) => {
        impl $type {
            /// All with their names.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($name, $value)),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                let mut all = Self::ALL.iter();
                all.find(|(_, one)| *one == self).map_or("", |(name, _)| *name)
            }

            /// The one with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                let mut all = Self::ALL.iter();
                all.find(|(known, _)| *known == name).map(|(_, one)| *one)
            }
        }
    };
}

named!(
    Right,
    "check" = Self::Check,
    "usage" = Self::Usage,
    "state" = Self::State,
    "limits" = Self::Limits,
    "compat" = Self::Compat,
    "admin" = Self::Admin
);
named!(
    Place,
    "bearer" = Self::Bearer,
    "header" = Self::Header,
    "query" = Self::Query
);

/// The SHA-256 of a key.
#[derive(Clone, Copy, Debug)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of what somebody presents.
    pub fn of(presented: &[u8]) -> Self {
        Self(Sha256::digest(presented).into())
    }

    /// As `spendfuse keys new` writes it: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let value = |digit: u8| char::from(digit).to_digit(16);
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
        }
        Some(Self(hash))
    }

    /// What keys are looked up by: any eight bytes of a hash tell keys apart.
    fn first(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }

    /// Takes as long for a near miss as for a far one.
    fn is(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        pairs.fold(0, |bits, (one, other)| bits | (one ^ other)) == 0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.iter();
        bytes.try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// One key: what its owner may do, and whom that counts against.
#[derive(Clone, Debug)]
pub struct Key {
    /// Of the text that its owner has.
    pub hash: KeyHash,
    /// How it is spoken of; the source of events that name none.
    pub name: String,
    /// The only workspace that its owner sees and spends in; `None` = every one.
    pub workspace: Option<String>,
    /// What its owner may do.
    pub rights: Vec<Right>,
    /// Where it may be presented.
    pub accept: Vec<Place>,
    /// Dimensions whose values its owner cannot choose, by their dotted names.
    pub attribution: BTreeMap<String, String>,
    /// The proxy's upstreams that it is for, which are for no other keys then; empty = those that no
    /// key names.
    pub upstreams: Vec<String>,
}

impl Key {
    /// Rights of keys that name none: those of an app.
    pub const USUAL_RIGHTS: [Right; 3] = [Right::Check, Right::Usage, Right::State];
    /// Where keys may be presented that do not say it. Addresses end up in logs.
    pub const USUAL_PLACES: [Place; 2] = [Place::Bearer, Place::Header];

    /// Dimensions that are as the key says, whatever its owner does; the workspace first.
    pub fn imposed(&self) -> impl Iterator<Item = (&str, &str)> {
        let workspace = self.workspace.as_deref();
        let workspace = workspace.map(|workspace| ("workspace", workspace));
        let others = self.attribution.iter();
        let others = others.map(|(name, value)| (name.as_str(), value.as_str()));
        workspace.into_iter().chain(others)
    }
}

/// Whoever asks: the owner of a key, or somebody from whom none is demanded, who may do everything.
#[derive(Clone, Debug, Default)]
pub struct Caller(Option<Arc<Key>>);

impl Caller {
    /// The owner of `key`.
    pub fn of(key: Arc<Key>) -> Self {
        Self(Some(key))
    }

    /// The key, where one was presented.
    pub fn key(&self) -> Option<&Key> {
        self.0.as_deref()
    }

    /// The only workspace of this caller; `None` = every one.
    pub fn workspace(&self) -> Option<&str> {
        self.key()?.workspace.as_deref()
    }

    /// Whether the caller has this right.
    pub fn may(&self, right: Right) -> bool {
        self.key()
            .is_none_or(|key| key.rights.contains(&right) || key.rights.contains(&Right::Admin))
    }

    /// Dimensions that the caller cannot choose.
    pub fn imposed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.key().into_iter().flat_map(Key::imposed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let hash = KeyHash::of(b"sf-1");
        let read = KeyHash::parse(&hash.to_string()).unwrap();
        assert!(read.is(&hash) && !read.is(&KeyHash::of(b"sf-2")));
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
            assert!(KeyHash::parse(wrong).is_none(), "{wrong}");
        }
    }
}
