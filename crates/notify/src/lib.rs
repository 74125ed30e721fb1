//! Brings alerts to people.
//!
//! In: topic `spendfuse.alerts`, findings that close, and requests of `spendfuse alerts`. Out:
//! requests to Slack, webhooks and mail servers, and the state of each delivery in a compacted
//! topic, written in the transaction of what caused it. Called by `spendfuse notifier` and
//! `spendfuse up`.
//!
//! [`rules`] decides, without I/O: what becomes a message, for whom, when it is tried, when the next
//! channel is. `stage` mounts it on the bus's runner, [`channel`] talks to the outside, `dispatch`
//! carries attempts there and outcomes back, and [`text`] is what people read.

mod broken;
pub mod channel;
mod dispatch;
pub mod letter;
pub mod metrics;
pub mod quiet;
pub mod route;
pub mod rules;
mod run;
mod stage;
pub mod text;

pub use channel::{Channel, ChannelError, ChannelKind, Channels, Security, Smtp};
pub use quiet::QuietHours;
pub use route::{Route, RouteFilter, RouteOptions, Routes};
pub use run::{NotifierConfig, NotifierError, run};
