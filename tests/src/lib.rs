//! What the end-to-end tests share: the real binary's roles against real Kafka and real ClickHouse.
//!
//! A test takes a [`Lab`]: topics and a database of its own on one of the stacks that the tests of a
//! process share, in turn. It starts [`Role`]s, sends [`Traffic`] whose expected totals are computed
//! here from counts and the table `prices` alone, and compares them with what the warehouse, the
//! rollups, the audit table and the ledger say. Every wait has an end.

pub mod admin;
pub mod answers;
pub mod attack;
pub mod console;
pub mod deliveries;
pub mod expected;
pub mod guard;
pub mod holds;
pub mod http;
pub mod lab;
pub mod ledger;
pub mod load;
pub mod random;
pub mod relay;
pub mod role;
pub mod stack;
pub mod topics;
pub mod traffic;
pub mod wait;
pub mod walk;
pub mod warehouse;

pub use admin::Address;
pub use expected::{Expected, differences};
pub use guard::GuardView;
pub use lab::{Lab, Said};
pub use load::Load;
pub use role::Role;
pub use traffic::{Record, Traffic};
pub use wait::{PATIENCE, eventually, pause};
