//! The backlog: events in their home partitions, and what they must come to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail, ensure};
use spendfuse_benches::traffic::Traffic;
use spendfuse_bus::{BusError, EventProducer, EventRecord, ProducerOptions};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{Body, decode};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};

use crate::pipeline::{PARTITIONS, Pipeline, USAGE_TOPIC};

const PATIENCE: Duration = Duration::from_secs(60);

/// What was written.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Events.
    pub events: u64,
    /// Their JSON, bytes.
    pub bytes: u64,
    /// Their cost, nano-dollars.
    pub nanos: i128,
}

/// Writes `events` events to the usage topic, each where its session or identity lives.
pub fn write(pipeline: &Pipeline, events: u64) -> Result<Backlog> {
    let producer = EventProducer::open(&pipeline.kafka(), &ProducerOptions::default())?;
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
    let failed = Arc::new(AtomicU64::new(0));
    let mut traffic = Traffic::default();
    let mut backlog = Backlog::default();
    for _ in 0..events {
        let now = now()?;
        let value = traffic.next_event(now);
        let event = decode(value.as_bytes(), &[], now)
            .map_err(|rejection| anyhow!("an event is refused: {rejection:?}"))?;
        let Body::Usage(call) = &event.body else {
            bail!("an event is no usage");
        };
        let who = &event.attribution;
        let priced = pricer.price(&who.provider, &who.account, call, &who.model, event.time)?;
        backlog.nanos += priced.parts.total().get();
        backlog.events += 1;
        backlog.bytes += value.len() as u64;
        let record = EventRecord {
            topic: USAGE_TOPIC,
            partition: Some(event.home(PARTITIONS)),
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        };
        send(&producer, &record, &failed)?;
    }
    producer.flush(PATIENCE)?;
    let failed = failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} events were not taken by the broker");
    Ok(backlog)
}

fn send(producer: &EventProducer, record: &EventRecord<'_>, failed: &Arc<AtomicU64>) -> Result<()> {
    loop {
        let failed = Arc::clone(failed);
        let queued = producer.send(record, move |outcome| {
            if outcome.is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        });
        match queued {
            Ok(()) => return Ok(()),
            Err(BusError::QueueFull { .. }) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn now() -> Result<UnixMillis> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(since.as_millis())?))
}
