//! Whether a blocklist entry says what holds.

use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Nanos, UnixMillis};

use crate::reference::Standing;

/// Within this time a figure is published after the one before, milliseconds: where it moved by a
/// hundredth of what remains until calls are refused; else above half of the limit; else.
const WITHIN_MILLIS: [i64; 3] = [100, 5_000, 60_000];

/// Compares the entry of a scope (if there is one) with its standing at `now`; says what is wrong.
pub fn mistake(
    entry: Option<&BlocklistEntry>,
    standing: &Standing,
    window_start: UnixMillis,
    now: UnixMillis,
) -> Option<String> {
    let unexpired = entry.filter(|entry| entry.expires_at.is_none_or(|end| end > now));
    let Some(entry) = unexpired else {
        return standing
            .must_be_published
            .then(|| format!("nothing unexpired is published, but {standing:?} holds"));
    };
    if entry.verdict != standing.verdict {
        return Some(format!("published {:?}, but {standing:?}", entry.verdict));
    }
    if entry.window_start != window_start {
        return Some(format!("published window of {}", entry.window_start));
    }
    let (spent, limit) = amounts(entry);
    if limit != standing.limit {
        return Some(format!("published limit {limit}, but {standing:?}"));
    }
    let moved = (standing.spent - spent).abs();
    let within = if moved * 100 >= standing.remaining.unwrap_or(standing.limit) {
        WITHIN_MILLIS[0]
    } else if standing.spent * 2 > standing.limit {
        WITHIN_MILLIS[1]
    } else {
        WITHIN_MILLIS[2]
    };
    if moved != 0 && now.since(entry.decided_at) >= within {
        return Some(format!(
            "published spent {spent} at {}, but {standing:?}",
            entry.decided_at
        ));
    }
    None
}

/// Spent and limit in the limit's unit.
fn amounts(entry: &BlocklistEntry) -> (i128, i128) {
    let dollars = |text: &Option<String>| {
        text.as_ref().map(|text| {
            let parsed = Nanos::parse_usd(text).expect("money in a blocklist entry");
            parsed.amount.get()
        })
    };
    let count = |number: Option<u64>| number.map(i128::from);
    let spent = dollars(&entry.spent_usd)
        .or(count(entry.spent_tokens))
        .or(count(entry.spent_calls));
    let limit = dollars(&entry.limit_usd)
        .or(count(entry.limit_tokens))
        .or(count(entry.limit_calls));
    (spent.unwrap_or(-1), limit.unwrap_or(-1))
}
