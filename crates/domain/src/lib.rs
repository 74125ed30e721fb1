//! The words of spendfuse as types: events, scopes, money, budgets, verdicts, findings.
//!
//! What goes in: bytes of usage events and of the budgets file. What comes out: typed values whose
//! wrong states cannot be written down. No I/O, no clock; everything else in the workspace builds
//! on this crate and on nothing below it.
//!
//! Start with [`event::Event`] (what was spent), [`scope`] (against whom it counts) and
//! [`budget::Budget`] (what is allowed).

mod alert_place;
pub mod amount;
pub mod budget;
pub mod correction;
pub mod dimensions;
pub mod event;
pub mod figures;
pub mod finding;
pub mod fingerprint;
pub mod growth;
pub mod identity;
pub mod in_flight;
pub mod installation;
pub mod money;
pub mod percent;
pub mod printable;
pub mod rates;
mod read_text;
pub mod recovered;
mod reservation;
pub mod routing;
pub mod row;
pub mod scope;
pub mod spelling;
pub mod time;
mod timezone;
pub mod tokens;
pub mod topics;
pub mod units;
pub mod verdict;
pub mod window;

pub use alert_place::AlertPlace;
pub use amount::{Amount, Unit};
pub use budget::{Action, Budget, BudgetId, OnStale, Step};
pub use dimensions::{Attribution, Dimension, Dimensions, FixedDimension};
pub use event::{Body, Call, Event, Flags};
pub use figures::{Figures, LineFigures};
pub use finding::{Detector, Severity};
pub use identity::Identity;
pub use installation::Installation;
pub use money::Nanos;
pub use percent::Percent;
pub use printable::printable;
pub use reservation::ReservationId;
pub use scope::{Filter, ScopeTemplate};
pub use time::UnixMillis;
pub use timezone::Timezone;
pub use tokens::{TokenClass, TokenClasses};
pub use topics::Topics;
pub use units::{UnitKind, Units};
pub use verdict::Verdict;
pub use window::{Window, WindowKind};
