//! Calls of reservations that the running commit counts, for the sidecars that gave these: the event
//! may have come by another one, by a proxy, or straight from an app.

use std::collections::BTreeMap;

use metrics::counter;
use spendfuse_bus::{BusError, Outputs};
use spendfuse_domain::ReservationId;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::in_flight::{SettledCall, SettledRecord, settled_key};
use spendfuse_domain::row::Origin;

use crate::metrics::RESERVATIONS_TOLD;

/// A record names at most so many calls, of some 60 bytes each.
const MAX_CALLS: usize = 4_000;

/// By holder and its incarnation.
#[derive(Debug, Default)]
pub struct SettledCalls(BTreeMap<(String, String), Vec<SettledCall>>);

impl SettledCalls {
    /// A call is counted, by this event that named its reservation or by one before. Names that no
    /// sidecar gives are nobody's.
    pub fn add(&mut self, reservation: &str, spend: &Spend, origin: Origin) {
        let Some(id) = ReservationId::parse(reservation) else {
            return;
        };
        let holder = (id.holder.to_owned(), id.incarnation.to_owned());
        let calls = self.0.entry(holder).or_default();
        calls.push(SettledCall::new(id.number, spend, origin));
    }

    /// Tells all of them as counted by commit `seq` of meter `partition`.
    ///
    /// # Errors
    /// As [`Outputs::send`].
    pub fn send(
        &mut self,
        outputs: &mut Outputs<'_>,
        topic: &str,
        partition: u32,
        seq: u64,
    ) -> Result<(), BusError> {
        for ((holder, incarnation), calls) in std::mem::take(&mut self.0) {
            let key = settled_key(&holder, partition);
            for part in calls.chunks(MAX_CALLS) {
                let record = SettledRecord {
                    v: 1,
                    incarnation: incarnation.clone(),
                    seq,
                    settled: part.to_vec(),
                };
                let value = serde_json::to_vec(&record).expect("it has string keys only");
                outputs.send(topic, partition, Some(key.as_bytes()), Some(&value), &[])?;
                counter!(RESERVATIONS_TOLD).increment(part.len() as u64);
            }
        }
        Ok(())
    }
}
