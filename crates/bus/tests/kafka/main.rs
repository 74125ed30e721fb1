//! The crate against a real broker, shared by all tests of this binary.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod broker;
mod broker_loss;
mod clients;
mod coordinators;
mod crashes;
mod fencing;
mod forgotten;
mod lost_input;
mod other_topics;
mod proxied;
mod rejects;
mod restoring;
mod secured;
mod stage;
mod summer;
mod unreadable;
