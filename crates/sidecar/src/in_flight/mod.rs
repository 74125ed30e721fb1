//! What calls hold across sidecars: near a limit a reservation waits for its place in the log of
//! topic `spendfuse.inflight`.
//!
//! The rule is `spendfuse_guard::inflight`, which does no I/O. Here is what it needs: the records
//! ([`wire`]), the follower and the clock ([`follow`]), how far the blocklist is read
//! ([`positions`]), and the callers that wait.

mod follow;
mod joining;
mod positions;
mod settled;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use metrics::{counter, histogram};
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::producer::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_bus::{BusError, Condition, KafkaConfig, Part};
use spendfuse_domain::Topics;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::routing::partition_of;
use spendfuse_guard::inflight::{Decided, Desk, Facts, Holder, Key, Said, Seen, Way, What};
use spendfuse_guard::{CheckRequest, Clock, Expected, Guard, Met, NotReserved, Reserving, State};
use tokio::sync::oneshot;

pub(crate) use follow::follow;
use joining::Joining;
pub(crate) use positions::Positions;

use crate::metrics::{IN_FLIGHT_ASKED, IN_FLIGHT_SECONDS, IN_FLIGHT_SENT, IN_FLIGHT_UNSURE};

/// How long an answer of other sidecars is waited for, milliseconds.
const PATIENCE_MILLIS: i64 = 250;
/// A call that hears nothing at all of what it asked for by then is refused. Where the log is not heard
/// for so long that this sidecar is stale, it is told earlier, and follows the budget's `on_stale`.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Brokers that answer let a sidecar know what is spent and held within a second or two of its start.
/// From then on reservations are judged as each budget's `on_stale` and `sidecar.cold_start` say.
const JOINS_WITHIN: Duration = Duration::from_secs(5);
/// What the broker has not taken by then is not sent any more.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// A sidecar's side of the topic.
pub(crate) struct InFlight {
    guard: Guard,
    clock: Clock,
    positions: Arc<Positions>,
    producer: EventProducer,
    topic: String,
    names: wire::Names,
    desks: Mutex<Desks>,
    joining: Joining,
    health: Part,
}

#[derive(Default)]
struct Desks {
    by_partition: Vec<Desk>,
    tickets: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    key: Key,
    amount: i64,
    tell: oneshot::Sender<Decided>,
}

/// What the rule asks of the guard.
struct View<'a> {
    guard: &'a Guard,
    positions: &'a Positions,
    now: UnixMillis,
}

impl Facts for View<'_> {
    fn held(&self, key: &str) -> i64 {
        self.guard.held_of(key)
    }

    fn spent(&self, key: &str) -> i64 {
        self.guard.spent_of(key, self.now)
    }

    fn limit(&self, key: &str) -> i64 {
        self.guard.limit_of(key).map_or(0, |(limit, _)| limit)
    }

    fn shown(&self) -> Seen {
        self.positions.shown()
    }

    fn read(&self) -> Seen {
        self.positions.read()
    }
}

impl InFlight {
    /// # Errors
    /// [`BusError::Property`] for client settings that cannot be used.
    pub(crate) fn open(
        kafka: &KafkaConfig,
        topics: &Topics,
        guard: Guard,
        (clock, positions): (Clock, Arc<Positions>),
        (holder, incarnation): (&str, &str),
        health: Part,
    ) -> Result<Arc<Self>, BusError> {
        health.tell(unheard());
        let options = ProducerOptions {
            delivery_timeout: TOLD_WITHIN,
            ..ProducerOptions::default()
        };
        Ok(Arc::new(Self {
            guard,
            clock,
            positions,
            producer: EventProducer::open(kafka, &options)?,
            topic: topics.inflight.clone(),
            names: wire::Names::new(holder, incarnation),
            desks: Mutex::default(),
            joining: Joining::begin(JOINS_WITHIN),
            health,
        }))
    }

    fn desks(&self) -> MutexGuard<'_, Desks> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> View<'_> {
        View {
            guard: &self.guard,
            positions: &self.positions,
            now: self.clock.now().wall,
        }
    }

    fn monotonic(&self) -> i64 {
        self.clock.now().monotonic_millis
    }

    /// Reserves as [`Guard::reserve`] does, among all sidecars: far from limits at once, near one
    /// when the log has said who came first. One that has just started waits until it knows both.
    pub(crate) async fn reserve<'a>(
        &'a self,
        request: &'a CheckRequest<'a>,
        expected: Expected,
        timeout_millis: i64,
    ) -> Result<Reserving<'a>, NotReserved> {
        self.joining.wait().await;
        let guard = &self.guard;
        let met = guard.met(request, expected, self.clock.now())?;
        let answers = {
            let mut desks = self.desks();
            let asked = desks.ask_where_needed(&met, &self.view(), self.monotonic());
            if asked.is_empty() {
                // Before the desks are asked anything else, what is counted is held.
                return guard.reserve(request, expected, timeout_millis, self.clock.now());
            }
            asked
        };
        counter!(IN_FLIGHT_ASKED).increment(1);
        let began = Instant::now();
        self.turn();
        let mut granted = Granted {
            in_flight: self,
            parts: Vec::new(),
        };
        let mut refused: Vec<Key> = Vec::new();
        for (met, answer) in answers {
            let answer = match answer {
                Some(answer) => tokio::time::timeout(LONGEST_WAIT, answer).await,
                None => Ok(Ok(Decided::Unsure)),
            };
            match answer {
                Ok(Ok(Decided::Granted)) => granted.parts.push((met.key.clone(), met.amount)),
                Ok(Ok(Decided::Refused)) | Err(_) => refused.push(met.key.clone()),
                // By what is known here, or as the budget says.
                Ok(Ok(Decided::Unsure) | Err(_)) if met.blocks_unsure => {
                    refused.push(met.key.clone());
                }
                Ok(Ok(Decided::Unsure) | Err(_)) => counter!(IN_FLIGHT_UNSURE).increment(1),
            }
        }
        histogram!(IN_FLIGHT_SECONDS).record(began.elapsed().as_secs_f64());
        let now = self.clock.now();
        if !refused.is_empty() {
            if is_broken(Break::RollbackForgotten) {
                std::mem::forget(granted);
            }
            return guard.refuse(request, expected, &refused, now);
        }
        let keys: Vec<Key> = granted.parts.iter().map(|(key, _)| key.clone()).collect();
        let mut desks = self.desks();
        // What may be admitted by itself is counted as admitted when it is held, not before.
        let silent = { met.iter() }.filter(|met| !keys.contains(&met.key));
        let late = desks.count(silent, &self.view(), self.monotonic());
        let reserved = match late.is_empty() {
            true => guard.reserve_granted(request, expected, timeout_millis, &keys, now),
            false => guard.refuse(request, expected, &late, now),
        };
        drop(desks);
        drop(granted);
        reserved
    }

    /// Decides what can be decided, and says what is to be said.
    fn turn(&self) {
        self.take_turn(|desk, view, now| desk.tell(view, now));
    }

    /// The same with the heartbeats that are due.
    pub(crate) fn beat(&self) {
        self.take_turn(|desk, view, now| match desk.is_beat_due(now) {
            true => desk.beat(view, now),
            false => desk.tell(view, now),
        });
        self.show_elsewhere();
        let now = self.monotonic();
        let desks = self.desks();
        let is_sure = |desk: &Desk| desk.is_sure(now);
        let is_heard = !desks.by_partition.is_empty() && desks.by_partition.iter().all(is_sure);
        if is_heard && self.guard.state(now).state == State::Live {
            self.joining.ends();
        }
        self.health.tell(match is_heard {
            true => Condition::Ready,
            false => unheard(),
        });
    }

    fn take_turn(&self, mut say: impl FnMut(&mut Desk, &View<'_>, i64) -> Vec<Said>) {
        let (view, now) = (self.view(), self.monotonic());
        let mut desks = self.desks();
        let desks = &mut *desks;
        for (partition, desk) in (0_u32..).zip(&mut desks.by_partition) {
            for (ticket, decided) in desk.decide(&view, now) {
                let Some(waiting) = desks.waiting.remove(&ticket) else {
                    continue;
                };
                let is_heard = waiting.tell.send(decided).is_ok();
                if decided == Decided::Granted && !is_heard {
                    // Its caller is gone.
                    desk.done(&waiting.key, waiting.amount);
                }
            }
            // In the order in which it is said.
            for said in say(desk, &view, now) {
                self.send(partition, &said);
            }
        }
        self.positions.are_awaited(!desks.waiting.is_empty());
    }

    fn send(&self, partition: u32, said: &Said) {
        let (unit, people) = match &said.what {
            What::Beat { .. } => (None, (0, 0)),
            What::Held { key, held, .. } => {
                let pending = self.guard.pending_of(key).min(*held);
                let unit = self.guard.limit_of(key).map(|(_, unit)| unit);
                (unit, (pending, self.guard.may_exceed(key)))
            }
        };
        let now = self.clock.now().wall;
        let (key, value) = self.names.record(said, unit, people, now);
        let record = EventRecord {
            topic: &self.topic,
            partition: Some(partition),
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
        };
        let kind = match said.what {
            What::Beat { .. } => "heartbeat",
            What::Held { .. } => "held",
        };
        match self.producer.send(&record, |_| {}) {
            Ok(()) => counter!(IN_FLIGHT_SENT, "kind" => kind).increment(1),
            // What is not heard is not counted on.
            Err(error) => tracing::debug!(%error, "what calls hold could not be told"),
        }
    }

    /// Takes a record of the topic.
    fn take(&self, partition: u32, offset: i64, logged_at: i64, said: &Said) {
        let mut desks = self.desks();
        let Some(desk) = desks.by_partition.get_mut(partition as usize) else {
            return;
        };
        desk.take(offset, logged_at, said);
        if let What::Held { key, .. } = &said.what {
            self.guard.set_elsewhere(key, desk.elsewhere(key));
        }
    }

    /// Holders may have been dropped.
    fn show_elsewhere(&self) {
        let desks = self.desks();
        let known: Vec<(Key, i64)> = { desks.by_partition.iter() }
            .flat_map(Desk::all_elsewhere)
            .collect();
        self.guard.replace_elsewhere(&known);
    }

    fn expect_partitions(&self, count: u32) {
        let me: Holder = self.names.holder();
        let desk = |_| Desk::new(me.clone(), PATIENCE_MILLIS);
        let mut desks = self.desks();
        if desks.by_partition.len() != count as usize {
            desks.by_partition = (0..count).map(desk).collect();
            // They belong to desks that are gone.
            desks.waiting.clear();
        }
    }

    fn caught_up(&self) {
        for desk in &mut self.desks().by_partition {
            desk.caught_up();
        }
    }

    /// Whether somebody waits for a decision.
    fn is_awaited(&self) -> bool {
        !self.desks().waiting.is_empty()
    }
}

fn unheard() -> Condition {
    let sentence = "what other sidecars hold is not known: topic inflight is not heard, or this sidecar not in it; reservations hold within this sidecar, and follow each budget's on_stale";
    Condition::ReadyBut(sentence.to_owned())
}

type Answer = Option<oneshot::Receiver<Decided>>;

impl Desks {
    /// Where `key` is told of; `None` before the topic is known.
    fn desk_of(&mut self, key: &str) -> Option<&mut Desk> {
        let partitions = u32::try_from(self.by_partition.len()).unwrap_or(u32::MAX);
        let partition = partition_of(key.as_bytes(), partitions.max(1));
        self.by_partition.get_mut(partition as usize)
    }

    /// How what a call counts in a budget is admitted.
    fn way(&mut self, met: &Met, view: &View<'_>, now: i64) -> Way {
        let desk = self.desk_of(&met.key);
        desk.map_or(Way::Unsure, |desk| {
            desk.way(&met.key, met.amount, view, now)
        })
    }

    /// Counts what may be admitted without asking as admitted; returns what may not any more.
    fn count<'m>(
        &mut self,
        met: impl Iterator<Item = &'m Met>,
        view: &View<'_>,
        now: i64,
    ) -> Vec<Key> {
        met.filter(|met| self.way(met, view, now) == Way::Log)
            .map(|met| met.key.clone())
            .collect()
    }

    /// Asks for what may not be admitted without; where nothing is asked, all is counted as admitted.
    fn ask_where_needed(&mut self, met: &[Met], view: &View<'_>, now: i64) -> Vec<(Met, Answer)> {
        let mut asked = Vec::new();
        for met in met {
            match self.way(met, view, now) {
                Way::Silent => {}
                Way::Unsure => asked.extend(met.blocks_unsure.then(|| (met.clone(), None))),
                Way::Log => asked.push((met.clone(), Some(self.ask(met)))),
            }
        }
        asked
    }

    fn ask(&mut self, met: &Met) -> oneshot::Receiver<Decided> {
        self.tickets += 1;
        let ticket = self.tickets;
        if let Some(desk) = self.desk_of(&met.key) {
            desk.ask(&met.key, met.amount, ticket);
        }
        let (tell, answer) = oneshot::channel();
        let waiting = Waiting {
            key: met.key.clone(),
            amount: met.amount,
            tell,
        };
        self.waiting.insert(ticket, waiting);
        answer
    }
}

/// What was granted to a call, until it is held or not wanted any more.
struct Granted<'a> {
    in_flight: &'a InFlight,
    parts: Vec<(Key, i64)>,
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        let mut desks = self.in_flight.desks();
        for (key, amount) in &self.parts {
            if let Some(desk) = desks.desk_of(key) {
                desk.done(key, *amount);
            }
        }
    }
}
