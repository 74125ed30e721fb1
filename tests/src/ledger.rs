//! What the ledger has counted, seen through the blocklist topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use spendfuse_domain::Nanos;

use crate::expected::Expected;
use crate::lab::{Lab, WORKSPACE};
use crate::wait::eventually;

/// Budgets over everything and for each customer that nothing reaches. Every limit is `limit`
/// dollars; another limit makes the ledger publish every sum anew, to the nano-dollar.
pub fn watching_budgets(limit: u32) -> String {
    format!(
        "budgets:
  - {{id: everything, scope: {{}}, limit: \"{limit}\", window: lifetime}}
  - {{id: calls, scope: {{workspace: {WORKSPACE}}}, limit_calls: {limit}, window: lifetime}}
  - {{id: customers, scope: {{workspace: {WORKSPACE}, customer: \"*\"}}, limit: \"{limit}\", window: lifetime}}
"
    )
}

/// A limit in whole dollars that no test's traffic reaches.
pub const FIRST_LIMIT: u32 = 5_000_000;
const SECOND_LIMIT: u32 = FIRST_LIMIT + 1;

impl Lab {
    /// Waits until the ledger's sums of [`watching_budgets`] are what is expected.
    ///
    /// # Panics
    /// Where they are not after `patience`.
    pub fn settle_ledger(&self, expected: &Expected, patience: Duration) {
        self.apply_budgets(&watching_budgets(SECOND_LIMIT));
        eventually("the ledger agrees", patience, || {
            let found = self.ledger_differences(expected);
            if found.is_empty() {
                return Ok(());
            }
            Err(found.join("\n"))
        });
    }

    /// Waits until no count waits for what was spent before it. When that comes, the ledger publishes
    /// every account of the count again.
    ///
    /// # Panics
    /// Where one still waits after `patience`.
    pub fn await_openings(&self, patience: Duration) {
        eventually("what was spent before is known", patience, || {
            let heartbeats = self.table("blocklist").into_iter();
            let mut waiting = heartbeats.filter(|(key, heartbeat)| {
                key.starts_with("heartbeat|ledger|") && !heartbeat["openings"].is_null()
            });
            match waiting.next() {
                None => Ok(()),
                Some((key, heartbeat)) => Err(format!("{key}: {}", heartbeat["openings"])),
            }
        });
    }

    /// Every way in which the ledger, asked by [`Lab::settle_ledger`], differs from `expected`.
    ///
    /// # Panics
    /// Where the broker does not answer.
    pub fn ledger_differences(&self, expected: &Expected) -> Vec<String> {
        let dollars = |nanos: i128| Nanos::new(nanos).to_string();
        let mut wanted = BTreeMap::new();
        wanted.insert("everything|*".to_owned(), dollars(expected.nanos));
        wanted.insert(format!("calls|{WORKSPACE}"), expected.events.to_string());
        for (customer, (_, nanos)) in &expected.by_customer {
            let key = format!("customers|{WORKSPACE}/customer={customer}");
            wanted.insert(key, dollars(*nanos));
        }
        let found = self.ledger_sums();
        let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
        keys.into_iter()
            .filter(|key| wanted.get(*key) != found.get(*key))
            .map(|key| {
                let (wanted, found) = (wanted.get(key), found.get(key));
                format!("{key}: expected {wanted:?}, found {found:?}")
            })
            .collect()
    }

    /// Spent by blocklist key, of entries that know the second limit.
    fn ledger_sums(&self) -> BTreeMap<String, String> {
        let dollars = format!("{SECOND_LIMIT}.00");
        let spent = |entry: &Value| {
            if entry["limit_usd"] == dollars.as_str() {
                entry["spent_usd"].as_str().map(str::to_owned)
            } else if entry["limit_calls"] == SECOND_LIMIT {
                entry["spent_calls"].as_u64().map(|calls| calls.to_string())
            } else {
                None
            }
        };
        let entries = self.table("blocklist").into_iter();
        entries
            .filter_map(|(key, entry)| Some((key, spent(&entry)?)))
            .collect()
    }
}
