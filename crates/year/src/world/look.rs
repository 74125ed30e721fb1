//! The look at the books: rows, ledger, closed windows and verdicts against the reference.

use std::collections::BTreeMap;

use serde_json::Value;

use super::World;
use crate::growth::{Size, Sizes};
use crate::reference::{Expected, Place};

impl World {
    /// Compares everything with what must be.
    pub(super) fn look(&mut self) -> Result<(), String> {
        if !self.processor.is_up || !self.is_loading {
            return Ok(());
        }
        self.settle()?;
        self.year.looks += 1;
        self.looked_at = Some(self.cluster.now);
        self.take_rows()?;
        self.look_at_dlq()?;
        self.reference.nothing_is_lost()?;
        self.note_processed_corrections();
        self.reference.corrections_are_settled()?;
        if let Some((table, address)) = self.warehouse.address_given_twice() {
            return Err(format!("an address is given twice in {table}: {address:?}"));
        }
        let ledger_time = self.processor.ledger_time().0;
        self.reference.openings_were_told(ledger_time);
        self.look_at_accounts()?;
        self.reference.closed_windows_balance(ledger_time)?;
        self.look_at_verdicts()
    }

    /// Shows the reference what the warehouse has got.
    pub(super) fn take_rows(&mut self) -> Result<(), String> {
        for row in self.warehouse.take_rows("spend") {
            self.reference.row(&row)?;
        }
        for row in self.warehouse.take_rows("budget_windows") {
            self.reference.line(&row);
        }
        for table in ["verdicts", "finding_changes"] {
            self.warehouse.take_rows(table);
        }
        Ok(())
    }

    pub(super) fn look_at_dlq(&mut self) -> Result<(), String> {
        for partition in 0..self.set.partitions {
            let next = &mut self.looked_at_dlq[partition as usize];
            for record in self
                .cluster
                .log(&self.set.topics.dlq, partition)
                .from(*next)
            {
                *next = record.offset + 1;
                let value = record.value.as_deref().unwrap_or_default();
                let event: Value = serde_json::from_slice(value).unwrap_or_default();
                let reason = record
                    .headers
                    .iter()
                    .find(|(name, _)| name == "spendfuse_reason");
                let reason = reason.map_or("none", |(_, value)| {
                    std::str::from_utf8(value).unwrap_or("?")
                });
                let id = event["id"].as_str().unwrap_or_default();
                let output = event["data"]["usage"]["output_tokens"].as_i64();
                let output = output.unwrap_or_default().into();
                self.reference.set_aside(id, output, reason, record.at)?;
            }
        }
        Ok(())
    }

    pub(super) fn look_at_accounts(&self) -> Result<(), String> {
        let mut expected_accounts = 0;
        for (place, expected) in self.reference.open_accounts(self.processor.ledger_time().0) {
            let found = self
                .processor
                .account(&place.budget, &place.scope, place.start);
            expected_accounts += 1;
            if found != Some(expected.sum()) {
                return Err(format!(
                    "{place:?} holds {found:?}, counted {:?}",
                    expected.sum()
                ));
            }
        }
        let accounts = self.processor.accounts();
        if accounts != expected_accounts {
            return Err(format!(
                "{accounts} accounts in the ledger, expected {expected_accounts}"
            ));
        }
        Ok(())
    }

    pub(super) fn look_at_verdicts(&mut self) -> Result<(), String> {
        let now = self.cluster.now;
        for sidecar in self.sidecars.iter().filter(|one| one.is_up) {
            if let Some(bad) = sidecar.bad.first() {
                return Err(format!("a sidecar cannot take a record: {bad}"));
            }
            let state = sidecar
                .state(&self.cluster)
                .map(spendfuse_guard::State::name);
            if state != Some("live") {
                return Err(format!("a sidecar is {state:?} though all is well"));
            }
            let budgets = self.reference.budgets();
            // Scopes of windows that are over must be free again.
            let scopes = self.reference.accounts.iter();
            let scopes: BTreeMap<_, _> = scopes
                .map(|(place, known)| ((&place.budget, &place.scope), (place, known)))
                .collect();
            for (place, known) in scopes.into_values() {
                let (budget, _) = &budgets[&place.budget];
                let (start, _) = budget.window_at(now);
                let current = Place {
                    start,
                    ..place.clone()
                };
                let sum = self
                    .reference
                    .accounts
                    .get(&current)
                    .map(Expected::sum)
                    .unwrap_or_default();
                let expected = (budget.verdict(sum, &known.like), budget.counted(sum));
                let found = sidecar.ask(&self.cluster, &place.budget, &known.like.request());
                self.year.verdicts += 1;
                if found != Some(expected) {
                    return Err(format!(
                        "{current:?}: a check says {found:?}, expected {expected:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn sizes(&self) -> Sizes {
        let ledger_time = self.processor.ledger_time().0;
        let accounts = self.reference.open_accounts(ledger_time).count();
        let topics = self.cluster.sizes();
        let mut sizes: Sizes = topics
            .map(|(topic, all, has_retention)| {
                let (_, name) = topic.split_once('.').unwrap_or_default();
                let needed = match name {
                    // Of what an account has used up a finding is open as long as the account is there.
                    "blocklist" | "ledger.changelog" | "findings" => accounts,
                    _ => 0,
                };
                // Findings go by their age, which is a bound only where the broker is told to.
                let is_looked_at = !has_retention || name == "findings";
                let needed = is_looked_at.then_some(needed);
                (format!("topic.{name}"), Size { all, needed })
            })
            .collect();
        self.processor.note_sizes(&mut sizes);
        let accounts = Size {
            all: self.processor.accounts(),
            needed: Some(accounts),
        };
        sizes.insert("ledger.accounts".to_owned(), accounts);
        sizes
    }
}
