//! Reads the topic on a thread of its own, and gives the desks their turns.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use spendfuse_bus::{BusError, Follower, FollowerConfig, FollowerEvent, KafkaConfig};
use spendfuse_domain::topics::TOMBSTONE_MILLIS;
use tokio::task::JoinHandle;

use super::InFlight;
use super::wire::{read, read_settled};
use crate::metrics::IN_FLIGHT_BAD;

/// While somebody waits the desks get a turn this often, besides those with each record.
const TURN_EVERY: Duration = Duration::from_millis(10);
/// Heartbeats are looked at this often.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Follows the topic until the follower is dropped, and gives turns until the task is aborted.
///
/// # Errors
/// [`BusError::Property`] for client settings that cannot be used.
pub(crate) fn follow(
    kafka: &KafkaConfig,
    in_flight: &Arc<InFlight>,
) -> Result<(Follower, JoinHandle<()>), BusError> {
    let config = FollowerConfig {
        kafka: kafka.clone(),
        name: "inflight",
        topics: vec![in_flight.topic.clone()],
        partition: None,
        tombstones: Duration::from_millis(TOMBSTONE_MILLIS.unsigned_abs()),
    };
    let reader = Arc::clone(in_flight);
    // A meter that dies within a transaction would hold admission up for seconds. What it told and
    // did not commit misleads nobody: the events that it named are in the log, to be counted.
    let follower = Follower::start_uncommitted(config, move |event| reader.hear(event))?;
    let turns = tokio::spawn(give_turns(Arc::clone(in_flight)));
    Ok((follower, turns))
}

async fn give_turns(in_flight: Arc<InFlight>) {
    let mut beat = tokio::time::interval(BEAT_EVERY);
    loop {
        tokio::select! {
            _ = beat.tick() => in_flight.beat(),
            () = in_flight.positions.news() => in_flight.turn(),
            () = tokio::time::sleep(TURN_EVERY), if in_flight.is_awaited() => in_flight.turn(),
        }
    }
}

impl InFlight {
    fn hear(&self, event: FollowerEvent<'_>) {
        match event {
            FollowerEvent::Record(record) => {
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                let (Some(key), Some(value)) = (key, record.value) else {
                    return;
                };
                if let Some(settled) = read_settled(key, value) {
                    self.settle(&settled);
                    return;
                }
                match read(key, value) {
                    Ok(said) => {
                        let at = record.timestamp_millis;
                        self.take(record.partition, record.offset, at, &said);
                        if self.is_awaited() || said.holder != self.names.holder() {
                            self.turn();
                        }
                    }
                    Err(error) => {
                        counter!(IN_FLIGHT_BAD).increment(1);
                        tracing::warn!(key, error, "record of what calls hold ignored");
                    }
                }
            }
            FollowerEvent::Partitions { count, .. } => self.expect_partitions(count),
            FollowerEvent::CaughtUp => {
                self.caught_up();
                self.beat();
            }
            // What comes again was heard before, and is told apart by its number.
            FollowerEvent::Reset => self.begin_again(),
            FollowerEvent::EndOfPartition { .. } | FollowerEvent::Drained => {}
            // Nothing is admitted by what is not heard; the follower logs it.
            FollowerEvent::Failed(_) | FollowerEvent::Recovered => {}
        }
    }
}
