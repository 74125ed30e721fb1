//! The price book in force, how old it is, and what of its sources waits for somebody.

use spendfuse_pricing::PriceBook;

use super::super::output::{self, counted};
use super::super::prices::{book, sync};
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
    sources(settings, report);
}

/// The sources that `pricing.sync_from` names, read as the loader reads them.
fn sources(settings: &Settings, report: &mut Report) {
    let renewal = match sync::waiting_now(settings) {
        Ok(Some(renewal)) => renewal,
        Ok(None) => return,
        Err(error) => {
            let todo = "see that pricing.sync_from names files or addresses that can be read here";
            report.unknown("prices", error.to_string(), todo);
            return;
        }
    };
    let todo = "spendfuse prices sync names them; --accept takes them";
    if renewal.lost > 0 {
        let lost = counted(renewal.lost as u64, "model");
        let found = format!("{lost} of the book are not there any more, so nothing is taken");
        report.warning("prices", found, todo);
    }
    let waiting = renewal.jumps.len() as u64;
    if let Some(first) = renewal.jumps.first() {
        let found = format!(
            "{} by more than three times and {} for --accept, such as {}/{}",
            match waiting {
                1 => "1 price jumps".to_owned(),
                _ => format!("{} jump", counted(waiting, "price")),
            },
            if waiting == 1 { "waits" } else { "wait" },
            first.provider,
            first.model
        );
        report.warning("prices", found, todo);
    }
    if renewal.lost == 0 && waiting == 0 {
        report.ok("prices", "nothing waits for prices sync --accept");
    }
}
