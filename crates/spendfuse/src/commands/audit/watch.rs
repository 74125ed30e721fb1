//! `spendfuse audit --watch`: round after round, with metrics.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use spendfuse_audit::{Auditor, Context};
use spendfuse_bus::Shutdown;
use spendfuse_engine::audit::Differences;
use tokio::runtime::Runtime;

use super::super::{Failure, found_wrong, output};
use super::metrics::{COMPARED_EVENTS, DRIFT_EVENTS, DRIFT_NANODOLLARS, ROUND_SECONDS, ROUNDS};
use super::tell::Teller;
use super::{AuditArgs, failure, print};
use crate::settings::Settings;
use crate::{admin, roles};

/// Short rounds mostly wait for answers. What a round is busy for beyond this is followed by a pause
/// that is so many times as long, so that long ones take a twentieth of the time.
const SHORT_ROUND: Duration = Duration::from_secs(5);
const PAUSES_A_ROUND: u32 = 19;

/// Compares until the process is asked to stop.
pub fn run(
    settings: &Settings,
    context: &Context<'_>,
    args: &AuditArgs,
) -> Result<ExitCode, Failure> {
    let runtime = Runtime::new().map_err(Failure::work)?;
    let handle = crate::metrics::install()?;
    let shutdown = Shutdown::new();
    admin::serve(settings, handle, &[], shutdown.clone())?;
    let stop = shutdown.clone();
    runtime.spawn(async move {
        roles::wait_for_signal().await;
        stop.request();
    });
    // What was found in what came, and what is wrong with the state as it stands.
    let mut news = Differences::default();
    let mut standing = Differences::default();
    export(&news);
    let mut teller = Teller::new(settings).map_err(Failure::work)?;
    let mut auditor = Auditor::new(context).map_err(|error| failure(settings, error))?;
    while !shutdown.is_requested() {
        let begin = Instant::now();
        let outcome = match auditor.round(context, true) {
            Ok(round) => {
                let outcome = if round.is_given_up {
                    "behind"
                } else {
                    "compared"
                };
                counter!(COMPARED_EVENTS).increment(round.counted().0);
                news.merge(round.news.clone());
                standing = round.standing.clone().unwrap_or(standing);
                let mut found = news.clone();
                found.merge(standing.clone());
                export(&found);
                teller.tell(&found);
                print::line(&round, &found, auditor.accounts(), args.json);
                outcome
            }
            Err(error) => {
                // Kafka or ClickHouse is away: the same is compared in the next round.
                let reason = failure(settings, error);
                output::warning(format!("round not finished: {reason}"));
                "failed"
            }
        };
        counter!(ROUNDS, "outcome" => outcome).increment(1);
        gauge!(ROUND_SECONDS).set(begin.elapsed().as_secs_f64());
        let waited = context.waited.take();
        let busy = begin.elapsed().saturating_sub(waited);
        shutdown.wait(pause(begin.elapsed(), busy, args.every));
    }
    Ok(match news.is_empty() && standing.is_empty() {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

/// How long to wait after a round that took this long, of which it was `busy` for a part.
fn pause(round: Duration, busy: Duration, every: Duration) -> Duration {
    let long = busy.saturating_sub(SHORT_ROUND);
    every.saturating_sub(round).max(long * PAUSES_A_ROUND)
}

fn export(found: &Differences) {
    // Gauges are floating-point numbers: beyond 2^53 nano-dollars of drift the digits do not matter.
    gauge!(DRIFT_NANODOLLARS).set(found.drift().get() as f64);
    gauge!(DRIFT_EVENTS).set(found.drift_events() as f64);
}
