//! Makes events safe: acknowledged by the broker, or synced in the spool and sent later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::Backoff;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Body, decode};
use spendfuse_domain::routing::partition_of;
use spendfuse_guard::{Guard, Now};
use tokio::sync::Notify;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{sleep, timeout_at};

use crate::background::{Share, let_others_go_first};
use crate::metrics::{SPOOL_BYTES, SPOOL_REPLAYED, USAGE_EVENTS};
use crate::prices::Prices;
use crate::sink::{Acknowledgement, SinkError, UsageSink};
use crate::spool::{Spool, SpoolError, SpooledEvent};
use crate::turn::Turn;

/// Events replayed at once.
const REPLAY_BATCH: usize = 500;
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The way of events to the broker.
#[derive(Clone)]
pub struct Delivery {
    sink: Arc<dyn UsageSink>,
    spool: Option<Arc<SharedSpool>>,
    ack_timeout: Duration,
    /// Of the usage topic, where that is known.
    partitions: Option<u32>,
}

struct SharedSpool {
    spool: Mutex<Spool>,
    /// Known without waiting for whoever is syncing to disk.
    empty: AtomicBool,
    filled: Notify,
}

/// Where an event is that is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// In its partition of the usage topic.
    InLog {
        /// Offset.
        offset: i64,
    },
    /// In the spool.
    OnDisk,
}

/// Events that are safe.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Where each of them is, in their order.
    pub places: Vec<Safe>,
    /// Those that went to the spool.
    pub spooled: Vec<SpooledEvent>,
}

/// What became of events that were sent.
struct Sent {
    /// In their order; those without an acknowledgement are to go to the disk.
    places: Vec<Safe>,
    unacknowledged: Vec<SpooledEvent>,
    /// Why there are some.
    error: SinkError,
}

/// Neither the broker nor the spool took an event.
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    /// There is no spool.
    #[error("{0}, and no spool is configured; send the event again")]
    Broker(SinkError),
    /// The spool did not take it either.
    #[error("the broker does not take the event, and {0}; send it again")]
    Spool(SpoolError),
}

impl Delivery {
    /// Sends to `sink`, and to `spool` what it has not acknowledged after `ack_timeout`.
    pub fn new(sink: Arc<dyn UsageSink>, spool: Option<Spool>, ack_timeout: Duration) -> Self {
        let shared = spool.map(|spool| {
            Arc::new(SharedSpool {
                empty: AtomicBool::new(spool.is_empty()),
                spool: Mutex::new(spool),
                filled: Notify::new(),
            })
        });
        Self {
            sink,
            spool: shared,
            ack_timeout,
            partitions: None,
        }
    }

    /// The usage topic has so many partitions, at least 1: what was spooled when others were set goes
    /// where it belongs now.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Returns when every event is safe.
    ///
    /// While older events wait in the spool, newer ones queue up behind them: the detectors judge
    /// by the order of the log.
    ///
    /// # Errors
    /// [`Unsafe`]: some events are not; sending all of them again is harmless.
    pub async fn deliver(&self, events: Vec<SpooledEvent>) -> Result<Delivered, Unsafe> {
        if events.is_empty() {
            return Ok(Delivered::default());
        }
        if is_broken(Break::SidecarAcksEarly) {
            let later = self.clone();
            tokio::spawn(async move { later.make_safe(events).await });
            return Ok(Delivered::default());
        }
        self.make_safe(events).await
    }

    async fn make_safe(&self, events: Vec<SpooledEvent>) -> Result<Delivered, Unsafe> {
        let all = events.len();
        let behind = self.spool.as_ref().filter(|spool| !spool.is_empty());
        let events = match behind {
            // A full spool is no reason to refuse what the broker might take.
            Some(spool) => match spool.append(events).await {
                Ok(spooled) => {
                    let places = vec![Safe::OnDisk; all];
                    return Ok(Delivered { places, spooled });
                }
                Err((events, _)) => events,
            },
            None => events,
        };
        let Sent {
            places,
            unacknowledged,
            error,
        } = self.send(events).await;
        let count = unacknowledged.len() as u64;
        counter!(USAGE_EVENTS, "outcome" => "broker").increment(all as u64 - count);
        if unacknowledged.is_empty() {
            let spooled = Vec::new();
            return Ok(Delivered { places, spooled });
        }
        let stored = match &self.spool {
            None => Err(Unsafe::Broker(error)),
            Some(spool) => spool
                .append(unacknowledged)
                .await
                .map_err(|(_, error)| Unsafe::Spool(error)),
        };
        if let Err(error) = &stored {
            counter!(USAGE_EVENTS, "outcome" => "refused").increment(count);
            tracing::error!(events = count, error = %error, "events refused");
        }
        stored.map(|spooled| Delivered { places, spooled })
    }

    /// Sends all, and waits for the acknowledgements.
    async fn send(&self, events: Vec<SpooledEvent>) -> Sent {
        let deadline = tokio::time::Instant::now() + self.ack_timeout;
        let mut waiting: Vec<Acknowledgement> = Vec::with_capacity(events.len());
        let mut turn = Turn::begin();
        for event in &events {
            waiting.push(self.sink.send(event));
            turn.give_way().await;
        }
        let mut last_error = SinkError {
            detail: "no acknowledgement in time".to_owned(),
        };
        let (mut places, mut remaining) = (Vec::with_capacity(events.len()), Vec::new());
        for (event, acknowledgement) in events.into_iter().zip(waiting) {
            match timeout_at(deadline, acknowledgement).await {
                Ok(Ok(Ok(offset))) => {
                    places.push(Safe::InLog { offset });
                    continue;
                }
                Ok(Ok(Err(error))) => last_error = error,
                // The sink was dropped, or the time is up.
                Ok(Err(_)) | Err(_) => {}
            }
            places.push(Safe::OnDisk);
            remaining.push(event);
        }
        Sent {
            places,
            unacknowledged: remaining,
            error: last_error,
        }
    }

    /// Prices what the spool holds again, so that it stands in pending of the budgets that `guard`
    /// knows: for a start, before anything is replayed.
    pub async fn owe(&self, guard: &Guard, prices: &Prices, now: Now) {
        let Some(spool) = self.spool.as_ref().filter(|spool| !spool.is_empty()) else {
            return;
        };
        let (guard, prices) = (guard.clone(), prices.clone());
        let owed = spool.with(move |spool| {
            let (mut known, mut all) = (0, 0_u64);
            let read = spool.each_waiting(|event| {
                all += 1;
                known += u64::from(owes(&event, &guard, &prices, now));
            });
            read.map(|()| (known, all))
        });
        match owed.await {
            Ok((known, all)) => {
                tracing::info!(events = all, pending = known, "spooled events priced again");
            }
            Err(error) => tracing::error!(%error, "spooled events are not pending"),
        }
    }

    /// Sends what the spool holds, oldest first, for as long as the sidecar runs, and tells `guard`
    /// where it went.
    pub async fn replay(self, guard: Guard) {
        let Some(spool) = self.spool.clone() else {
            return std::future::pending().await;
        };
        let mut backoff = PAUSES;
        loop {
            while spool.is_empty() {
                spool.filled.notified().await;
            }
            match self.replay_batch(&spool, &guard).await {
                Ok(replayed) => {
                    backoff.reset();
                    counter!(SPOOL_REPLAYED).increment(replayed);
                }
                Err(error) => {
                    let pause = backoff.pause();
                    tracing::warn!(error, ?pause, "spooled events wait on");
                    sleep(pause).await;
                }
            }
        }
    }

    async fn replay_batch(&self, spool: &Arc<SharedSpool>, guard: &Guard) -> Result<u64, String> {
        let text = |error: SpoolError| error.to_string();
        let batch = spool.with(|spool| spool.next_batch(REPLAY_BATCH)).await;
        let mut batch = batch.map_err(text)?;
        if let Some(partitions) = self.partitions {
            for event in &mut batch {
                event.partition = partition_of(&event.key, partitions);
            }
        }
        let count = batch.len() as u64;
        let named: Vec<(u32, u128)> = batch
            .iter()
            .map(|event| (event.partition, event.content()))
            .collect();
        let sent = self.send(batch).await;
        if !sent.unacknowledged.is_empty() {
            return Err(sent.error.to_string());
        }
        for ((partition, content), place) in named.into_iter().zip(sent.places) {
            if let Safe::InLog { offset } = place {
                guard.replayed(content, partition, offset);
            }
        }
        spool.with(Spool::confirm).await.map_err(text)?;
        Ok(count)
    }
}

/// Makes what a spooled call has cost pending; whether it did.
pub(crate) fn owes(event: &SpooledEvent, guard: &Guard, prices: &Prices, now: Now) -> bool {
    let Ok(decoded) = decode(&event.value, &[], now.wall) else {
        return false;
    };
    let (Body::Usage(call), Some(Ok(priced))) = (&decoded.body, prices.price(&decoded)) else {
        return false;
    };
    let spend = Spend::of_call(priced.parts.total(), call.tokens.total());
    guard.owe(&decoded.attribution, &spend, event.content(), now)
}

impl SharedSpool {
    fn is_empty(&self) -> bool {
        self.empty.load(Ordering::Acquire)
    }

    async fn append(
        self: &Arc<Self>,
        events: Vec<SpooledEvent>,
    ) -> Result<Vec<SpooledEvent>, (Vec<SpooledEvent>, SpoolError)> {
        let appended = self.with(move |spool| match spool.append(&events) {
            Ok(()) => Ok(events),
            Err(error) => Err((events, error)),
        });
        let spooled = appended.await?;
        counter!(USAGE_EVENTS, "outcome" => "spool").increment(spooled.len() as u64);
        self.filled.notify_one();
        Ok(spooled)
    }

    /// Runs `work`, which syncs to disk, on a thread where that may take a while.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Spool) -> T + Send + 'static,
    ) -> T {
        let shared = Arc::clone(self);
        let done = spawn_blocking(move || {
            let_others_go_first(Share::Tenth);
            let mut spool = shared.spool.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut spool);
            shared.empty.store(spool.is_empty(), Ordering::Release);
            gauge!(SPOOL_BYTES).set(spool.bytes() as f64);
            result
        });
        match done.await.map_err(JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is going down, and with it whoever waits here.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}
