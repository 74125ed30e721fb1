//! Calls through a proxy, as their clients and their provider know them.

mod answers;
mod clients;
mod known;
mod provider;
mod spool;
mod starts;

use std::sync::Arc;

pub use clients::is_answering;
pub use known::{Calls, Known, Seen};
pub use provider::Provider;
pub use spool::is_sent;
pub use starts::named_in;

use crate::ledger::Ledger;
use crate::quiet::Quiet;
use crate::sender::Running;
use crate::system::System;
use clients::{CLIENTS, Client};

/// Of all these calls. Only budgets over everything count them: those of the other workspace would have
/// blocked it most of the time.
pub const WORKSPACE: &str = "proxied";
/// A call's number as the proxy is told it, which names the call in its log.
const TAG: &str = "tags.call";

/// Clients that call until they are stopped.
pub fn call(seed: u64, system: &System, ledger: &Arc<Ledger>, quiet: &Quiet) -> Vec<Running> {
    let client = |number| {
        let client = Client::new(seed, number, system, ledger, quiet);
        Running::spawn(move |stop| client.call(stop))
    };
    (0..CLIENTS).map(client).collect()
}

/// The number behind the first `mark` in a text.
fn number_after(text: &str, mark: &str) -> Option<usize> {
    let (_, rest) = text.split_once(mark)?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}
