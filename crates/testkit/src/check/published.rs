//! Whether a blocklist entry says what holds.

use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::BlocklistEntry;

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
    let (Some(spent), Some(limit)) = (entry.figures.spent, entry.figures.limit) else {
        return Some(format!("published no figures, but {standing:?}"));
    };
    let (spent, limit) = (spent.number(), limit.number());
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
