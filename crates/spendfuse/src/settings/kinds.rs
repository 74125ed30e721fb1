//! The kinds of values that settings have, and how each is read from text.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use spendfuse_domain::budget::ReserveRule;
use spendfuse_guard::ColdStart;
use spendfuse_notify::{QuietHours, Security};
use spendfuse_proxy::OnDowngrade;
use spendfuse_sidecar::{MargintDowngrade, RefusalStatus};

use super::{ResolvedSettings, SettingsError, wrong};

/// A kind of value.
pub trait Kind: Sized {
    /// The value of `text`, or what is wrong with it and what to write.
    fn read(text: &str) -> Result<Self, &'static str>;
}

/// The value of `key`.
pub fn read<T: Kind>(resolved: &ResolvedSettings, key: &str) -> Result<T, SettingsError> {
    let text = resolved.get(key).map_or("", |found| &found.value);
    T::read(text).map_err(|reason| wrong(resolved, key, reason))
}

/// Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub i64);

/// How long identities are remembered, milliseconds; at least a minute: clocks of senders and brokers
/// differ by seconds, and what is older than the horizon is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon(pub i64);

/// A duration that is longer than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(pub Duration);

/// For how long rows are kept: 1 to 600 months. ClickHouse's times end in 2106 and begin again in 1970,
/// so that rows which are to go after that would be gone at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Months(pub u32);

/// A part of names of topics, for which Kafka takes certain characters only and 249 of them at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaName(pub String);

/// A process's name: a part of names of members of groups, and of addresses of reservations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceName(pub String);

/// Names, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub HashSet<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(hidden)")
    }
}

impl Kind for String {
    fn read(text: &str) -> Result<Self, &'static str> {
        Ok(text.to_owned())
    }
}

impl Kind for Secret {
    fn read(text: &str) -> Result<Self, &'static str> {
        Ok(Self(text.to_owned()))
    }
}

impl Kind for PathBuf {
    fn read(text: &str) -> Result<Self, &'static str> {
        Ok(text.into())
    }
}

impl Kind for bool {
    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse().map_err(|_| "write true or false")
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    let digits = text.replace('_', "");
    let reason = "not a number in range; write digits";
    digits.parse().map_err(|_| reason)
}

macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl Kind for $type {
            fn read(text: &str) -> Result<Self, &'static str> {
                number(text)
            }
        })*
    };
}

numbers!(i32, u16, u32, u64, usize);

impl Kind for NonZeroU32 {
    fn read(text: &str) -> Result<Self, &'static str> {
        Self::new(number(text)?).ok_or("at least 1")
    }
}

impl Kind for NonZeroUsize {
    fn read(text: &str) -> Result<Self, &'static str> {
        Self::new(number(text)?).ok_or("at least 1")
    }
}

/// Such as `24h`, `1h 30m` or `5ms`.
impl Kind for Duration {
    fn read(text: &str) -> Result<Self, &'static str> {
        let reason = "not a duration; write 24h, 15m, 10s or 5ms";
        let parsed: SignedDuration = text.parse().map_err(|_| reason)?;
        Self::try_from(parsed).map_err(|_| reason)
    }
}

impl Kind for Millis {
    fn read(text: &str) -> Result<Self, &'static str> {
        let millis = Duration::read(text)?.as_millis();
        match i64::try_from(millis) {
            Ok(0) => Err("at least 1ms, such as 1h"),
            Ok(millis) => Ok(Self(millis)),
            Err(_) => Err("too long"),
        }
    }
}

impl Kind for Horizon {
    fn read(text: &str) -> Result<Self, &'static str> {
        match Millis::read(text)?.0 {
            ..60_000 => Err("at least 1m: events that are older are late, and not counted"),
            millis => Ok(Self(millis)),
        }
    }
}

impl Kind for Patience {
    fn read(text: &str) -> Result<Self, &'static str> {
        let patience = Duration::read(text)?;
        match patience.is_zero() {
            true => Err("longer than nothing, such as 15s"),
            false => Ok(Self(patience)),
        }
    }
}

impl Kind for Months {
    fn read(text: &str) -> Result<Self, &'static str> {
        match number::<u32>(text)? {
            months @ 1..=600 => Ok(Self(months)),
            _ => Err("from 1 to 600; with any other number rows would be gone at once"),
        }
    }
}

impl Kind for KafkaName {
    fn read(text: &str) -> Result<Self, &'static str> {
        match is_plain(text, "._-") {
            true => Ok(Self(text.to_owned())),
            false => Err("letters, digits, dots, - and _ only, 200 at most: Kafka takes no others"),
        }
    }
}

impl Kind for InstanceName {
    fn read(text: &str) -> Result<Self, &'static str> {
        match is_plain(text, "._-:@") {
            true => Ok(Self(text.to_owned())),
            false => Err("letters, digits, dots, -, _, : and @ only, 200 at most"),
        }
    }
}

fn is_plain(text: &str, signs: &str) -> bool {
    let plain = |one: char| one.is_ascii_alphanumeric() || signs.contains(one);
    text.len() <= 200 && text.chars().all(plain)
}

impl Kind for Names {
    fn read(text: &str) -> Result<Self, &'static str> {
        let names = text.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        Ok(Self(names.map(str::to_owned).collect()))
    }
}

/// Nothing where the text is empty.
impl<T: Kind> Kind for Option<T> {
    fn read(text: &str) -> Result<Self, &'static str> {
        match text.is_empty() {
            true => Ok(None),
            false => T::read(text).map(Some),
        }
    }
}

impl Kind for SocketAddr {
    fn read(text: &str) -> Result<Self, &'static str> {
        let reason = "write an address such as 127.0.0.1:4117, or nothing for none";
        text.parse().map_err(|_| reason)
    }
}

impl Kind for spendfuse_proxy::OnUnmetered {
    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl Kind for OnDowngrade {
    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl Kind for ColdStart {
    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "allow" => Ok(Self::Allow),
            "block" => Ok(Self::Block),
            _ => Err("write allow or block"),
        }
    }
}

impl Kind for ReserveRule {
    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl Kind for QuietHours {
    fn read(text: &str) -> Result<Self, &'static str> {
        Self::parse(text)
            .ok_or("write HH:MM-HH:MM and a time zone, such as 22:00-07:00 Europe/Berlin")
    }
}

impl Kind for Security {
    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "starttls" => Ok(Self::StartTls),
            "tls" => Ok(Self::Tls),
            "none" => Ok(Self::None),
            _ => Err("write starttls, tls or none"),
        }
    }
}

impl Kind for MargintDowngrade {
    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl Kind for RefusalStatus {
    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_reads_what_people_write_and_says_what_to_write_instead() {
        assert_eq!(u64::read("1_000_000"), Ok(1_000_000));
        assert_eq!(u32::read("-1"), Err("not a number in range; write digits"));
        assert_eq!(NonZeroU32::read("0"), Err("at least 1"));
        assert_eq!(Duration::read("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(Duration::read("-5s").is_err() && Duration::read("5").is_err());
        assert_eq!(Millis::read("24h"), Ok(Millis(86_400_000)));
        assert!(Patience::read("0s").is_err());
        assert!(Millis::read("0s").is_err() && Millis::read("1us").is_err());
        assert_eq!(Months::read("600"), Ok(Months(600)));
        assert!(Months::read("0").is_err() && Months::read("1200").is_err());
        assert!(KafkaName::read("prod.eu-1_").is_ok() && KafkaName::read("").is_ok());
        assert!(InstanceName::read("Proxy_2@web-1.eu:4119").is_ok());
        assert!(InstanceName::read("web/1").is_err() && InstanceName::read("web 1").is_err());
        assert!(KafkaName::read("prod eu.").is_err() && KafkaName::read("\u{1b}[2J").is_err());
        assert_eq!(Horizon::read("1m"), Ok(Horizon(60_000)));
        assert!(Horizon::read("59s").is_err() && Horizon::read("0s").is_err());
        assert_eq!(Option::<SocketAddr>::read(""), Ok(None));
        assert!(Option::<SocketAddr>::read("4117").is_err());
        let names = ["openrouter", "litellm"].map(str::to_owned);
        let read = Names::read(" openrouter,, litellm ");
        assert_eq!(read, Ok(Names(HashSet::from(names))));
        assert!(!format!("{:?}", Secret::read("s3cret")).contains("s3cret"));
    }
}
