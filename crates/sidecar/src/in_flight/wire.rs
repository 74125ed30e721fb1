//! The records of the topic, as the rule knows them.

use std::sync::Arc;

use spendfuse_domain::in_flight::{InFlightKey, InFlightRecord, SettledRecord, read_settled_key};
use spendfuse_domain::{Amount, Unit, UnixMillis};
use spendfuse_guard::inflight::{Holder, Said, What};

/// Under which names this sidecar speaks.
#[derive(Debug)]
pub(super) struct Names {
    holder: String,
    incarnation: String,
}

impl Names {
    pub(super) fn new(holder: &str, incarnation: &str) -> Self {
        Self {
            holder: holder.to_owned(),
            incarnation: incarnation.to_owned(),
        }
    }

    pub(super) fn holder(&self) -> Holder {
        full_name(&self.holder, &self.incarnation)
    }

    /// Whether these calls are of this start of this sidecar.
    pub(super) fn gave(&self, settled: &Settled<'_>) -> bool {
        settled.holder == self.holder && settled.record.incarnation == self.incarnation
    }

    /// Key and value; what is held is in `unit`, and so is what `people` are told of it: what is
    /// pending, and by how much calls may pass the limit.
    pub(super) fn record(
        &self,
        said: &Said,
        unit: Option<Unit>,
        people: (i64, i64),
        at: UnixMillis,
    ) -> (String, Vec<u8>) {
        let mut record = InFlightRecord {
            v: 1,
            incarnation: self.incarnation.clone(),
            n: said.number,
            at,
            seen: said.seen.clone(),
            ..InFlightRecord::default()
        };
        let holder = &*self.holder;
        let key = match &said.what {
            What::Beat { share } => {
                record.share_ppm = Some(*share);
                InFlightKey::Heartbeat { holder }
            }
            What::Held { key, held, asked } => {
                let amount = |number: i64| Amount::new(unit.unwrap_or(Unit::Usd), number.into());
                record.hold(amount(*held), amount(*asked));
                record.tell_people(amount(people.0), amount(people.1));
                InFlightKey::Held { entry: key, holder }
            }
        };
        let value = serde_json::to_vec(&record);
        (
            key.to_string(),
            value.expect("records have string keys only"),
        )
    }
}

fn full_name(holder: &str, incarnation: &str) -> Holder {
    format!("{holder}.{incarnation}").into()
}

/// Calls that a meter partition has counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled<'a> {
    /// Who had given them reservations.
    pub(super) holder: &'a str,
    pub(super) meter_partition: u32,
    pub(super) record: SettledRecord,
}

/// What a meter told; `None` where the record is a holder's.
pub(super) fn read_settled<'a>(key: &'a str, value: &[u8]) -> Option<Settled<'a>> {
    let (holder, meter_partition) = read_settled_key(key)?;
    // A budget may be called `settled`.
    let record = serde_json::from_slice(value).ok()?;
    Some(Settled {
        holder,
        meter_partition,
        record,
    })
}

/// What a record says; an error for one that cannot be read.
pub(super) fn read(key: &str, value: &[u8]) -> Result<Said, String> {
    let record: InFlightRecord =
        serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let parsed = InFlightKey::parse(key).ok_or("no such key is known")?;
    let (holder, what) = match parsed {
        InFlightKey::Heartbeat { holder } => {
            let share = record.share_ppm.ok_or("a heartbeat without share_ppm")?;
            (holder, What::Beat { share })
        }
        InFlightKey::Held { entry, holder } => {
            let (held, asked) = record.held().ok_or("it does not say what is held")?;
            let amount = |number: i128| i64::try_from(number.max(0)).unwrap_or(i64::MAX);
            let key: Arc<str> = entry.into();
            let (held, asked) = (amount(held), amount(asked));
            (holder, What::Held { key, held, asked })
        }
    };
    Ok(Said {
        holder: full_name(holder, &record.incarnation),
        number: record.n,
        seen: record.seen,
        what,
    })
}

#[cfg(test)]
mod tests {
    use spendfuse_guard::inflight::Seen;

    use super::*;

    #[test]
    fn what_is_said_is_read_in_every_unit() {
        let names = Names::new("host-1", "0011223344556677");
        let key = Arc::from("cap|acme/customer=c-42");
        let held = What::Held {
            key,
            held: 120_000_000,
            asked: 7,
        };
        for what in [held, What::Beat { share: 250_000 }] {
            for unit in [Unit::Usd, Unit::Tokens, Unit::Calls] {
                let said = Said {
                    holder: names.holder(),
                    number: 3,
                    seen: Seen::from([(0, 17), (3, 4)]),
                    what: what.clone(),
                };
                let (key, value) = names.record(&said, Some(unit), (3, 0), UnixMillis(5));
                assert_eq!(read(&key, &value), Ok(said));
            }
        }
        assert!(read("heartbeat|h", b"{}").is_err() && read("cap", b"{}").is_err());
    }
}
