//! What exactly-once inserts rest on in ClickHouse, and how each is broken on purpose.

use spendfuse_broken::{Break, is_broken};

use crate::migrations::DEDUPLICATION_WINDOW;

/// How many inserts every table and view target remembers.
pub(crate) fn deduplication_window() -> u64 {
    match is_broken(Break::DeduplicationWindowTooSmall) {
        false => DEDUPLICATION_WINDOW,
        true => 1,
    }
}

/// Views take a repeated insert once as well.
pub(crate) fn deduplicate_views() -> &'static str {
    match is_broken(Break::ViewDeduplicationOff) {
        false => "1",
        true => "0",
    }
}
