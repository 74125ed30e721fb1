//! The HTTP API without Kafka: the answers, and what happens when the broker is away.

#![allow(clippy::unwrap_used)]

mod authz;
mod checks;
#[path = "../../../domain/tests/shared/closed.rs"]
mod closed;
mod compat;
mod estimate;
mod hostile;
mod keys;
mod listeners;
mod odd_payloads;
mod openapi;
mod questions;
mod reservations;
mod support;
mod usage;
mod watching;
