//! What a model call costs, in integer nano-dollars. Pure: no I/O, no clock, no floats.
//!
//! What goes in: a [`PriceBook`] (immutable version: the snapshot in the binary, an import of a
//! price file, records of topic `spendfuse.prices`, a patch), a [`PricingPolicy`], and calls. What
//! comes out: [`Priced`], whose parts add up exactly. The engine calls [`Pricer::price`] for every
//! event, `spendfuse prices` the rest.
//!
//! Start with [`Pricer`]. How gaps in the rates are filled is in `sheet.rs`, how names are found in
//! `lookup/mod.rs`.

pub mod book;
mod cached_media;
mod charge;
mod detail;
mod error;
mod factor;
pub mod import;
mod longest_answer;
mod lookup;
pub mod off_peak;
mod policy;
mod pricer;
pub mod provider;
pub mod rate;
mod resolved;
mod sheet;
mod unit_rate;

pub use book::{BookDraft, PriceBook};
pub use charge::Line;
pub use detail::{Told, has_parts};
pub use error::{BookError, PolicyError, PricingError};
pub use longest_answer::longest_answer;
pub use lookup::Match;
pub use policy::{CeilingRates, Multiplier, PricingPolicy};
pub use pricer::{Explained, Priced, Pricer};
