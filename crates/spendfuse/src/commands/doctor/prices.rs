//! The price book in force, and how old it is.

use spendfuse_pricing::PriceBook;

use super::super::output;
use super::super::prices::book;
use super::report::Report;
use crate::settings::Settings;

/// Providers change prices, and bring models out, every few weeks.
const OLD_MILLIS: i64 = 90 * 24 * 60 * 60 * 1000;

pub(super) fn look(settings: &Settings, report: &mut Report) {
    let newest = match book::published_at(settings) {
        Ok(newest) => newest,
        Err(error) => {
            report.unknown("prices", error.to_string(), "spendfuse topics check");
            return;
        }
    };
    let now = output::now();
    let todo = "spendfuse prices sync --from FILE";
    match newest {
        Some(at) if now.since(at) > OLD_MILLIS => report.warning(
            "prices",
            format!("the book was published {}", output::ago(at, now)),
            todo,
        ),
        Some(at) => report.ok("prices", format!("published {}", output::ago(at, now))),
        None => report.warning(
            "prices",
            format!(
                "those inside the program: {}",
                PriceBook::snapshot().version()
            ),
            todo,
        ),
    }
}
