//! The sidecar: HTTP around the guard and around sending events.
//!
//! What goes in: questions about calls (`/v1/check`, `/v1/authz`, `/v1/state`) and usage events
//! (`/v1/usage`), on TCP and a Unix socket. What comes out: decisions from memory, and events that
//! are safe: acknowledged by the broker or synced to the disk spool. [`run`] starts all of it
//! against Kafka; [`Sidecar`] and [`Api`] are the same without Kafka.

pub mod background;
mod compat;
mod config;
mod delivery;
mod error;
mod http;
mod in_flight;
mod inside;
pub mod keys;
pub mod metrics;
mod prices;
mod replica;
mod reservations;
mod serve;
pub mod server;
mod sink;
pub mod spool;
mod stale;
mod turn;
mod usage;

pub use compat::{CompatConfig, MargintDowngrade};
pub use config::{RefusalStatus, SidecarConfig, Token};
pub use delivery::{Delivery, Safe, Unsafe};
pub use error::SidecarError;
pub use http::{Api, ApiError, Checker, MetricsText, Question, Sidecar, refuse_browsers};
pub use inside::{RefusedCall, RefusedEvent, TakenEvent};
pub use prices::Prices;
pub use reservations::Reservations;
pub use serve::{Listeners, Running, requested, run, serve};
pub use sink::{Acknowledgement, KafkaSink, SinkError, UsageSink};
