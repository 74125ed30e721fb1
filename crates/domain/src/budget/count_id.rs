//! Which count of a budget an account belongs to: stored with every account.
//!
//! Changing a budget's limit or steps keeps what was counted; changing its scope, conditions, window
//! or time zone starts a new count. Two things tell a count from the ones before it, and both come from
//! the budget's record alone, so that whoever missed the records between comes to the same:
//!
//! - a number of what the count stands on. A binary that made other numbers of the same budgets would
//!   begin every running count anew, so its text is written out here, word by word, and the values of
//!   some budgets are pinned by a test;
//! - since when it runs (`counted_from`): terms that were changed and changed back are those of
//!   before, and their count is not. `budgets apply` keeps the time of a count that goes on.

use std::borrow::Cow;
use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_64;

use super::Budget;
use crate::scope::{Dimension, Pattern};
use crate::time::UnixMillis;
use crate::window::WindowKind;

/// A count of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountId {
    /// The number of what it stands on.
    pub terms: u64,
    /// Since when it runs; `None` in accounts of binaries that stored the number alone.
    pub since: Option<UnixMillis>,
}

impl CountId {
    /// The count that `budget` goes on with.
    pub fn of(budget: &Budget) -> Self {
        Self {
            terms: xxh3_64(count_text(budget).as_bytes()),
            since: Some(budget.counted_from),
        }
    }

    /// Whether an account of this count, in a window from `window_start` on, goes on under a budget
    /// whose count is `current`. Of a window that began after both each has everything, so there they
    /// are one: `budgets apply` knows no more of a count whose record was lost with its topic than that
    /// it had begun when the running window did.
    pub fn goes_on_in(self, current: Self, window_start: UnixMillis) -> bool {
        let has_all = |count: Self| count.since.is_some_and(|since| since <= window_start);
        let is_same = self.since.is_none_or(|since| Some(since) == current.since);
        self.terms == current.terms && (is_same || has_all(self) && has_all(current))
    }
}

/// `(ScopeTemplate([(Workspace, Exactly("acme")), …]), Filter([(Plan, ["free"])]), Day, "UTC")`.
fn count_text(budget: &Budget) -> String {
    let scope = budget.scope.0.iter().map(|(dimension, pattern)| {
        let pattern = match pattern {
            Pattern::Each => "Each".to_owned(),
            Pattern::Exactly(value) => format!("Exactly({value:?})"),
        };
        format!("({}, {pattern})", dimension_word(dimension))
    });
    let filter = budget.filter.0.iter().map(|(dimension, values)| {
        let values = values.iter().map(|value| format!("{value:?}"));
        format!("({}, [{}])", dimension_word(dimension), listed(values))
    });
    format!(
        "(ScopeTemplate([{}]), Filter([{}]), {}, {:?})",
        listed(scope),
        listed(filter),
        window_word(budget.window),
        budget.timezone.as_str()
    )
}

fn listed(words: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for (place, word) in words.enumerate() {
        let separator = if place == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{word}");
    }
    text
}

fn dimension_word(dimension: &Dimension) -> Cow<'static, str> {
    match dimension.fixed() {
        Ok(fixed) => Cow::Borrowed(fixed.stored_word()),
        Err(tag) => Cow::Owned(format!("Tag({tag:?})")),
    }
}

fn window_word(window: WindowKind) -> &'static str {
    match window {
        WindowKind::Session => "Session",
        WindowKind::RootSession => "RootSession",
        WindowKind::Hour => "Hour",
        WindowKind::Day => "Day",
        WindowKind::Week => "Week",
        WindowKind::Month => "Month",
        WindowKind::Quarter => "Quarter",
        WindowKind::Year => "Year",
        WindowKind::Lifetime => "Lifetime",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(scope: &str, filter: &str, window: &str, timezone: &str) -> Budget {
        let record = format!(
            "{{\"v\":1,\"id\":\"b\",\"scope\":{scope},\"where\":{filter},\"limit\":\"1.00\",\"window\":\"{window}\",\
             \"timezone\":\"{timezone}\",\"counted_from\":\"2026-01-01T00:00:00Z\",\"steps\":[{{\"at\":100,\"do\":\"block\"}}]}}"
        );
        Budget::from_record("b", record.as_bytes()).expect("a good record")
    }

    /// The values of v0.1.0, whose text was what `Debug` made of its types.
    #[test]
    fn the_numbers_of_counts_never_change() {
        let every = "{\"workspace\":\"acme\",\"customer\":\"*\",\"feature\":\"*\",\"user\":\"*\",\"agent\":\"*\",\"model\":\"*\",\"provider\":\"*\",\"environment\":\"*\",\"account\":\"*\",\"plan\":\"*\",\"tags.team\":\"*\",\"tags.größe \\\"x\\\"\":\"L\\n\"}";
        for (scope, filter, window, timezone, expected) in [
            ("{}", "null", "lifetime", "UTC", 0x9d05_3e9e_c331_d11e_u64),
            (
                "{\"workspace\":\"acme\"}",
                "null",
                "month",
                "America/New_York",
                0x5e16_8fd1_14df_b57d,
            ),
            (
                "{\"workspace\":\"acme\",\"customer\":\"*\"}",
                "{\"plan\":[\"free\",\"pro\"]}",
                "day",
                "UTC",
                0x67e3_3065_ce6b_9a26,
            ),
            (every, "null", "hour", "UTC", 0xd89a_38c2_3473_6fb2),
            (
                every,
                "{\"tags.team\":\"growth\",\"customer\":\"c 42\"}",
                "week",
                "Asia/Tokyo",
                0x82a5_81b5_7ddb_d7f5,
            ),
            (
                "{\"workspace\":\"acme\"}",
                "null",
                "session",
                "UTC",
                0xfe26_7ce8_8979_58f2,
            ),
            (
                "{\"workspace\":\"*\"}",
                "null",
                "root_session",
                "UTC",
                0x479c_1b32_981a_3bfa,
            ),
            (
                "{\"feature\":\"agent\"}",
                "null",
                "quarter",
                "UTC",
                0xdeea_7ec7_23e7_1dcf,
            ),
            (
                "{\"user\":\"*\"}",
                "null",
                "year",
                "UTC",
                0xd3aa_e632_2d99_42ac,
            ),
        ] {
            let budget = budget(scope, filter, window, timezone);
            let count = CountId::of(&budget);
            assert_eq!(count.terms, expected, "{}", count_text(&budget));
        }
    }

    #[test]
    fn terms_that_come_again_do_not_bring_their_count_back() {
        let before = CountId::of(&budget("{}", "null", "day", "UTC"));
        let again = CountId {
            since: Some(UnixMillis(before.since.expect("its record says so").0 + 1)),
            ..before
        };
        let since = before.since.expect("its record says so");
        assert!(before.goes_on_in(before, since) && !before.goes_on_in(again, since));
        // In the windows that begin from then on both have all.
        let next = UnixMillis(since.0 + 1);
        assert!(before.goes_on_in(again, next) && again.goes_on_in(before, next));
        let of_older_binary = CountId {
            since: None,
            ..before
        };
        assert!(of_older_binary.goes_on_in(again, since));
    }
}
