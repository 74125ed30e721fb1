//! A window's account against its rows, and against what the blocklist says.

use spendfuse_domain::budget::Spend;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Amount, UnixMillis};

use super::differences::{Difference, Kind, Site, Tally};
use crate::account::Published;

/// What the rows of a window come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountSums {
    /// Rows that were counted by budgets of which this one was part: they count for certain.
    pub sure: Spend,
    /// Rows that were counted shortly before the budget took effect: the ledger may have known it
    /// already when their deltas came.
    pub perhaps: Spend,
    /// What was spent before the count began: no row of the count, but the ledger has it on top.
    pub opening: Spend,
}

/// How an account differs from its rows. `found` is the account and, where the window was closed,
/// its close and late lines.
pub fn compare_account(
    budget: &str,
    scope: &str,
    start: UnixMillis,
    rows: &AccountSums,
    found: &Spend,
) -> Option<Difference> {
    let mut least = rows.sure;
    least.add(rows.opening);
    let mut most = least;
    most.add(rows.perhaps);
    // An entry in flight may also take something back.
    let is_within = is_between(found.cost, least.cost, most.cost)
        && is_between(found.tokens, least.tokens, most.tokens)
        && is_between(found.calls, least.calls, most.calls);
    if is_within {
        return None;
    }
    let near = if found.calls > most.calls || found.cost > most.cost {
        most
    } else {
        least
    };
    let opening = match rows.opening == Spend::default() {
        true => "",
        false => " (with what its opening says)",
    };
    let tokens = if near.tokens == found.tokens {
        String::new()
    } else {
        format!("; {} tokens, not {}", found.tokens, near.tokens)
    };
    Some(Difference {
        kind: Kind::WindowDiffers,
        site: Site::Budget(budget.to_owned()),
        seq: None,
        expected: Tally::new(near.calls, near.cost),
        found: Tally::new(found.calls, found.cost),
        detail: format!(
            "{scope}, window from {start}: rows {} in {} calls{opening}, ledger {} in {}{tokens}",
            near.cost, near.calls, found.cost, found.calls
        ),
    })
}

fn is_between<T: Ord + Copy>(value: T, one: T, other: T) -> bool {
    (one.min(other)..=one.max(other)).contains(&value)
}

/// What the blocklist says of a budget's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Start of the window.
    pub start: UnixMillis,
    /// What is spent.
    pub spent: Amount,
    /// Place of the verdict in its order, 0 = ok.
    pub verdict: u8,
    /// After this time readers ignore it.
    pub expires_at: Option<UnixMillis>,
    /// The ledger partition's commit that said it.
    pub version: u64,
}

impl Told {
    /// What an entry says; `None` where it says no amount.
    pub fn of(entry: &BlocklistEntry) -> Option<Self> {
        Some(Self {
            start: entry.window_start,
            spent: entry.figures.spent?,
            verdict: entry.verdict as u8,
            expires_at: entry.expires_at,
            version: entry.version,
        })
    }

    /// Whether it says what the ledger published.
    pub fn is(&self, published: &Published) -> bool {
        self.spent.number() == published.spent && self.verdict == published.verdict
    }
}

/// How the entry `key` of the blocklist in ledger partition `partition` differs from what the
/// ledger last published of the account, `None` where it published nothing.
pub fn compare_published(
    partition: u32,
    key: &str,
    told: &Told,
    published: Option<&Published>,
) -> Option<Difference> {
    if published.is_some_and(|published| told.is(published)) {
        return None;
    }
    let ledger = published.map(|published| told.spent.with(published.spent));
    // Amounts of budgets in tokens or calls are no money.
    let money = |amount: Option<Amount>| amount.and_then(Amount::usd).unwrap_or_default();
    Some(Difference {
        kind: Kind::BlocklistDiffers,
        site: Site::Ledger(partition),
        seq: Some(told.version),
        expected: Tally::new(0, money(ledger)),
        found: Tally::new(0, money(Some(told.spent))),
        detail: format!(
            "{key}, window from {}: the blocklist says {}, the ledger published {}",
            told.start,
            told.spent,
            ledger.map_or_else(|| "nothing".to_owned(), |ledger| ledger.to_string())
        ),
    })
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::Nanos;

    use super::*;

    fn spend(nanos: i128, calls: i64) -> Spend {
        Spend {
            cost: Nanos::new(nanos),
            tokens: calls * 10,
            calls,
        }
    }

    #[test]
    fn an_account_is_its_rows_to_the_nano_dollar() {
        let compare =
            |rows: AccountSums, found| compare_account("cap", "acme", UnixMillis(0), &rows, &found);
        let exact = AccountSums {
            sure: spend(100, 4),
            ..AccountSums::default()
        };
        let opened = AccountSums {
            opening: spend(7, 0),
            ..exact
        };
        assert_eq!(compare(opened, spend(107, 4)), None);
        assert!(compare(opened, spend(100, 4)).is_some());
        assert_eq!(compare(exact, spend(100, 4)), None);
        let off = compare(exact, spend(101, 4)).unwrap();
        assert_eq!(off.drift(), Nanos::new(1));
        assert_eq!(off.drift_events(), 1);
        let doubled = compare(exact, spend(200, 8)).unwrap();
        assert_eq!(
            (doubled.drift(), doubled.drift_events()),
            (Nanos::new(100), 4)
        );
    }

    #[test]
    fn rows_in_flight_while_a_budget_took_effect_may_count_or_not() {
        let rows = AccountSums {
            sure: spend(100, 4),
            perhaps: spend(50, 2),
            ..AccountSums::default()
        };
        for found in [spend(100, 4), spend(125, 5), spend(150, 6)] {
            assert_eq!(
                compare_account("cap", "a", UnixMillis(0), &rows, &found),
                None
            );
        }
        for found in [spend(99, 4), spend(151, 6)] {
            assert!(compare_account("cap", "a", UnixMillis(0), &rows, &found).is_some());
        }
    }
}
