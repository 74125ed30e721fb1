//! What the loader's exactly-once inserts rest on, and how each is broken on purpose.

use std::borrow::Cow;

use spendfuse_broken::{Break, is_broken};

use crate::batch::TableInsert;

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
