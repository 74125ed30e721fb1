//! Checks of a ledger partition's commits, and of the sums at the end.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::{BudgetId, Window};
use spendfuse_engine::ledger::{AccountKey, WindowLineKind};

use super::published::mistake;
use super::{Checker, Promise, Violation};
use crate::pipeline::{Finished, LedgerCommit};
use crate::readers::StageName;
use crate::reference::Tally;
use crate::reference::spend::{AccountName, Expected};

/// An account and the version in which its count began.
type CountName = (AccountName, usize);

/// What is remembered between commits of the ledger.
pub(super) struct LedgerChecker {
    /// Accounts whose `budget_exceeded` finding is open, per partition.
    exceeded: Vec<BTreeSet<CountName>>,
    closed: Vec<usize>,
    /// Whether the last commit was over before the time had come that its records tell of.
    is_between: Vec<bool>,
    /// Spend that is in lines of the warehouse and in no account any more.
    written_off: BTreeMap<CountName, Tally>,
    /// The openings that closed accounts had in the end.
    openings: BTreeMap<CountName, Tally>,
    /// Accounts that are closed.
    gone: BTreeSet<CountName>,
}

impl LedgerChecker {
    pub(super) fn new(partitions: u32) -> Self {
        let partitions = partitions as usize;
        Self {
            exceeded: vec![BTreeSet::new(); partitions],
            closed: vec![0; partitions],
            is_between: vec![false; partitions],
            written_off: BTreeMap::new(),
            openings: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }
}

fn is_running(window: &Window, commit: &LedgerCommit) -> bool {
    let begun = window.end.is_none() || window.start <= commit.now;
    begun && window.end.is_none_or(|end| commit.now < end)
}

impl Checker<'_> {
    pub(super) fn ledger_commit(&mut self, commit: &LedgerCommit) -> Result<(), Violation> {
        let writer = (StageName::Ledger, commit.partition);
        self.guard.apply(writer, &commit.blocklist);
        self.findings.apply(writer, &commit.findings);
        if commit.broken_links > 0 {
            let detail = format!("ledger {}: {:?}", commit.partition, commit.alerts);
            return Err(Violation::new(Promise::DeltaChain, detail));
        }
        let accounts = self.spend.accounts(
            self.scenario,
            commit.version,
            &commit.applied,
            Some(commit.partition),
        );
        self.write_off(commit, &accounts);
        if !commit.is_timely {
            self.ledger.is_between[commit.partition as usize] = true;
            return Ok(());
        }
        self.check_verdicts(commit, &accounts)?;
        self.check_exceeded(commit, &accounts)
    }

    fn check_verdicts(
        &self,
        commit: &LedgerCommit,
        accounts: &BTreeMap<AccountName, Expected>,
    ) -> Result<(), Violation> {
        let wrong = |key: &str, what: &str| {
            let here = format!("ledger {} at {}", commit.partition, commit.now);
            let detail = format!("{here}: {key}: {what}");
            Err(Violation::new(Promise::Verdicts, detail))
        };
        let mut expected = BTreeSet::new();
        for (name, Expected { tally, window, .. }) in accounts {
            if !is_running(window, commit) {
                continue;
            }
            let key = format!("{}|{}", name.budget, name.scope);
            let entry = self.guard.entry(&key);
            let standing = tally.standing(self.budget(commit, &name.budget));
            if let Some(what) = mistake(entry, &standing, window.start, commit.now) {
                return wrong(&key, &what);
            }
            if entry.is_some_and(|entry| entry.expires_at != window.end) {
                return wrong(&key, "does not expire at the window's end");
            }
            expected.insert(key);
        }
        for (key, _) in self.guard.of((StageName::Ledger, commit.partition)) {
            if !expected.contains(key) {
                return wrong(key, "is still there, its window or budget is not");
            }
        }
        Ok(())
    }

    fn check_exceeded(
        &mut self,
        commit: &LedgerCommit,
        accounts: &BTreeMap<AccountName, Expected>,
    ) -> Result<(), Violation> {
        let mut now_exceeded = BTreeSet::new();
        let mut keys = BTreeSet::new();
        let writer = (StageName::Ledger, commit.partition);
        let open: BTreeSet<_> = self
            .findings
            .open(writer)
            .map(|(key, _)| key.to_owned())
            .collect();
        for (name, expected) in accounts {
            let budget = self.budget(commit, &name.budget);
            if !is_running(&expected.window, commit) || !expected.tally.standing(budget).exceeded {
                continue;
            }
            let key = format!("{}|budget_exceeded|{}|", name.scope, name.budget);
            // History alone opens nothing. Where it took part, the order decides, and what the
            // limit was then.
            let live = &expected.live;
            let is_corrected = expected.is_corrected;
            let is_sure = match is_corrected {
                true => !expected.has_history,
                false => commit.version == 0 || *live == expected.tally,
            };
            // A call may have been history when it was first told of, and have grown since.
            let is_live = *live != Tally::default() || expected.live_events > 0;
            let must = is_sure && is_live && live.standing(budget).exceeded;
            let may = (is_live || is_corrected || commit.version > 0) && open.contains(&key);
            if must || may {
                let (_, began) = self.scenario.count_begins(commit.version, budget);
                now_exceeded.insert((name.clone(), began));
                keys.insert(key);
            }
        }
        let partition = commit.partition as usize;
        let before = std::mem::replace(&mut self.ledger.exceeded[partition], now_exceeded);
        let ended = before.difference(&self.ledger.exceeded[partition]).count();
        self.ledger.closed[partition] += ended;
        if std::mem::take(&mut self.ledger.is_between[partition]) {
            // What opened and closed between two looks was not looked at.
            self.ledger.closed[partition] = self.findings.closed(writer);
        }
        let closed = (self.findings.closed(writer), self.ledger.closed[partition]);
        if open != keys || closed.0 != closed.1 {
            let here = format!("ledger {partition} at {}", commit.now);
            let detail = format!("{here}: open {open:?}, expected {keys:?}; closed {closed:?}");
            return Err(Violation::new(Promise::Findings, detail));
        }
        Ok(())
    }

    /// Keeps what closed windows and late spend amount to.
    fn write_off(&mut self, commit: &LedgerCommit, accounts: &BTreeMap<AccountName, Expected>) {
        for line in &commit.lines {
            if matches!(line.kind, WindowLineKind::Spent | WindowLineKind::Opening) {
                continue;
            }
            let budgets = &self.scenario.versions[commit.version].budgets;
            let Some(budget) = budgets.iter().find(|one| one.id.as_str() == line.budget) else {
                continue;
            };
            let name = AccountName {
                budget: line.budget.clone(),
                scope: line.scope.clone(),
                start: line.window.start,
            };
            let began = self.scenario.count_begins(commit.version, budget).1;
            if let Some(expected) = accounts.get(&name)
                && line.kind == WindowLineKind::Close
            {
                let count = (name.clone(), began);
                self.ledger.openings.insert(count, expected.opening.clone());
            }
            let count = (name, began);
            let sum = self.ledger.written_off.entry(count.clone()).or_default();
            sum.cost += line.spend.cost.get();
            sum.tokens += i128::from(line.spend.tokens);
            sum.calls += i128::from(line.spend.calls);
            self.ledger.gone.insert(count);
        }
    }

    /// Ledger, session accounts and lines together hold exactly what was counted.
    pub(super) fn final_sums(&mut self, finished: &Finished) -> Result<(), Violation> {
        let wrong = |detail: String| Err(Violation::new(Promise::Sums, detail));
        let version = self.scenario.versions.len() - 1;
        let everything = vec![u64::MAX; self.scenario.partitions as usize];
        let accounts = self
            .spend
            .accounts(self.scenario, version, &everything, None);
        let mut live = 0;
        for (
            name,
            Expected {
                tally: mut expected,
                opening,
                ..
            },
        ) in accounts
        {
            let key = AccountKey {
                budget: BudgetId::new(&name.budget).expect("a good id"),
                scope: name.scope.clone(),
                start: name.start,
            };
            let budgets = self.scenario.versions[version].budgets.iter();
            let mut budgets = budgets.filter(|one| one.id == key.budget);
            let budget = budgets.next().expect("an account has a budget");
            let began = self.scenario.count_begins(version, budget).1;
            let found: Vec<_> = finished
                .ledgers
                .iter()
                .filter_map(|ledger| ledger.account(&key))
                .collect();
            live += found.len();
            let mut sum = self
                .ledger
                .written_off
                .get(&(name.clone(), began))
                .cloned()
                .unwrap_or_default();
            for account in &found {
                let spend = account.spend();
                sum.cost += spend.cost.get();
                sum.tokens += i128::from(spend.tokens);
                sum.calls += i128::from(spend.calls);
            }
            if found.is_empty() {
                // What a closed account had in the end, the budget of today may not say any more.
                let had = self.ledger.openings.get(&(name.clone(), began));
                expected.replace(&opening, had.unwrap_or(&Tally::default()));
            }
            let equal = (sum.cost, sum.tokens, sum.calls)
                == (expected.cost, expected.tokens, expected.calls);
            if !equal || found.len() > 1 {
                return wrong(format!("{name:?}: {sum:?}, expected {expected:?}"));
            }
        }
        let known: usize = finished.ledgers.iter().map(|ledger| ledger.len()).sum();
        if known != live {
            return wrong(format!("{known} accounts in the ledger, expected {live}"));
        }
        self.session_sums(finished)
    }

    fn session_sums(&self, finished: &Finished) -> Result<(), Violation> {
        for (reference, meter) in self.meters.iter().zip(&finished.meters) {
            for session in reference.sessions.values() {
                for ((budget, scope), expected) in &session.accounts {
                    let id = BudgetId::new(budget).expect("a good id");
                    let account = meter.session_account(&id, scope);
                    let sums = account.map(|one| (one.cost.get(), i128::from(one.tokens)));
                    let tally = &expected.tally;
                    if sums != Some((tally.cost, tally.tokens)) {
                        let detail = format!("{budget} in {scope}: {sums:?}, expected {tally:?}");
                        return Err(Violation::new(Promise::Sums, detail));
                    }
                }
            }
        }
        Ok(())
    }

    fn budget(&self, commit: &LedgerCommit, id: &str) -> &spendfuse_domain::Budget {
        let budgets = &self.scenario.versions[commit.version].budgets;
        let mut named = budgets.iter().filter(|one| one.id.as_str() == id);
        named.next().expect("an account has a budget")
    }
}
