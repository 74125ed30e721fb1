//! What the core is tested with: random histories, a simulated Kafka, and a naive reference model.
//!
//! [`generate`] makes a [`Scenario`]: who sends which events when, and how budgets change.
//! [`pipeline`] runs it through the real [`Meter`](spendfuse_engine::meter::Meter)s and
//! [`Ledger`](spendfuse_engine::ledger::Ledger)s under a random schedule of batches, ticks and
//! crashes, and can be told to break a guarantee on purpose ([`pipeline::Fault`]). [`reference`]
//! recomputes from the counted events what must be known, and [`check`] compares, commit by commit.
//!
//! [`proxy`] is for runs against real parts: it makes the network between them bad on demand.
//! [`receiver`] and [`mail`] are those who are told: an HTTP server and a mail server.

pub mod check;
pub mod corrections;
pub mod generate;
pub mod mail;
pub mod pipeline;
pub mod proxy;
pub mod readers;
pub mod receiver;
pub mod reference;
pub mod scenario;

pub use check::{Violation, check};
pub use pipeline::{Fault, Finished, Move, run};
pub use scenario::{BudgetVersion, LogEvent, Scenario};
