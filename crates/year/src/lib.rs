//! A year in the life of an installation, simulated: what five minutes of kills cannot show.
//!
//! The real code of meter, ledger, loader's protocol, budget and price tables and guards runs over a
//! simulated Kafka ([`log`], [`cluster`]) and ClickHouse ([`warehouse`]), by a clock that jumps from
//! event to event. [`traffic`] makes calls, [`corrections`] say what stands for them instead, [`world`]
//! lets things happen: budgets come and go, prices change, processes die in the middle of their
//! protocols or stay away, logs are cleaned. Once a day the books are compared with [`reference`], which
//! has its own prices, calendar, scopes and block format and asks nothing of what it checks.
//! `docs/year.md` says what is simulated and what is not.

pub mod broken;
mod budget;
mod calendar;
mod cluster;
mod corrections;
mod growth;
mod loader;
mod log;
mod native;
mod openings;
mod prices;
mod process;
mod random;
mod reference;
mod sidecar;
mod stage;
mod traffic;
mod warehouse;
mod world;

pub use growth::Growth;
pub use world::{Trouble, Year};

/// Lives the year of `seed`, or so many days of it.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn live(seed: u64, days: u32) -> Result<Year, Box<Trouble>> {
    world::World::new(seed).live(days)
}
