//! What calls hold across sidecars: near a limit a reservation waits for its place in the log of
//! topic `spendfuse.inflight`.
//!
//! The rule is `spendfuse_guard::inflight`, which does no I/O. Here is what it needs: the records
//! ([`wire`]), the follower and the clock ([`follow`]), how far the blocklist is read
//! ([`positions`]), and the calls that wait ([`desks`]).

mod desks;
mod early;
mod follow;
mod joining;
mod positions;
mod settled;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, histogram};
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::producer::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_bus::{BusError, Condition, KafkaConfig, Part};
use spendfuse_domain::Topics;
use spendfuse_domain::UnixMillis;
use spendfuse_guard::inflight::{Decided, Desk, Facts, Holder, Key, Said, Seen, Weighed, What};
use spendfuse_guard::{CheckRequest, Clock, Expected, Guard, Met, NotReserved, Reserving, State};
use tokio::time::Instant;

use desks::{Asked, Desks, Granted, LONGEST_WAIT};
pub(crate) use follow::follow;
use joining::Joining;
pub(crate) use positions::Positions;

use crate::metrics::{IN_FLIGHT_ASKED, IN_FLIGHT_SECONDS, IN_FLIGHT_SENT, IN_FLIGHT_UNSURE};

/// How long an answer of other sidecars is waited for, milliseconds.
const PATIENCE_MILLIS: i64 = 250;
/// Brokers that answer let a sidecar know what is spent and held within a second or two of its start.
/// From then on reservations are judged as each budget's `on_stale` and `sidecar.cold_start` say.
const JOINS_WITHIN: Duration = Duration::from_secs(5);
/// What the broker has not taken by then is not sent any more.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// A sidecar that ends waits so long for the broker to take what it says last.
const LEFT_WITHIN: Duration = Duration::from_secs(1);

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

/// What the rule asks of the guard.
struct View<'a> {
    guard: &'a Guard,
    positions: &'a Positions,
    now: UnixMillis,
    /// What a call meets, where it is about one.
    met: &'a [Met],
}

impl View<'_> {
    fn met(&self, key: &str) -> Option<&Met> {
        self.met.iter().find(|met| &*met.key == key)
    }
}

impl Facts for View<'_> {
    fn held(&self, key: &str) -> i64 {
        match self.met(key) {
            Some(met) => self.guard.held_at(met),
            None => self.guard.held_of(key),
        }
    }

    fn spent(&self, key: &str) -> i64 {
        match self.met(key) {
            Some(met) => self.guard.spent_at(met, self.now),
            None => self.guard.spent_of(key, self.now),
        }
    }

    fn exceeding(&self, key: &str) -> i64 {
        self.guard.may_exceed(key)
    }

    fn limit(&self, key: &str) -> i64 {
        self.guard.limit_of(key).map_or(0, |(limit, _)| limit)
    }

    fn shown(&self) -> Seen {
        self.positions.shown()
    }

    fn shows(&self, seen: &Seen) -> bool {
        self.positions.shows(seen)
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
        self.view_of(&[])
    }

    fn view_of<'a>(&'a self, met: &'a [Met]) -> View<'a> {
        View {
            guard: &self.guard,
            positions: &self.positions,
            now: self.clock.now().wall,
            met,
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
        let planned = guard.plan(request, expected, self.clock.now())?;
        let met = guard.met(request, &planned, self.clock.now());
        let reserve = |granted: &[Key]| {
            let now = self.clock.now();
            guard.reserve_granted(request, &planned, timeout_millis, granted, now)
        };
        let mut granted = Granted {
            in_flight: self,
            parts: Vec::new(),
        };
        // Of these nobody can tell what others hold.
        let mut unsure: Vec<Key> = Vec::new();
        let mut began: Option<Instant> = None;
        let tell_wait = |began: &Instant| {
            histogram!(IN_FLIGHT_SECONDS).record(began.elapsed().as_secs_f64());
        };
        // Who waits for one budget may have to ask for another, which was far from its limit before.
        loop {
            let keys: Vec<Key> = granted.parts.iter().map(|(key, _)| key.clone()).collect();
            let asked = {
                let is_open = |met: &&Met| !keys.contains(&met.key) && !unsure.contains(&met.key);
                let open = met.iter().filter(is_open);
                let (view, now) = (self.view_of(&met), self.monotonic());
                let mut desks = self.desks();
                let asked = desks.ask_where_needed(open, &view, now);
                if asked.is_empty() {
                    for met in met.iter().filter(|met| unsure.contains(&met.key)) {
                        desks.admit(met, Weighed::UNSURE, &view);
                    }
                    // Before the desks are asked anything else, what is counted is held.
                    let reserved = reserve(&keys);
                    // With what is held now: who looks in between would count both.
                    granted.are_done(&mut desks);
                    drop(desks);
                    began.iter().for_each(tell_wait);
                    return reserved;
                }
                asked
            };
            let asked = asked.into_iter().map(|one| Asked::new(self, one));
            // All from now on: what is granted meanwhile must be given back, too.
            let asked: Vec<Asked<'_>> = asked.collect();
            if began.is_none() {
                counter!(IN_FLIGHT_ASKED).increment(1);
            }
            let until = *began.get_or_insert_with(Instant::now) + LONGEST_WAIT;
            self.turn();
            let mut refused: Vec<Key> = Vec::new();
            for mut asked in asked {
                let decided = asked.decided(until).await;
                let met = &asked.met;
                match decided {
                    Decided::Granted => granted.parts.push((met.key.clone(), met.amount)),
                    Decided::Refused => refused.push(met.key.clone()),
                    // By what is known here, or as the budget says.
                    Decided::Unsure if met.blocks_unsure => refused.push(met.key.clone()),
                    Decided::Unsure => {
                        counter!(IN_FLIGHT_UNSURE).increment(1);
                        unsure.push(met.key.clone());
                    }
                }
            }
            if !refused.is_empty() {
                began.iter().for_each(tell_wait);
                if is_broken(Break::RollbackForgotten) {
                    std::mem::forget(granted);
                }
                return Ok(guard.refuse(request, &planned, &refused, self.clock.now()));
            }
        }
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

    /// Says what calls hold that may go on, and that this sidecar has no share any more. To be called
    /// once nothing is followed nor asked; waits for the broker.
    pub(crate) fn leave(&self) {
        self.take_turn(|desk, view, now| desk.leave(view, now));
        if let Err(error) = self.producer.flush(LEFT_WITHIN) {
            tracing::debug!(%error, "others hear only in seconds that this sidecar has ended");
        }
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

    /// Holders may have been dropped, or nobody has spoken of a key for long.
    fn show_elsewhere(&self) {
        let mut desks = self.desks();
        for desk in &mut desks.by_partition {
            for (key, held) in desk.take_ceased() {
                self.guard.set_elsewhere(&key, held);
            }
        }
    }

    fn expect_partitions(&self, count: u32) {
        let me: Holder = self.names.holder();
        let desk = |_| Desk::new(me.clone(), PATIENCE_MILLIS);
        let mut desks = self.desks();
        if desks.by_partition.len() != count as usize {
            desks.renew((0..count).map(desk), &self.view());
            self.guard.replace_elsewhere(&[]);
        }
    }

    fn begin_again(&self) {
        for desk in &mut self.desks().by_partition {
            desk.begin_again();
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
