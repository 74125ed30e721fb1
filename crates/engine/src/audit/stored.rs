//! The ledger's state as its changelog holds it, as far as an audit needs it.
//!
//! The numbers of fields are those of the ledger's own records (`ledger/restore.rs`, `account.rs`),
//! which are never reused; a test below reads what a real ledger wrote.

use minicbor::Decode;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Nanos, UnixMillis};

use crate::codec::{self, CodecError};

const MARK: &[u8] = b"mark";
const ACCOUNT: &[u8] = b"account|";

/// How far a ledger partition has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Decode)]
pub struct StoredMark {
    /// Engine time.
    #[n(0)]
    #[cbor(with = "codec::millis")]
    pub now: UnixMillis,
    /// Version of the budgets in use.
    #[n(1)]
    pub budget_version: u64,
    /// Per meter partition, the commit whose deltas were applied last.
    #[n(2)]
    pub chains: Vec<u64>,
}

/// What was published of an account.
#[derive(Clone, Debug, PartialEq, Eq, Decode)]
pub struct StoredPublished {
    /// Place of the verdict in its order, 0 = ok.
    #[n(0)]
    pub verdict: u8,
    /// Spent, in the limit's unit.
    #[n(3)]
    #[cbor(with = "codec::nanos")]
    pub spent: Nanos,
    /// When.
    #[n(4)]
    #[cbor(with = "codec::millis")]
    pub at: UnixMillis,
    /// After this time readers ignore it.
    #[n(5)]
    #[cbor(with = "codec::optional_millis", default)]
    pub expires_at: Option<UnixMillis>,
}

#[derive(Clone, Debug, Decode)]
struct Sums {
    #[n(0)]
    #[cbor(with = "codec::nanos")]
    cost: Nanos,
    #[n(2)]
    tokens: u64,
    #[n(3)]
    calls: u64,
    #[n(5)]
    published: Option<StoredPublished>,
}

#[derive(Clone, Debug, Decode)]
struct Account {
    #[n(0)]
    budget: String,
    #[n(1)]
    scope: String,
    #[n(3)]
    #[cbor(with = "codec::millis")]
    start: UnixMillis,
    #[n(5)]
    count_id: u64,
    #[n(6)]
    sums: Sums,
}

/// An account of one budget, scope and window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAccount {
    /// The budget's id.
    pub budget: String,
    /// Scope text.
    pub scope: String,
    /// Start of the window.
    pub start: UnixMillis,
    /// Which count of the budget it belongs to.
    pub count_id: u64,
    /// What was counted.
    pub spend: Spend,
    /// What readers of the blocklist were told last.
    pub published: Option<StoredPublished>,
}

/// A record of the ledger's changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredRecord {
    /// How far the partition has come.
    Mark(StoredMark),
    /// An account.
    Account(StoredAccount),
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
    let is_account = key.starts_with(ACCOUNT);
    match value {
        None => Ok(gone(key).unwrap_or(StoredRecord::Other)),
        Some(value) if is_account => {
            let account: Account = codec::decode(value)?;
            Ok(StoredRecord::Account(StoredAccount {
                budget: account.budget,
                scope: account.scope,
                start: account.start,
                count_id: account.count_id,
                spend: Spend {
                    cost: account.sums.cost,
                    tokens: account.sums.tokens,
                    calls: account.sums.calls,
                },
                published: account.sums.published,
            }))
        }
        Some(value) if key == MARK => codec::decode(value).map(StoredRecord::Mark),
        _ => Ok(StoredRecord::Other),
    }
}

/// The account of a tombstone's key, `account|budget|start|scope`.
fn gone(key: &[u8]) -> Option<StoredRecord> {
    let key = std::str::from_utf8(key.strip_prefix(ACCOUNT)?).ok()?;
    let mut parts = key.splitn(3, '|');
    let (budget, start) = (parts.next()?, parts.next()?.parse().ok()?);
    let scope = parts.next()?.to_owned();
    Some(StoredRecord::Gone(
        budget.to_owned(),
        scope,
        UnixMillis(start),
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spendfuse_domain::budget::file::{BudgetDraft, BudgetsFile};
    use spendfuse_domain::finding::DetectorRules;

    use super::*;
    use crate::book::BudgetBook;
    use crate::delta::{DeltaEntry, Deltas};
    use crate::ledger::{Ledger, LedgerConfig};

    #[test]
    fn what_a_ledger_stores_is_read() {
        let yaml = "budgets: [{id: all, scope: {workspace: acme}, limit: \"1\", window: day}]";
        let file = BudgetsFile::parse(yaml).unwrap();
        let counting = |draft: BudgetDraft| draft.counting_from(UnixMillis(0));
        let budgets = file.budgets.into_iter().map(counting).collect();
        let book = BudgetBook::compile(4, budgets, DetectorRules::default());
        let series = book.series[0].id.clone();
        let count_id = book.budgets[0].count_id;
        let config = LedgerConfig {
            partition: 0,
            partitions: 2,
            grace_millis: 1000,
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
        };
        let deltas = Deltas {
            meter_partition: 1,
            prev: 0,
            seq: 9,
            series: vec![series],
            entries: vec![entry],
            budget_version: 4,
        };
        ledger.apply(&deltas, time);
        let mut account = None;
        let mut mark = None;
        for (key, value) in ledger.finish().changelog {
            match read_stored(&key, value.as_deref()).unwrap() {
                StoredRecord::Account(found) => {
                    let place = (found.budget.clone(), found.scope.clone(), found.start);
                    let gone = StoredRecord::Gone(place.0, place.1, place.2);
                    assert_eq!(read_stored(&key, None).unwrap(), gone);
                    account = Some(found);
                }
                StoredRecord::Mark(found) => mark = Some(found),
                StoredRecord::Gone(..) | StoredRecord::Other => {}
            }
        }
        let (account, mark) = (account.unwrap(), mark.unwrap());
        assert_eq!((mark.now, mark.chains), (time, vec![0, 9]));
        assert_eq!(
            (account.budget.as_str(), account.scope.as_str()),
            ("all", "acme")
        );
        assert_eq!(account.count_id, count_id);
        assert_eq!(account.spend.cost, Nanos::new(1_500_000_000));
        assert_eq!((account.spend.tokens, account.spend.calls), (7, 2));
        let published = account.published.unwrap();
        assert_eq!(
            (published.verdict, published.spent),
            (3, account.spend.cost)
        );
        assert!(published.expires_at.is_some_and(|at| at > time));
    }
}
