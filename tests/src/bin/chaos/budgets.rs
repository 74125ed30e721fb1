//! The budgets of a run: how they change, and what every scope's verdict must be in the end.

mod budget;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use spendfuse_tests::lab::WORKSPACE;

use crate::clock::Boundary;
use crate::ledger::Call;
use crate::rows::Row;
use budget::{Budget, Scope};
use spendfuse_tests::random::Random;

/// How long a looping session stays blocked.
pub const COOLDOWN: &str = "3s";

/// The place of a verdict in their order.
fn strictness(verdict: &str) -> Option<usize> {
    let order = ["ok", "warn", "downgrade", "block"];
    order.iter().position(|known| *known == verdict)
}

/// Budgets that come in the middle, one after the other, each going when the next one comes. Each
/// counts what no other does: what the ledger itself counts of one begins with the budgets' version
/// that brought it, and what was spent before comes from the warehouse.
const GUESTS: [(&str, Scope); 3] = [
    ("features-of-customers", Scope::CustomerFeature),
    ("plans-of-features", Scope::FeaturePlan),
    ("plans", Scope::Plan),
];

/// What the blocklist must say of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `ok`, `warn`, `downgrade` or `block`.
    pub verdict: String,
    /// Nano-dollars or calls.
    pub spent: i128,
    /// The same of the limit.
    pub limit: i128,
}

/// How exactly the figure of an entry is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figures {
    /// As nothing else has happened for some seconds: figures of scopes below half of their limit may
    /// lag by less than a hundredth of what remains.
    AsTold,
    /// Every entry has just been told anew.
    Anew,
}

/// Budgets that change again and again.
#[derive(Clone, Debug)]
pub struct Budgets {
    budgets: Vec<Budget>,
    random: Random,
    /// How many guests have come.
    guests: usize,
    /// The version of the budgets topic that brought each; 0 where it counts everything.
    versions: BTreeMap<String, u64>,
    /// Sessions that were ended.
    ended: BTreeSet<String>,
    changes: i128,
    /// When windows end.
    boundary: Boundary,
    /// How long events come, seconds: limits are such that some are reached.
    seconds: i128,
}

/// It blocks late: no call would go through the proxy any more, and every decision be the same.
const EVERYTHING: &str = "everything";
const DOLLAR: i128 = 1_000_000_000;
/// What the usual limits are made for.
const FULL_SECONDS: i128 = 300;

impl Budgets {
    /// The first budgets of a seed, for events of so many seconds.
    pub fn new(seed: u64, seconds: u64, boundary: Boundary) -> Self {
        let mut budgets = Self {
            budgets: vec![
                Budget::new(EVERYTHING, Scope::All, "lifetime", 20 * DOLLAR),
                Budget {
                    in_calls: true,
                    ..Budget::new("calls", Scope::Workspace, "lifetime", 50_000)
                },
                Budget::new("customers", Scope::Customer, "lifetime", DOLLAR / 4),
                Budget {
                    only_free: true,
                    ..Budget::new("free-plan", Scope::Customer, "lifetime", DOLLAR / 10)
                },
                Budget::new("features", Scope::Feature, "day", 2 * DOLLAR),
                Budget::new("sessions", Scope::Session, "session", DOLLAR / 50),
                Budget::new("customers-by-hour", Scope::Customer, "hour", DOLLAR / 5),
                Budget::new("features-by-week", Scope::Feature, "week", 2 * DOLLAR),
                Budget::new("customers-by-month", Scope::Customer, "month", DOLLAR / 5),
                Budget {
                    in_calls: true,
                    ..Budget::new("calls-by-quarter", Scope::Workspace, "quarter", 50_000)
                },
                Budget::new("everything-by-year", Scope::All, "year", 20 * DOLLAR),
            ],
            boundary,
            random: Random::new(seed, 6),
            guests: 0,
            versions: BTreeMap::new(),
            ended: BTreeSet::new(),
            changes: 0,
            seconds: i128::from(seconds),
        };
        budgets.change();
        budgets
    }

    /// A budget comes, and the one that came before it goes.
    pub fn come_and_go(&mut self) {
        let Some((id, scope)) = GUESTS.get(self.guests).copied() else {
            return;
        };
        if let Some(before) = self.guests.checked_sub(1) {
            self.budgets.retain(|budget| budget.id != GUESTS[before].0);
        }
        self.guests += 1;
        self.budgets
            .push(Budget::new(id, scope, "lifetime", DOLLAR));
    }

    /// Whether a budget was there and is not any more.
    fn has_gone(&self, id: &str) -> bool {
        let gone = &GUESTS[..self.guests.saturating_sub(1)];
        gone.iter().any(|(guest, _)| *guest == id)
    }

    /// Tells from which version of the budgets topic on each budget counts, 0 where it holds what was
    /// spent before, and which sessions are over.
    pub fn learn(&mut self, versions: BTreeMap<String, u64>, ended: BTreeSet<String>) {
        self.versions = versions;
        self.ended = ended;
    }

    /// Other limits and steps. No limit comes twice, so that every state is published anew.
    pub fn change(&mut self) {
        self.changes += 1;
        for budget in &mut self.budgets {
            let percent = 40 + i128::from(self.random.below(120));
            let usual = match budget.scope {
                Scope::All => 10 * DOLLAR,
                Scope::Workspace => 30_000,
                Scope::Customer if budget.only_free => DOLLAR / 20,
                Scope::Customer => DOLLAR / 5,
                Scope::Feature => 3 * DOLLAR,
                Scope::Session => DOLLAR / 50,
                Scope::CustomerFeature => DOLLAR / 20,
                Scope::FeaturePlan => 2 * DOLLAR,
                Scope::Plan => 5 * DOLLAR,
            };
            let limit = usual * percent / 100 * self.seconds / FULL_SECONDS;
            budget.limit = limit / 1000 * 1000 + self.changes;
            budget.steps = match self.random.below(3) {
                0 => vec![(50, "warn"), (80, "downgrade"), (100, "block")],
                1 => vec![(60, "warn"), (100, "block")],
                _ => vec![(30, "warn"), (100, "downgrade"), (130, "block")],
            };
            if budget.id == EVERYTHING {
                let blocking = budget.steps.iter_mut().filter(|step| step.1 == "block");
                blocking.for_each(|step| step.0 *= 10);
            }
        }
    }

    /// The file that puts them into force.
    pub fn yaml(&self) -> String {
        let budgets: String = self.budgets.iter().map(Budget::yaml).collect();
        format!(
            "budgets:\n{budgets}detectors:\n  - {{id: loops, detector: retry_loop, repeats: 3, \
             action: block_session, cooldown: {COOLDOWN}}}\n"
        )
    }

    /// What every scope's entry must say, by blocklist key, after these rows.
    pub fn standings(&self, rows: &[Row]) -> BTreeMap<String, Standing> {
        let mut sums: BTreeMap<String, (usize, i128)> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.revenue.is_none()) {
            for (place, budget) in self.budgets.iter().enumerate() {
                let is_other = budget.only_free && row.call.plan != "free";
                let is_over =
                    budget.scope == Scope::Session && self.ended.contains(&row.call.session);
                let since = self.versions.get(budget.id).copied();
                let is_before = since.is_none_or(|since| row.budget_version < since);
                let has_ended = self.boundary.ends(budget.window, row.time);
                let is_elsewhere = !budget.scope.is_in(&row.call.workspace);
                if is_elsewhere || is_other || is_over || is_before || has_ended {
                    continue;
                }
                let key = format!("{}|{}", budget.id, budget.scope_of(&row.call));
                let sum = sums.entry(key).or_insert((place, 0));
                sum.1 += if budget.in_calls {
                    row.calls
                } else {
                    row.nanos
                };
            }
        }
        let standing = |(key, (place, spent)): (String, (usize, i128))| {
            (key, self.budgets[place].standing(spent))
        };
        sums.into_iter().map(standing).collect()
    }

    /// What a call of this kind outside of any session must be answered: the strictest verdict of
    /// the scopes that it counts against.
    pub fn decision(&self, call: &Call, standings: &BTreeMap<String, Standing>) -> String {
        let applies = |budget: &&Budget| {
            budget.scope != Scope::Session
                && budget.scope.is_in(&call.workspace)
                && (!budget.only_free || call.plan == "free")
        };
        let verdicts = self.budgets.iter().filter(applies).filter_map(|budget| {
            let key = format!("{}|{}", budget.id, budget.scope_of(call));
            Some(standings.get(&key)?.verdict.as_str())
        });
        let strictest = verdicts.max_by_key(|verdict| strictness(verdict));
        match strictest {
            None | Some("ok") => "allow".to_owned(),
            Some(verdict) => verdict.to_owned(),
        }
    }

    /// The budgets in force as lines for the reference in SQL.
    pub fn lines(&self) -> Vec<Value> {
        let number = |action| strictness(action);
        let line = |budget: &Budget| {
            let steps = budget.steps.iter().map(|(at, action)| (at, number(action)));
            json!({
                "id": budget.id,
                "workspace": if budget.scope == Scope::All { "*" } else { WORKSPACE },
                "dimensions": budget.scope.dimensions(),
                "only_plan": if budget.only_free { "free" } else { "" },
                "window": budget.window,
                "unit": if budget.in_calls { "calls" } else { "usd" },
                "limit": budget.limit.to_string(),
                "steps": steps.collect::<Vec<_>>(),
                "since": self.versions.get(budget.id),
            })
        };
        self.budgets.iter().map(line).collect()
    }

    /// Whether a budget is in force or was.
    pub fn knows(&self, id: &str) -> bool {
        self.budgets.iter().any(|known| known.id == id) || self.has_gone(id)
    }

    /// Whether an entry of this key may say `found` where `wanted` is right.
    pub fn agrees(&self, key: &str, found: &Standing, wanted: &Standing, figures: Figures) -> bool {
        if figures == Figures::Anew || found.spent == wanted.spent {
            return found == wanted;
        }
        let budget = self
            .budgets
            .iter()
            .find(|budget| key.starts_with(&format!("{}|", budget.id)));
        let Some(budget) = budget else { return false };
        // What was taken back since makes less of it.
        let lag = (wanted.spent - found.spent).abs();
        let is_small = lag * 100 < budget.remaining(wanted.spent);
        let is_below_half = wanted.spent * 2 <= wanted.limit;
        let means_the_same = (&found.verdict, found.limit) == (&wanted.verdict, wanted.limit);
        means_the_same && is_small && is_below_half
    }
}
