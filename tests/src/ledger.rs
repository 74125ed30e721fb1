//! What the ledger has counted, seen through the blocklist topic.

use std::collections::BTreeMap;
use std::time::Duration;

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

impl Lab {
    /// Waits until the ledger's sums of [`watching_budgets`] are what is expected.
    ///
    /// # Panics
    /// Where they are not after `patience`.
    pub fn settle_ledger(&self, expected: &Expected, patience: Duration) {
        self.apply_budgets(&watching_budgets(FIRST_LIMIT + 1));
        let mut wanted = BTreeMap::new();
        let dollars = |nanos: i128| Nanos::new(nanos).to_string();
        wanted.insert("everything|*".to_owned(), dollars(expected.nanos));
        wanted.insert(format!("calls|{WORKSPACE}"), expected.events.to_string());
        for (customer, (_, nanos)) in &expected.by_customer {
            let key = format!("customers|{WORKSPACE}/customer={customer}");
            wanted.insert(key, dollars(*nanos));
        }
        eventually("the ledger agrees", patience, || {
            let found = self.ledger_sums();
            if found == wanted {
                return Ok(());
            }
            let differing: Vec<_> = wanted
                .iter()
                .filter(|(key, sum)| found.get(*key) != Some(sum))
                .map(|(key, sum)| format!("{key}: expected {sum}, found {:?}", found.get(key)))
                .chain(
                    found
                        .keys()
                        .filter(|key| !wanted.contains_key(*key))
                        .cloned(),
                )
                .collect();
            Err(differing.join("\n"))
        });
    }

    /// Spent by blocklist key, of entries that know the second limit.
    fn ledger_sums(&self) -> BTreeMap<String, String> {
        let limit = (FIRST_LIMIT + 1).to_string();
        let entries = self.table("blocklist").into_iter();
        entries
            .filter(|(key, _)| !key.starts_with("heartbeat|"))
            .filter_map(|(key, entry)| {
                let in_dollars = entry["limit_usd"].as_str() == Some(&format!("{limit}.00"));
                let in_calls = entry["limit_calls"].as_u64() == Some(u64::from(FIRST_LIMIT + 1));
                let spent = match (in_dollars, in_calls) {
                    (true, _) => entry["spent_usd"].as_str()?.to_owned(),
                    (_, true) => entry["spent_calls"].as_u64()?.to_string(),
                    _ => return None,
                };
                Some((key, spent))
            })
            .collect()
    }
}
