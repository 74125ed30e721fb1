//! What a model call costs, in integer nano-dollars. Pure: no I/O, no clock, no floats.

pub mod book;
pub mod error;
pub mod policy;
pub mod pricer;
pub mod provider;

pub use book::PriceBook;
pub use error::{BookError, PolicyError, PricingError};
pub use policy::{CeilingRates, Multiplier, PricingPolicy};
pub use pricer::{Priced, Pricer};
