//! What exactly-once inserts rest on in ClickHouse, and how each is broken on purpose.

use std::borrow::Cow;

use spendfuse_broken::{Break, is_broken};

use crate::loader::batch::TableInsert;
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

/// A repeated insert rests on tokens only where nobody looked before. Without it those who break
/// tokens would break nothing.
pub(crate) fn looks_before_repeating() -> bool {
    !is_broken(Break::DeduplicationWindowTooSmall) && !is_broken(Break::ViewDeduplicationOff)
}

/// The token of an insert names its range.
pub(crate) fn token(table: &TableInsert) -> Cow<'_, str> {
    match is_broken(Break::TokenNotTiedToRange) {
        false => Cow::Borrowed(&table.token),
        true => Cow::Owned(format!("{}:{}", table.table(), table.blocks.len())),
    }
}
