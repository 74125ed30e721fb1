//! Clocks: arrival times are the brokers', verdicts expire by the sidecars' machines.

use std::time::Duration;

use spendfuse_bus::Shutdown;

use super::super::{kafka, output};
use super::report::Report;
use crate::settings::Settings;

/// Beyond this a window ends at another moment here than there.
const NOTABLE_MILLIS: i64 = 5_000;
/// Beyond this senders' events are clamped, and verdicts expire far too early or late.
const HARMFUL_MILLIS: i64 = 60_000;
/// A processor reports every second; the last report of one that has ended may show up late.
const REPORT_MILLIS: i64 = 1_000;
const TWO_REPORTS: Duration = Duration::from_millis(2_500);

/// Compares the brokers' clock with this machine's, by what a running processor reports.
pub(super) fn of_brokers(settings: &Settings, report: &mut Report) {
    let newest = || kafka::newest_report(settings);
    let before = newest();
    Shutdown::new().wait(TWO_REPORTS);
    let now = output::now();
    match (before, newest()) {
        (Ok(before), Ok(Some(stamp))) if before.is_none_or(|one| stamp - one > REPORT_MILLIS) => {
            compare(
                "the brokers",
                now.since(spendfuse_domain::UnixMillis(stamp)),
                report,
            );
        }
        (Ok(_), Ok(last)) => {
            let last = last.map(|at| output::ago(spendfuse_domain::UnixMillis(at), now));
            let last = last.unwrap_or_else(|| "missing".to_owned());
            report.wrong(
                "processor",
                format!("none reports, so nothing is counted and checks are stale; the last report is {last}"),
                "start one: spendfuse processor; the brokers' clock is not known until then",
            );
        }
        (Err(error), _) | (_, Err(error)) => {
            report.unknown(
                "processor",
                error.to_string(),
                "let this client read the topic of the blocklist",
            );
        }
    }
}

/// `ahead` is by how much this machine's clock is ahead of the other, milliseconds.
pub(super) fn compare(other: &str, ahead: i64, report: &mut Report) {
    let seconds = ahead.abs() as f64 / 1000.0;
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let found = format!("this machine's is {seconds:.1} s {way} that of {other}");
    let todo = "let all machines follow one time server";
    match ahead.abs() {
        HARMFUL_MILLIS.. => report.wrong("clocks", found, todo),
        NOTABLE_MILLIS.. => report.warning("clocks", found, todo),
        _ => report.ok("clocks", found),
    }
}
