//! `spendfuse audit`: input, row blocks, warehouse, rollups, deltas, ledger and blocklist compared.
//!
//! The work is done by the crate `spendfuse_audit`; here is what it is asked for and what it prints.

mod metrics;
mod print;
mod tell;
mod watch;

pub use metrics::ALL as METRICS;

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use spendfuse_audit::{AuditError, Auditor, Context};

use super::prices::book;
use super::topics::looked;
use super::warehouse::Connection;
use super::{Failure, found_wrong, kafka, output};
use crate::settings::Settings;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse audit\n  spendfuse audit --since 2h --json | jq '.differences[]'\n  spendfuse audit --watch --every 30s --set admin.listen=127.0.0.1:4120\n\nExit code 0: nothing differs; 1: something does."
)]
pub struct AuditArgs {
    /// Go on comparing what comes; figures stand on the admin address' /metrics, and people are told
    /// of drift by alerts
    #[arg(long)]
    watch: bool,
    /// With --watch: how often to compare; long rounds are kept to a twentieth of the time
    #[arg(long, value_name = "DURATION", default_value = "30s", requires = "watch", value_parser = duration)]
    every: Duration,
    /// Only what arrived within this time; without it everything that Kafka still has
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Print JSON; with --watch a line a round
    #[arg(long)]
    json: bool,
}

/// Reads `--since` and `--every`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a duration such as 30s, 15m or 2h".to_owned();
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
}

/// For how long the warehouse surely keeps every row and line: expiry goes by months, some of which
/// are shorter.
pub(super) fn kept_millis(settings: &Settings) -> i64 {
    let own = settings.warehouse();
    surely_kept_millis(own.spend_retention_months.min(own.history_retention_months))
}

/// The same of rows of spend alone.
pub(super) fn rows_kept_millis(settings: &Settings) -> i64 {
    surely_kept_millis(settings.warehouse().spend_retention_months)
}

fn surely_kept_millis(months: u32) -> i64 {
    const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
    (i64::from(months) * 365 / 12 - 3) * DAY_MILLIS
}

pub fn run(settings: &Settings, args: &AuditArgs) -> Result<ExitCode, Failure> {
    let connection = Connection::open(settings)?;
    let since = args.since.map(|since| {
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        output::now().plus(-millis).0.max(0)
    });
    let context = Context {
        kafka: settings.kafka(),
        patience: kafka::PATIENCE,
        topics: settings.topics(),
        epoch: looked(settings)?.installation.epoch(),
        id_prefix: &settings.values.transactional_id_prefix,
        warehouse: &connection.warehouse,
        runtime: &connection.runtime,
        dedupe_horizon_millis: settings.dedupe_horizon_millis(),
        kept_millis: kept_millis(settings),
        policy: Arc::new(settings.pricing()),
        book: &|version| book::named(settings, version).ok(),
        warn: &|text| output::warning(text),
        since,
        waited: Cell::new(Duration::ZERO),
    };
    if args.watch {
        return watch::run(settings, &context, args);
    }
    let failed = |error: AuditError| failure(settings, error);
    let mut auditor = Auditor::new(&context).map_err(failed)?;
    let round = auditor.round(&context, false).map_err(failed)?;
    print::round(&round, args.json);
    Ok(match round.differences().is_empty() {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

/// Why a round could not be finished, in words that say what to do.
fn failure(settings: &Settings, error: AuditError) -> Failure {
    match error {
        AuditError::Kafka(error) => kafka::failure(settings, &error),
        AuditError::Warehouse(error) => Failure::warehouse(error),
        other => Failure::work(other),
    }
}
