//! Records of topic `spendfuse.inflight`: what calls under way hold, as each sidecar tells it, and
//! which of them are counted, as the meter tells it (`docs/formats/inflight.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::budget::Spend;
use crate::money::Nanos;
use crate::row::Origin;
use crate::time::UnixMillis;

/// A value. Of the keys `{budget}|{scope}|{holder}` it says what is held, in the unit of the budget's
/// limit, of `heartbeat|{holder}` which share the holder has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct InFlightRecord {
    pub v: u32,
    /// 64 random bits of the holder's start.
    pub incarnation: String,
    /// Counts the holder's records in a partition.
    pub n: u64,
    pub at: UnixMillis,
    /// Per partition of the blocklist, the offset of the last record that the holder had read.
    #[serde(default)]
    pub seen: BTreeMap<u32, i64>,
    /// What the holder may hold of a limit without telling, in millionths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_ppm: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_usd: Option<Nanos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_usd: Option<Nanos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_calls: Option<u64>,
    /// The pending part of what is held, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_usd: Option<Nanos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_calls: Option<u64>,
    /// By how much its calls may pass the limit all the same, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceeding_usd: Option<Nanos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceeding_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceeding_calls: Option<u64>,
}

impl InFlightRecord {
    /// Says that so much is held and asked for, both in the unit of a limit.
    pub fn hold(&mut self, held: Amount, asked: Amount) {
        match (held, asked) {
            (Amount::Usd(held), Amount::Usd(asked)) => {
                (self.reserved_usd, self.asked_usd) = (Some(held), Some(asked));
            }
            (Amount::Tokens(held), Amount::Tokens(asked)) => {
                (self.reserved_tokens, self.asked_tokens) = (count(held), count(asked));
            }
            (Amount::Calls(held), Amount::Calls(asked)) => {
                (self.reserved_calls, self.asked_calls) = (count(held), count(asked));
            }
            _ => debug_assert!(false, "both have the limit's unit"),
        }
    }

    /// Says how much of what is held is pending, and by how much calls may pass the limit all the same,
    /// where there is any.
    pub fn tell_people(&mut self, pending: Amount, exceeding: Amount) {
        let some = |amount: Amount| (amount.number() > 0).then_some(amount);
        match some(pending) {
            Some(Amount::Usd(pending)) => self.pending_usd = Some(pending),
            Some(Amount::Tokens(pending)) => self.pending_tokens = count(pending),
            Some(Amount::Calls(pending)) => self.pending_calls = count(pending),
            None => {}
        }
        match some(exceeding) {
            Some(Amount::Usd(exceeding)) => self.exceeding_usd = Some(exceeding),
            Some(Amount::Tokens(exceeding)) => self.exceeding_tokens = count(exceeding),
            Some(Amount::Calls(exceeding)) => self.exceeding_calls = count(exceeding),
            None => {}
        }
    }

    /// What is pending of what is held, and by how much calls may pass the limit all the same.
    pub fn told_people(&self) -> (i128, i128) {
        let dollars = |amount: Option<Nanos>| amount.map(Nanos::get);
        let pending = dollars(self.pending_usd)
            .or(number(self.pending_tokens))
            .or(number(self.pending_calls));
        let exceeding = dollars(self.exceeding_usd)
            .or(number(self.exceeding_tokens))
            .or(number(self.exceeding_calls));
        (pending.unwrap_or(0), exceeding.unwrap_or(0))
    }

    /// What is held and asked for, in whichever unit it is said.
    pub fn held(&self) -> Option<(i128, i128)> {
        let dollars = |amount: Option<Nanos>| amount.map(Nanos::get);
        let pair = |held: Option<i128>, asked: Option<i128>| Some((held?, asked.unwrap_or(0)));
        pair(dollars(self.reserved_usd), dollars(self.asked_usd))
            .or(pair(
                number(self.reserved_tokens),
                number(self.asked_tokens),
            ))
            .or(pair(number(self.reserved_calls), number(self.asked_calls)))
    }
}

/// A value of the keys `settled|{holder}|{meter_partition}`: calls of the holder's reservations that
/// one commit of the meter has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SettledRecord {
    pub v: u32,
    /// Of the holder's start that gave the reservations.
    pub incarnation: String,
    /// Number of the commit.
    pub seq: u64,
    pub settled: Vec<SettledCall>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SettledCall {
    /// Number of the reservation.
    pub n: u64,
    pub cost_usd: Nanos,
    pub tokens: i64,
    /// Of the event, in the meter's partition of the usage topic; `None` where it was handed over
    /// from another partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

impl SettledCall {
    /// The call of reservation number `n` cost `spend`.
    pub fn new(n: u64, spend: &Spend, origin: Origin) -> Self {
        Self {
            n,
            cost_usd: spend.cost,
            tokens: spend.tokens,
            offset: (!origin.rerouted).then_some(origin.offset),
        }
    }

    /// What it counts in budgets.
    pub fn spend(&self) -> Spend {
        Spend {
            cost: self.cost_usd,
            tokens: self.tokens,
            calls: 1,
        }
    }
}

fn count(number: i128) -> Option<u64> {
    u64::try_from(number.max(0)).ok()
}

fn number(count: Option<u64>) -> Option<i128> {
    count.map(Into::into)
}

/// The key of what the meter tells a holder; no other record has a member `settled`.
pub fn settled_key(holder: &str, meter_partition: u32) -> String {
    format!("settled|{holder}|{meter_partition}")
}

/// Holder and meter partition of a key that [`settled_key`] made.
pub fn read_settled_key(key: &str) -> Option<(&str, u32)> {
    let (holder, partition) = key.strip_prefix("settled|")?.split_once('|')?;
    Some((holder, partition.parse().ok()?))
}

/// A key of what a holder tells, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum InFlightKey<'a> {
    Heartbeat {
        holder: &'a str,
    },
    /// `entry` is the key on the blocklist, `{budget}|{scope}`.
    Held {
        entry: &'a str,
        holder: &'a str,
    },
}

impl<'a> InFlightKey<'a> {
    /// Reads a key; `None` where it is neither.
    pub fn parse(key: &'a str) -> Option<Self> {
        if let Some(holder) = key.strip_prefix("heartbeat|") {
            return Some(Self::Heartbeat { holder });
        }
        let (entry, holder) = key.rsplit_once('|')?;
        entry.contains('|').then_some(Self::Held { entry, holder })
    }
}

impl std::fmt::Display for InFlightKey<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Heartbeat { holder } => write!(formatter, "heartbeat|{holder}"),
            Self::Held { entry, holder } => write!(formatter, "{entry}|{holder}"),
        }
    }
}
