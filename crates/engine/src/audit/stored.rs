//! The ledger's state as its changelog holds it, as far as an audit needs it.
//!
//! Records are decoded as the ledger itself decodes them: what it can restore, an audit can read.

use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::{CountId, Spend};

use crate::account::{Account, Published};
use crate::codec::{self, CodecError};
use crate::ledger::CountRecord;
use crate::ledger::changelog::{ACCOUNT, AccountRecord, LedgerMark, MARK, read_account_key};
use crate::ledger::counts::read_count_key;

/// An account of one budget, scope and window.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAccount {
    /// The budget's id.
    pub budget: String,
    /// Scope text.
    pub scope: String,
    /// Start of the window.
    pub start: UnixMillis,
    /// Which count of the budget it belongs to.
    pub count: CountId,
    /// What was spent, the opening included.
    pub spend: Spend,
    /// What was spent before the count began.
    pub opening: Spend,
    /// What readers of the blocklist were told last.
    pub published: Option<Published>,
}

/// A record of the ledger's changelog.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredRecord {
    /// How far the partition has come.
    Mark(LedgerMark),
    /// An account.
    Account(StoredAccount),
    /// Where a budget's count begins.
    Count(String, CountRecord),
    /// A count that is gone.
    CountGone(String),
    /// An account that is gone: budget, scope, start of the window.
    Gone(String, String, UnixMillis),
    /// Nothing that an audit compares.
    Other,
}

/// Reads a record of the ledger's changelog.
///
/// # Errors
/// [`CodecError`] where it is damaged or of a newer format.
pub fn read_stored(key: &[u8], value: Option<&[u8]>) -> Result<StoredRecord, CodecError> {
    let is_account = key.starts_with(ACCOUNT.as_bytes());
    if let Some(budget) = read_count_key(key) {
        let budget = budget.to_owned();
        return Ok(match value {
            Some(value) => StoredRecord::Count(budget, codec::decode(value)?),
            None => StoredRecord::CountGone(budget),
        });
    }
    match value {
        None => Ok(gone(key).unwrap_or(StoredRecord::Other)),
        Some(value) if is_account => {
            let stored: AccountRecord<'_, Account> = codec::decode(value)?;
            let opening = stored.account.opening.as_ref();
            Ok(StoredRecord::Account(StoredAccount {
                spend: stored.account.spend(),
                opening: opening.map_or_else(Spend::default, |opening| opening.spend()),
                budget: stored.budget.to_owned(),
                scope: stored.scope.to_owned(),
                start: stored.start,
                count: stored.count(),
                published: stored.account.published,
            }))
        }
        Some(value) if key == MARK => codec::decode(value).map(StoredRecord::Mark),
        _ => Ok(StoredRecord::Other),
    }
}

fn gone(key: &[u8]) -> Option<StoredRecord> {
    let (budget, start, scope) = read_account_key(key)?;
    Some(StoredRecord::Gone(
        budget.to_owned(),
        scope.to_owned(),
        start,
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spendfuse_domain::budget::file::{BudgetDraft, BudgetsFile};
    use spendfuse_domain::finding::DetectorRules;

    use spendfuse_domain::Nanos;

    use super::*;
    use crate::book::BudgetBook;
    use crate::delta::{DeltaEntry, Deltas};
    use crate::ledger::{Ledger, LedgerConfig, PUBLISH_RATE};

    #[test]
    fn what_a_ledger_stores_is_read() {
        let yaml = "budgets: [{id: all, scope: {workspace: acme}, limit: \"1\", window: day}]";
        let file = BudgetsFile::parse(yaml).unwrap();
        let counting = |draft: BudgetDraft| draft.counting_from(UnixMillis(0));
        let budgets = file.budgets.into_iter().map(counting).collect();
        let book = BudgetBook::compile(4, budgets, DetectorRules::default());
        let series = book.series[0].id.clone();
        let count = book.budgets[0].count;
        let config = LedgerConfig {
            partition: 0,
            partitions: 2,
            grace_millis: 1000,
            publish_rate: PUBLISH_RATE,
            account_capacity: 10_000_000,
        };
        let mut ledger = Ledger::new(config, Arc::new(book));
        let time = UnixMillis::from_minute(1_000_000);
        ledger.begin(1);
        let entry = DeltaEntry {
            series: 0,
            scope: "acme".to_owned(),
            minute: time.minute(),
            cost: Nanos::new(1_500_000_000),
            unpriced: Nanos::ZERO,
            tokens: 7,
            calls: 2,
            source: "s".to_owned(),
            id: "i".to_owned(),
            time,
            is_history: false,
            corrects: None,
        };
        let deltas = Deltas {
            meter_partition: 1,
            prev: 0,
            seq: 9,
            series: vec![series],
            entries: vec![entry],
            budget_version: 4,
            through: Some(11),
        };
        ledger.apply(&deltas, time);
        let mut account = None;
        let mut mark = None;
        for (key, value) in ledger.finish().told.changelog {
            match read_stored(&key, value.as_deref()).unwrap() {
                StoredRecord::Account(found) => {
                    let place = (found.budget.clone(), found.scope.clone(), found.start);
                    let gone = StoredRecord::Gone(place.0, place.1, place.2);
                    assert_eq!(read_stored(&key, None).unwrap(), gone);
                    account = Some(found);
                }
                StoredRecord::Mark(found) => mark = Some(found),
                StoredRecord::Gone(..)
                | StoredRecord::Count(..)
                | StoredRecord::CountGone(..)
                | StoredRecord::Other => {}
            }
        }
        let (account, mark) = (account.unwrap(), mark.unwrap());
        assert_eq!((mark.now, mark.chains), (time, vec![0, 9]));
        assert_eq!(
            (account.budget.as_str(), account.scope.as_str()),
            ("all", "acme")
        );
        assert_eq!(account.count, count);
        assert_eq!(account.spend.cost, Nanos::new(1_500_000_000));
        assert_eq!((account.spend.tokens, account.spend.calls), (7, 2));
        let published = account.published.unwrap();
        assert_eq!(
            (published.verdict, published.spent),
            (3, account.spend.cost.get())
        );
        assert!(published.expires_at.is_some_and(|at| at > time));
    }
}
