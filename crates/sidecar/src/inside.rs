//! The sidecar for code of the same process: the proxy asks and reports without HTTP between.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_guard::CheckResponse;

use crate::delivery::Unsafe;
use crate::http::{ApiError, Question, Sidecar, refused_call};
use crate::keys::{Caller, Denied, Keyring, Presented};
use crate::reservations;
use crate::usage::{Outgoing, Refusal, take_one};

/// Why and how a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCall {
    /// By `sidecar.refusal_status`.
    pub status: StatusCode,
    /// `budget_exceeded`, `session_blocked` or `state_unknown`.
    pub code: &'static str,
    /// A sentence for the person whose call it was.
    pub message: String,
    /// The budget that refuses; `None` where none does.
    pub budget: Option<String>,
    /// Seconds until the call may go ahead; `None` where nobody knows.
    pub retry_after_seconds: Option<u64>,
}

/// An event that was taken and is not safe yet.
#[derive(Debug)]
pub struct TakenEvent {
    /// What it costs by the price book in force here; `None` where it will not be counted.
    pub cost: Option<Nanos>,
    outgoing: Outgoing,
}

impl TakenEvent {
    /// Whether it ends its call's reservation once it is safe: its call is counted, by this event or by
    /// an earlier one.
    pub fn settles(&self) -> bool {
        self.outgoing.settles()
    }
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct RefusedEvent {
    /// As `POST /v1/usage` has it.
    pub reason: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

impl Sidecar {
    /// May this call go ahead? As `POST /v1/check` answers.
    ///
    /// # Errors
    /// What cannot be answered.
    pub async fn ask(
        &self,
        question: Question,
        caller: &Caller,
    ) -> Result<CheckResponse, ApiError> {
        self.answer(question, caller, "proxy").await
    }

    /// How a call is refused whose check was answered with `block`, towards a client that sent
    /// `headers`.
    pub fn refused_call(&self, answer: &CheckResponse, headers: &HeaderMap) -> RefusedCall {
        refused_call(answer, self.config.refusal_status, headers)
    }

    /// Whose request it is that presents these, and which of them says so.
    ///
    /// # Errors
    /// [`Denied`]: it presents no right key.
    pub fn login(
        &self,
        presented: &[Presented<'_>],
        address: Option<IpAddr>,
    ) -> Result<(Caller, usize), Denied> {
        let token = self.config.token.as_ref();
        self.config.keys.login(presented, token, address)
    }

    /// The keys in force.
    pub fn keys(&self) -> &Keyring {
        &self.config.keys
    }

    /// Gives back what was reserved for a call that was not made.
    pub fn release(&self, reservation: &str) {
        if let Some(number) = self.checker.reservation(reservation) {
            reservations::release(&self.checker.guard, number);
        }
    }

    /// Lets what is reserved for a call that goes on last for its own time again, from now on.
    pub fn extend(&self, reservation: &str) {
        let checker = &self.checker;
        if let Some(number) = checker.reservation(reservation) {
            let now = checker.clock.now();
            checker.guard.extend(number, None, now.monotonic_millis);
        }
    }

    /// Judges a structured CloudEvent as `POST /v1/usage` does.
    ///
    /// # Errors
    /// Why no budget can count it.
    pub fn take_event(&self, event: &[u8]) -> Result<TakenEvent, RefusedEvent> {
        let taken = take_one(self, event);
        let (cost, outgoing) =
            taken.map_err(|Refusal { reason, detail }| RefusedEvent { reason, detail })?;
        Ok(TakenEvent { cost, outgoing })
    }

    /// Returns when the event is safe: acknowledged by the broker, or synced in the spool. Only then
    /// the reservation of its call ends.
    ///
    /// # Errors
    /// [`Unsafe`], with the event, which may be delivered again.
    pub async fn deliver(self: &Arc<Self>, event: TakenEvent) -> Result<(), (Unsafe, TakenEvent)> {
        let again = event.outgoing.clone();
        let delivered = event.outgoing.deliver(self).await;
        delivered.map_err(|error| {
            let event = TakenEvent {
                cost: event.cost,
                outgoing: again,
            };
            (error, event)
        })
    }

    /// The time by which this sidecar judges.
    pub fn now(&self) -> UnixMillis {
        self.checker.clock.now().wall
    }
}
