//! How a run ended, for whoever started it.

use serde_json::json;

use super::super::super::output::{self, counted, dollars, grouped};
use super::super::follow::Outcome;
use super::super::forecast::{self, Forecast};
use super::super::{Failure, IngestArgs, unknown_members};
use super::Tally;

/// How a run ended.
#[derive(Default)]
pub(super) struct Ending {
    /// Events a second, until all were sent.
    pub(super) rate: f64,
    /// Until all were counted and loaded.
    pub(super) seconds: f64,
    pub(super) outcome: Option<Outcome>,
    pub(super) is_loaded: bool,
    pub(super) failure: Option<Failure>,
}

impl Ending {
    pub(super) fn print(&self, args: &IngestArgs, tally: &Tally, forecast: &Forecast) {
        let changes = forecast.changes();
        let read = &tally.read;
        let unreadable: u64 = read.unreadable.values().sum();
        if args.json {
            output::json(&json!({
                "dry_run": args.dry_run,
                "events": read.events,
                "already_counted": tally.already_counted,
                "not_counted_before": tally.fresh,
                "grown": tally.grown,
                "cost_usd": tally.cost,
                "unpriced": read.unpriced,
                "left_out": {
                    "unreadable": {"lines": unreadable, "by_reason": read.unreadable},
                    "too_old": read.too_old,
                    "session_ends": read.session_ends,
                },
                "unknown_members": {"count": read.unknown.count, "names": read.unknown.names},
                "verdicts": changes,
                "all_verdicts": !forecast.is_full(),
                "outcome": self.outcome,
                "loaded": self.is_loaded,
                "events_per_second": self.rate.round(),
                "seconds": (self.seconds * 1000.0).round() / 1000.0,
            }));
            return;
        }
        output::line(format!(
            "{} in {:.1} s ({}/s): {} counted already, {} not, {}",
            counted(read.events, "event"),
            self.seconds,
            grouped(self.rate as u64),
            grouped(tally.already_counted),
            grouped(tally.fresh),
            dollars(tally.cost),
        ));
        for (count, what) in [
            (
                read.unpriced,
                "calls have no price and are charged at a ceiling",
            ),
            (
                read.too_old,
                "left out: older than what ClickHouse keeps (clickhouse.retention_months), so that nobody can say whether they were counted",
            ),
            (
                read.session_ends,
                "session ends left out: the sessions of history end nothing",
            ),
            (unreadable, "lines cannot be read and were left out"),
        ] {
            if count > 0 {
                output::line(format!("{} {what}", grouped(count)));
            }
        }
        if let Some(unknown) = unknown_members(&read.unknown) {
            output::line(unknown);
        }
        forecast::print(&changes, args.dry_run);
        if forecast.is_full() {
            output::line(
                "there are more scopes than are followed here: `spendfuse budgets status`",
            );
        }
        if args.dry_run {
            output::line("nothing was sent");
            return;
        }
        match &self.outcome {
            Some(outcome) => outcome.print_history(),
            None if args.no_wait => output::line("what became of them was not awaited"),
            None => output::line(
                "too many to follow each: run the same again, it says how many are counted",
            ),
        }
    }
}
