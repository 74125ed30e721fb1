//! What becomes of each event, as far as a sidecar can know: judged as the meter will judge it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use metrics::counter;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{
    Body, EnvelopeDefaults, Event, RejectReason, Rejection, complete, decode, impose, redact,
};
use spendfuse_domain::growth::{Again, Content, Growth};
use spendfuse_domain::row::PriceBasis;
use spendfuse_domain::{Identity, Nanos, UnixMillis};
use spendfuse_guard::{CheckRequest, Pair, Place, State, Warning};

use super::answer::{Accepted, NotCounted, Outcome, unknown_members};
use crate::delivery::{Safe, Unsafe, owes};
use crate::http::Sidecar;
use crate::keys::{Caller, Right};
use crate::metrics::MEMBERS_REMOVED;
use crate::reservations;
use crate::spool::SpooledEvent;
use crate::turn::Turn;

/// The events of one request.
pub(super) struct Judging<'s> {
    sidecar: &'s Sidecar,
    caller: &'s Caller,
    defaults: EnvelopeDefaults<'s>,
    outgoing: Outgoing,
}

/// Events that are ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    judged_at: UnixMillis,
    events: Vec<SpooledEvent>,
    /// What those say that will be counted.
    fresh: HashMap<Identity, Content>,
    costs: Vec<Cost>,
    settling: Vec<Settling>,
}

/// What a call has cost, for what is known of its like.
#[derive(Clone, Debug)]
struct Cost {
    /// Which of the outgoing events it is of.
    index: usize,
    pair: Pair,
    spend: Spend,
}

/// An event that ends the reservation of its call.
#[derive(Clone, Debug)]
struct Settling {
    number: u64,
    /// Which of the outgoing events it is.
    index: usize,
    /// What the call has cost that is not counted yet.
    spend: Spend,
    /// Whose costs the call's are; `None` where they are known already.
    pair: Option<Pair>,
    /// Where it will be: in this partition, or in the spool with this content.
    partition: u32,
    content: u128,
}

/// Why an event is not taken.
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            reason: rejection.reason.name(),
            detail: rejection.detail,
        }
    }
}

impl<'s> Judging<'s> {
    /// `source` is that of bare events which name none; `caller` sends them.
    pub(super) fn new(sidecar: &'s Sidecar, caller: &'s Caller, source: &'s str) -> Self {
        let now = sidecar.checker.clock.now().wall;
        Self {
            sidecar,
            caller,
            defaults: EnvelopeDefaults {
                source,
                workspace: &sidecar.config.default_workspace,
                now,
            },
            outgoing: Outgoing {
                judged_at: now,
                events: Vec::new(),
                fresh: HashMap::new(),
                costs: Vec::new(),
                settling: Vec::new(),
            },
        }
    }

    /// Judges one event and makes it ready to be sent; its id. What its sender should know beyond
    /// that goes into `warnings`, of a refused event too.
    ///
    /// Only an event that this sidecar would refuse is not sent: late ones, duplicates and conflicts
    /// are, because the meter alone knows what it has counted.
    pub(super) fn take(
        &mut self,
        event: &[u8],
        warnings: &mut Vec<Warning>,
    ) -> Result<(String, Outcome), Refusal> {
        let whole = complete(event, &self.defaults)?;
        self.take_whole(&whole, warnings)
    }

    /// The same for an event whose envelope is there.
    pub(super) fn take_whole(
        &mut self,
        event: &[u8],
        warnings: &mut Vec<Warning>,
    ) -> Result<(String, Outcome), Refusal> {
        let whole = self.imposed(Cow::Borrowed(event))?;
        // Prompts never enter: neither the spool nor the topic.
        let kept = redact(&whole, &[]);
        *warnings = unknown_members(&kept.removed);
        let decoded = decode(&whole, &[], self.defaults.now)?;
        if self.sidecar.config.strict
            && let Some(first) = warnings.first()
        {
            return Err(Refusal {
                reason: "unknown_field",
                detail: format!("{} (sidecar.strict refuses this)", first.message),
            });
        }
        let outcome = self.judge(&decoded)?;
        counter!(MEMBERS_REMOVED).increment(kept.removed.count);
        let key = match decoded.session_key() {
            Some(key) => key.as_bytes().to_vec(),
            None => decoded.identity.0.to_be_bytes().to_vec(),
        };
        let outgoing = SpooledEvent {
            partition: decoded.home(self.sidecar.config.partitions),
            key,
            value: kept.value.into_owned(),
        };
        self.note_cost(&decoded, &outcome, &outgoing);
        self.outgoing.events.push(outgoing);
        Ok((decoded.id.to_string(), outcome))
    }

    /// The event with what its sender cannot choose.
    fn imposed<'v>(&self, whole: Cow<'v, [u8]>) -> Result<Cow<'v, [u8]>, Rejection> {
        if self.caller.key().is_none() {
            return Ok(whole);
        }
        // An event is counted whatever its app says about limits, so this one is taken out of it.
        let is_limit_out = !self.caller.may(Right::Limits) && may_name_a_limit(&whole);
        let limit = is_limit_out.then_some(("session_limit_usd", ""));
        let imposed = self.caller.imposed().chain(limit);
        if let Some(imposed) = impose(Cow::Borrowed(&*whole), imposed) {
            return Ok(Cow::Owned(imposed.into_owned()));
        }
        // As it is it may name another workspace, so it never goes on.
        decode(&whole, &[], self.defaults.now)?;
        let detail = "its data cannot be read; send an object";
        Err(Rejection::new(RejectReason::MalformedJson, detail))
    }

    /// Keeps in mind what a call has cost, and the reservation of this process that its event ends,
    /// until the event is safe. Only a call that is counted, by this event or an earlier one, ends one:
    /// of several instruments not the first may be the one that knows of the reservation.
    fn note_cost(&mut self, event: &Event<'_>, outcome: &Outcome, outgoing: &SpooledEvent) {
        let Body::Usage(call) = &event.body else {
            return;
        };
        let cost = match outcome {
            Outcome::Accepted(told) | Outcome::Grown(told) => told.cost_usd,
            // No figure may show the earlier event's yet.
            Outcome::Echo(_) | Outcome::Duplicate(_) => self.cost(event),
            Outcome::Late(_) | Outcome::Conflict(_) | Outcome::Rejected { .. } => return,
        };
        let spend = cost.map(|cost| Spend::of_call(cost, call.tokens.total()));
        let is_first = matches!(outcome, Outcome::Accepted(_));
        let checker = &self.sidecar.checker;
        let who = &event.attribution;
        let model = match &*call.request_model {
            "" => &who.model,
            asked => asked,
        };
        let pair = is_first.then(|| checker.guard.pair(who, model));
        let index = self.outgoing.events.len();
        if let Some(number) = checker.reservation_of(&call.reservation_id, self.caller) {
            self.outgoing.settling.push(Settling {
                number,
                index,
                spend: spend.unwrap_or_default(),
                pair,
                partition: outgoing.partition,
                content: outgoing.content(),
            });
        }
        if let (Some(pair), Some(spend)) = (pair, spend) {
            self.outgoing.costs.push(Cost { index, pair, spend });
        }
    }

    fn cost(&self, event: &Event<'_>) -> Option<Nanos> {
        let priced = self.sidecar.checker.prices.price(event)?;
        priced.ok().map(|priced| priced.parts.total())
    }

    fn judge(&mut self, event: &Event<'_>) -> Result<Outcome, Refusal> {
        let horizon = self.sidecar.config.dedupe_horizon_millis;
        let not_counted = |reason, detail| NotCounted {
            source: event.source.to_string(),
            counted: false,
            reason,
            detail,
        };
        // The meter's rule. Its clock is the broker's, and it may look later.
        if self.defaults.now.since(event.time) > horizon {
            let reason = RejectReason::Late.name();
            return Ok(Outcome::Late(not_counted(
                Some(reason),
                late_detail(event, horizon),
            )));
        }
        let accepted = accept(self.sidecar, event)?;
        let content = Content::of(event);
        match self.before(event, &content) {
            None => {
                self.outgoing.fresh.insert(event.identity, content);
                Ok(Outcome::Accepted(accepted))
            }
            Some(Again::Other(Growth::More)) => {
                self.outgoing.fresh.insert(event.identity, content);
                Ok(Outcome::Grown(accepted))
            }
            Some(Again::Other(Growth::Echo)) => {
                let detail = "this call was told of before with as much or more, and that is counted; what this event alone tells of whose it is is taken over";
                Ok(Outcome::Echo(not_counted(None, detail.to_owned())))
            }
            Some(Again::Same) => {
                let detail = "this event was sent before; it is counted once";
                Ok(Outcome::Duplicate(not_counted(None, detail.to_owned())))
            }
            Some(Again::Other(Growth::Conflict)) => {
                Ok(Outcome::Conflict(not_counted(None, conflict_detail(event))))
            }
        }
    }

    /// What was taken under the event's identity before, as far as it is known here.
    fn before(&self, event: &Event<'_>, content: &Content) -> Option<Again> {
        if let Some(first) = self.outgoing.fresh.get(&event.identity) {
            return Some(first.compared(content));
        }
        let horizon = self.sidecar.config.dedupe_horizon_millis;
        let since = self.defaults.now.plus(-horizon);
        self.sidecar.recent.before(event.identity, content, since)
    }

    /// The events that were taken.
    pub(super) fn finish(self) -> Outgoing {
        self.outgoing
    }
}

impl Outgoing {
    /// Whether a reservation of this process ends once the events are safe.
    pub(crate) fn settles(&self) -> bool {
        !self.settling.is_empty()
    }

    /// Returns when all events are safe.
    pub(crate) async fn deliver(self, sidecar: &Sidecar) -> Result<(), Unsafe> {
        let delivered = sidecar.delivery.deliver(self.events).await?;
        let guard = &sidecar.checker.guard;
        let now = sidecar.checker.clock.now();
        let now_millis = now.monotonic_millis;
        for cost in &self.costs {
            guard.learn(cost.pair, &cost.spend, now_millis);
        }
        let mut settled = HashSet::new();
        for one in self.settling {
            let place = match delivered.places.get(one.index) {
                Some(Safe::InLog { offset }) => Place::Log {
                    partition: one.partition,
                    offset: *offset,
                },
                Some(Safe::OnDisk) => Place::Spool {
                    content: one.content,
                },
                None => continue,
            };
            if let Some(asked) = guard.settle(one.number, &one.spend, place) {
                settled.insert(one.index);
                reservations::count("settled");
                // The model that was asked for may go by another name than the one that answered.
                if one.pair.is_some_and(|pair| pair != asked) {
                    guard.learn(asked, &one.spend, now_millis);
                }
            }
        }
        // What calls without a reservation cost is pending while their events wait on the disk.
        let on_disk = { delivered.places.iter().enumerate() }
            .filter(|(_, place)| **place == Safe::OnDisk)
            .map(|(index, _)| index);
        let counts: HashSet<usize> = self.costs.iter().map(|cost| cost.index).collect();
        let mut turn = Turn::begin();
        for (index, event) in on_disk.zip(&delivered.spooled) {
            if counts.contains(&index) && !settled.contains(&index) {
                owes(event, guard, &sidecar.checker.prices, now);
            }
            turn.give_way().await;
        }
        let fresh = self.fresh.into_iter();
        sidecar.recent.remember(fresh, self.judged_at);
        Ok(())
    }
}

/// Whether an event may give its session a limit: it names the member, or writes letters as numbers.
fn may_name_a_limit(event: &[u8]) -> bool {
    let has = |part: &[u8]| event.windows(part.len()).any(|window| window == part);
    has(b"session_limit_usd") || has(b"\\u")
}

fn late_detail(event: &Event<'_>, horizon_millis: i64) -> String {
    let hours = horizon_millis as f64 / 3_600_000.0;
    format!(
        "time {} lies further back than the dedupe horizon of {hours} h, so it cannot be told from a \
         duplicate: it is kept in the DLQ with reason late, and no budget counts it until `spendfuse \
         dlq replay --reason late --verify` does; where the time is wrong, send it again with a new one",
        event.time
    )
}

fn conflict_detail(event: &Event<'_>) -> String {
    format!(
        "another event with id {} of source {} was sent before, with other content; that one stands, \
         and this one is not counted: give every response of a provider its own id, and every app its \
         own source (member `source`, or header {})",
        event.id,
        event.source,
        super::SOURCE_HEADER
    )
}

fn accept(sidecar: &Sidecar, event: &Event<'_>) -> Result<Accepted, Rejection> {
    let priced = sidecar.checker.prices.price(event).transpose();
    let priced =
        priced.map_err(|error| Rejection::new(RejectReason::BadMoney, error.to_string()))?;
    let mut flags = event.flags;
    if let Some(priced) = &priced {
        flags.insert(priced.flags);
    }
    let request = CheckRequest {
        attribution: event.attribution.clone(),
        ..CheckRequest::default()
    };
    let decision = sidecar
        .checker
        .guard
        .check(&request, sidecar.checker.clock.now());
    // A guard that has not caught up knows none, or not all.
    let is_known = decision.state().state != State::Cold;
    // No budget counts what a customer pays.
    let is_spend = matches!(event.body, Body::Usage(_));
    let budgets = is_known.then(|| {
        if !is_spend {
            return Vec::new();
        }
        let mut budgets: Vec<_> = decision.budgets().map(|(id, _)| id.to_string()).collect();
        budgets.sort();
        budgets
    });
    Ok(Accepted {
        source: event.source.to_string(),
        cost_usd: priced.map(|priced| priced.parts.total()),
        priced: priced.map(|priced| PriceBasis::name(priced.basis)),
        flags: flags.names().collect(),
        budgets,
    })
}
