//! What history adds to the windows that are open, or a re-rating changes in them, and which verdicts
//! change by it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use spendfuse_domain::budget::{Compared, CompiledBudget, Spend};
use spendfuse_domain::event::Event;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Figures, Nanos, UnixMillis, Verdict, Window};

use super::super::budgets::standing;
use super::super::output::{self, Colour, grouped};
use super::Failure;
use crate::settings::Settings;

/// Scopes that are followed, about 200 bytes each.
const MOST_SCOPES: usize = 1_000_000;
/// Changes that are printed for people.
const MOST_PRINTED: usize = 100;

/// A budget, by its place, and the scope in which an event counts in a window that is open.
pub type Met = (usize, String);

/// Budgets, each with its window that is open.
pub type OpenWindows = Arc<[(CompiledBudget, Window)]>;

/// The open windows, how they stand, and what comes on top.
pub struct Forecast {
    budgets: OpenWindows,
    /// What readers of the blocklist know, by budget and scope.
    known: HashMap<(String, String), BlocklistEntry>,
    added: BTreeMap<Met, Added>,
    /// Whether there were too many scopes to follow.
    is_full: bool,
    /// Whether spend may become less, so that verdicts may be lifted.
    may_lift: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Added {
    spend: Spend,
    unpriced: Nanos,
}

/// A verdict that changes.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    budget: String,
    scope: String,
    window: String,
    from: Verdict,
    to: Verdict,
    /// What is spent then, and the limit.
    #[serde(flatten)]
    figures: Figures,
}

/// An open window in which the cost changes.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct WindowChange {
    pub budget: String,
    pub scope: String,
    pub window: String,
    pub change_usd: Nanos,
}

/// Where `event` counts.
pub fn met(budgets: &[(CompiledBudget, Window)], event: &Event<'_>) -> Vec<Met> {
    let budgets = budgets.iter().enumerate();
    let met = budgets.filter_map(|(place, (compiled, window))| {
        let is_open = window.start <= event.time && window.end.is_none_or(|end| event.time < end);
        let scope = is_open.then(|| compiled.scope_of(&event.attribution));
        Some((place, scope??))
    });
    met.collect()
}

/// How a scope stands.
struct Stood {
    verdict: Verdict,
    spent: i128,
    /// Whether it was judged by the limit in force.
    is_of_this_limit: bool,
}

impl Stood {
    /// The verdict once `more` is spent, of which `enforced` does not only warn.
    ///
    /// How much of what was spent before only warns, its writer alone knows. Where that has reached a
    /// step and the verdict is milder, its verdict stands until what is added blocks by itself.
    fn verdict_with(&self, compiled: &CompiledBudget, more: i128, enforced: i128) -> Verdict {
        let verdict_at = |spent, enforced| {
            let compared = Compared {
                spent,
                enforced,
                estimate: 0,
            };
            let step = compiled.reached(compared, Verdict::Block);
            let step = step.and_then(|index| compiled.step(index));
            step.map_or(Verdict::Ok, |step| step.action.verdict())
        };
        let spent = self.spent + more;
        let to = verdict_at(spent, self.spent + enforced);
        if more <= 0 {
            return to.min(self.verdict);
        }
        let has_only_warned = !compiled.budget.unpriced_blocks
            && self.is_of_this_limit
            && verdict_at(self.spent, self.spent) > self.verdict;
        match has_only_warned {
            true => to.min(self.verdict).max(verdict_at(spent, enforced)),
            false => to,
        }
    }
}

impl Forecast {
    /// Reads how `budgets` stand. Those of sessions are left out: history belongs to no session of now.
    pub fn read(
        settings: &Settings,
        budgets: &[CompiledBudget],
        now: UnixMillis,
    ) -> Result<Self, Failure> {
        let calendar = budgets
            .iter()
            .filter(|compiled| !compiled.budget.window.is_session());
        let entries = standing::read(settings, now)?.scopes.into_iter();
        let known = entries.map(|entry| ((entry.budget.clone(), entry.scope.clone()), entry));
        Ok(Self {
            budgets: calendar
                .map(|compiled| (compiled.clone(), compiled.window(now)))
                .collect(),
            known: known.collect(),
            added: BTreeMap::new(),
            is_full: false,
            may_lift: false,
        })
    }

    /// The same for changes that may also make spend less.
    #[must_use]
    pub fn lifting(self) -> Self {
        Self {
            may_lift: true,
            ..self
        }
    }

    /// Where the entry of `event` counts, which arrived at `received_at`.
    pub fn met_by_entry(&self, event: &Event<'_>, received_at: UnixMillis) -> Vec<Met> {
        let mut met = met(&self.budgets, event);
        met.retain(|(place, scope)| {
            let (compiled, window) = &self.budgets[*place];
            let key = (compiled.budget.id.to_string(), scope.clone());
            // Where the account holds what was spent before the budget was made, the window's start.
            let since = self.known.get(&key).map(|entry| entry.counted_from);
            since.is_none_or(|since| since <= received_at || since <= window.start)
        });
        met
    }

    /// The windows, for who looks where events count while others come on top.
    pub fn open_windows(&self) -> OpenWindows {
        Arc::clone(&self.budgets)
    }

    /// Spend comes on top.
    pub fn add(&mut self, met: Vec<Met>, spend: Spend, unpriced: Nanos) {
        for one in met {
            if self.added.len() >= MOST_SCOPES && !self.added.contains_key(&one) {
                self.is_full = true;
                continue;
            }
            let added = self.added.entry(one).or_default();
            added.spend.add(spend);
            added.unpriced += unpriced;
        }
    }

    /// Which verdicts change, the strictest first.
    pub fn changes(&self) -> Vec<Change> {
        let added = self.added.iter();
        let mut changes: Vec<Change> = added
            .filter_map(|((place, scope), added)| self.change(*place, scope, *added))
            .collect();
        changes.sort_by_key(|change| std::cmp::Reverse(change.to));
        changes
    }

    fn change(&self, place: usize, scope: &str, added: Added) -> Option<Change> {
        let (compiled, window) = &self.budgets[place];
        let budget = &compiled.budget;
        let known = self.known.get(&(budget.id.to_string(), scope.to_owned()));
        let known = known.filter(|entry| entry.window_start == window.start);
        let from = known.map_or(Verdict::Ok, |entry| entry.verdict);
        let before = known.and_then(|entry| entry.figures.spent);
        let before = before.map_or(0, |spent| spent.number());
        let unit = budget.limit.unit();
        let more = added.spend.counted(unit).number();
        let only_warns = match budget.unpriced_blocks {
            true => Spend::default(),
            false => Spend {
                cost: added.unpriced,
                ..Spend::default()
            },
        };
        let stood = Stood {
            verdict: from,
            spent: before,
            is_of_this_limit: known.is_some_and(|one| one.figures.limit == Some(budget.limit)),
        };
        let enforced = more - only_warns.counted(unit).number();
        let (spent, to) = (before + more, stood.verdict_with(compiled, more, enforced));
        let changes = to > from || self.may_lift && to != from;
        changes.then(|| Change {
            budget: budget.id.to_string(),
            scope: scope.to_owned(),
            window: window.label.clone(),
            from,
            to,
            figures: Figures::new(budget.limit.with(spent), budget.limit),
        })
    }

    /// By how much the cost in each window of a budget of dollars changes, the most first.
    pub fn windows(&self) -> Vec<WindowChange> {
        let mut windows: Vec<WindowChange> = self
            .added
            .iter()
            .filter_map(|((place, scope), added)| {
                let (compiled, window) = &self.budgets[*place];
                let change = added.spend.counted(compiled.budget.limit.unit()).usd();
                Some(WindowChange {
                    budget: compiled.budget.id.to_string(),
                    scope: scope.clone(),
                    window: window.label.clone(),
                    change_usd: change.filter(|change| *change != Nanos::ZERO)?,
                })
            })
            .collect();
        windows.sort_by_key(|one| std::cmp::Reverse(one.change_usd.get().abs()));
        windows
    }

    /// Whether there were too many scopes to name all changes.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

/// For people; `would` says that nothing has happened yet.
pub fn print(changes: &[Change], would: bool) {
    let change = if would { "would change" } else { "change" };
    if changes.is_empty() {
        output::line(format!(
            "no verdict {}",
            change.replace("change", "changes")
        ));
        return;
    }
    output::line(format!("verdicts that {change}:"));
    for one in changes.iter().take(MOST_PRINTED) {
        let (spent, limit) = output::figures(one.figures);
        let Change {
            budget,
            scope,
            window,
            ..
        } = one;
        output::parts(&[
            (&format!("  {budget} {scope} {window}: "), None),
            (one.from.name(), None),
            (" -> ", None),
            (one.to.name(), colour(one.to)),
            (&format!(", {spent} of {limit}"), None),
        ]);
    }
    if changes.len() > MOST_PRINTED {
        let more = grouped((changes.len() - MOST_PRINTED) as u64);
        output::line(format!("  and {more} more; --json names all"));
    }
}

fn colour(verdict: Verdict) -> Option<Colour> {
    Some(output::verdict_colour(verdict))
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::budget::Budget;

    use super::*;

    const DOLLAR: i128 = 1_000_000_000;

    #[test]
    fn spend_that_has_only_warned_blocks_no_more_than_it_did() {
        let record = br#"{"v":1,"scope":{"workspace":"*"},"window":"month","limit":"10.00","steps":[{"at":50,"do":"warn"},{"at":100,"do":"block"}],"counted_from":"2026-01-01T00:00:00Z"}"#;
        let budget = Budget::from_record("all", record).expect("a record");
        let compiled = CompiledBudget::new(budget);
        let with = |verdict, spent: i128, more: i128, enforced: i128| {
            let stood = Stood {
                verdict,
                spent: spent * DOLLAR,
                is_of_this_limit: true,
            };
            stood.verdict_with(&compiled, more * DOLLAR, enforced * DOLLAR)
        };
        assert_eq!(with(Verdict::Warn, 12, -1, -1), Verdict::Warn);
        assert_eq!(with(Verdict::Warn, 12, -8, -8), Verdict::Ok);
        assert_eq!(with(Verdict::Warn, 12, 1, 1), Verdict::Warn);
        assert_eq!(with(Verdict::Warn, 12, 10, 10), Verdict::Block);
        assert_eq!(with(Verdict::Warn, 9, 1, 1), Verdict::Block);
        assert_eq!(with(Verdict::Warn, 9, 1, 0), Verdict::Warn);
        assert_eq!(with(Verdict::Block, 12, -5, -5), Verdict::Warn);
    }
}
