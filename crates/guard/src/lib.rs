//! The replica of blocklist and budgets, and the decision whether a call may go ahead.
//!
//! What goes in: records of the topics `spendfuse.blocklist`, `spendfuse.budgets` and
//! `spendfuse.findings`, which [`follow`](follow()) hands to the only [`GuardWriter`]. What comes out:
//! [`Guard::check`], which any number of threads call. No tokio, no network, no locks on the check
//! path, and no clock: callers say what time it is. The sidecar and the command line are built on it;
//! so may be applications.
//!
//! ```
//! use spendfuse_guard::{CheckRequest, Guard, GuardConfig, Now};
//! let (mut writer, guard) = Guard::new(GuardConfig::new(4));
//! # let now = Now { wall: spendfuse_domain::UnixMillis(0), monotonic_millis: 0 };
//! writer.publish(now.wall);
//! let decision = guard.check(&CheckRequest::default(), now);
//! assert_eq!(decision.verdict(), spendfuse_domain::Verdict::Ok);
//! ```

mod arrivals;
mod changes;
mod clock;
mod compiled;
mod decision;
mod digest;
mod entry;
mod error;
mod findings;
pub mod follow;
mod freshness;
mod guard;
mod hash;
mod holds;
pub mod inflight;
mod judging;
pub mod metrics;
#[cfg(test)]
mod modelled;
mod response;
mod shards;
mod standing;
mod standings;
mod table;
mod writer;

pub use changes::{BlocklistPage, CursorExpired, PageEntry};
pub use clock::Clock;
pub use decision::{CheckRequest, ColdStart, Decision};
pub use entry::Entry;
pub use error::GuardError;
pub use findings::OpenFinding;
pub use follow::{Followed, Following, follow};
pub use freshness::{Now, State, StateAge};
pub use guard::{Guard, GuardConfig, Mark};
pub use holds::{Asked, Basis, Expected, Hold, Met, NotReserved, Pair, Place, Planned, Reserving};
pub use response::{BudgetLine, CheckResponse, Reasoned, Warning, as_decision, decision_name};
pub use standing::{Standing, StandingEntry, StandingRule, StandingsPage};
pub use writer::GuardWriter;
