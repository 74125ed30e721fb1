//! What was spent in each scope and window, and what that means.

use std::collections::{BTreeMap, HashMap};

use spendfuse_domain::routing::partition_of;
use spendfuse_domain::row::PriceBasis;
use spendfuse_domain::scope::Pattern;
use spendfuse_domain::{
    Action, Amount, Attribution, Body, Budget, Dimension, Dimensions, Event, Unit, UnixMillis,
    Verdict, Window,
};

use super::identities::{Before, placed};
use crate::corrections::{Made, Stands};
use crate::scenario::{LogEvent, Scenario};

/// Sums of one scope in one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tally {
    pub cost: i128,
    pub unpriced: i128,
    pub tokens: i128,
    pub calls: i128,
}

impl Tally {
    /// Adds one call.
    pub fn add(&mut self, one: &LogEvent) {
        let Body::Usage(call) = &one.event.body else {
            return;
        };
        let cost = one.cost.total().get();
        self.cost += cost;
        if one.priced == PriceBasis::Ceiling {
            self.unpriced += cost;
        }
        self.tokens += i128::from(call.tokens.each().iter().sum::<u64>());
        self.calls += 1;
    }

    /// Takes back what [`add`](Self::add) added.
    pub fn take_back(&mut self, one: &LogEvent) {
        let mut whole = Self::default();
        whole.add(one);
        self.cost -= whole.cost;
        self.unpriced -= whole.unpriced;
        self.tokens -= whole.tokens;
        self.calls -= whole.calls;
    }

    /// Adds what a budget says was spent before it counted.
    fn open(&mut self, opening: Amount) {
        match opening {
            Amount::Usd(nanos) => self.cost += nanos.get(),
            Amount::Tokens(tokens) => self.tokens += tokens,
            Amount::Calls(calls) => self.calls += calls,
        }
    }

    /// The same with one opening in the place of another.
    pub fn replace(&mut self, opening: &Self, by: &Self) {
        self.cost += by.cost - opening.cost;
        self.tokens += by.tokens - opening.tokens;
        self.calls += by.calls - opening.calls;
    }

    /// Adds what stands for an entry `times` times: once, or less once where it is taken back.
    pub fn add_standing(&mut self, stands: &Stands, times: i128) {
        let Body::Usage(call) = &stands.event.body else {
            return;
        };
        let cost = stands.cost.total().get() * times;
        self.cost += cost;
        if stands.priced == PriceBasis::Ceiling {
            self.unpriced += cost;
        }
        self.tokens += times * i128::from(call.tokens.each().iter().sum::<u64>());
        self.calls += times;
    }

    fn spent(&self, unit: Unit) -> i128 {
        match unit {
            Unit::Usd => self.cost,
            Unit::Tokens => self.tokens,
            Unit::Calls => self.calls,
        }
    }

    /// What the sums mean under `budget`.
    pub fn standing(&self, budget: &Budget) -> Standing {
        let (unit, limit) = (budget.limit.unit(), budget.limit.number());
        let spent = self.spent(unit);
        let mut verdict = Verdict::Ok;
        let mut remaining = None;
        for step in &budget.steps {
            let mut counts = spent;
            let only_warns = matches!(step.action, Action::Warn);
            if unit == Unit::Usd && !only_warns && !budget.unpriced_blocks {
                counts -= self.unpriced;
            }
            let threshold = (limit * i128::from(step.at.0) + 9_999) / 10_000;
            if matches!(step.action, Action::Block) && counts < threshold {
                let until = threshold - counts;
                remaining = Some(remaining.map_or(until, |known: i128| known.min(until)));
            }
            if counts * 10_000 >= limit * i128::from(step.at.0) {
                verdict = verdict.max(match step.action {
                    Action::Warn => Verdict::Warn,
                    Action::Downgrade(_) => Verdict::Downgrade,
                    Action::Block => Verdict::Block,
                });
            }
        }
        let floor_reached = spent * 10_000 >= limit * i128::from(budget.publish_from.0);
        Standing {
            verdict,
            spent,
            limit,
            remaining,
            exceeded: spent >= limit,
            must_be_published: verdict != Verdict::Ok || floor_reached,
        }
    }
}

/// What a tally means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The strictest step reached.
    pub verdict: Verdict,
    /// In the limit's unit.
    pub spent: i128,
    /// In its own unit.
    pub limit: i128,
    /// What may be spent until the next step that blocks, if one is left.
    pub remaining: Option<i128>,
    /// Whether the limit is reached.
    pub exceeded: bool,
    /// Whether readers must know the scope.
    pub must_be_published: bool,
}

/// A scope and window of a budget.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountName {
    /// The budget's id.
    pub budget: String,
    /// Scope text.
    pub scope: String,
    /// Start of the window.
    pub start: UnixMillis,
}

/// What an account must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// All of it.
    pub tally: Tally,
    /// What is no history.
    pub live: Tally,
    /// What was spent before the count began, contained in both.
    pub opening: Tally,
    /// How often something began to count there that is no history.
    pub live_events: usize,
    /// Whether any history counts there.
    pub has_history: bool,
    /// Whether anything was corrected there.
    pub is_corrected: bool,
    /// Its window.
    pub window: Window,
}

impl Expected {
    fn begun(window: &Window) -> Self {
        Self {
            tally: Tally::default(),
            live: Tally::default(),
            opening: Tally::default(),
            live_events: 0,
            has_history: false,
            is_corrected: false,
            window: window.clone(),
        }
    }
}

/// Where an event counts for one budget: scope and window.
type Place = Option<(String, Window)>;

/// All counted calls, and what calendar budgets make of them.
#[derive(Debug, Default)]
pub struct SpendReference {
    /// Place in the log, meter partition, commit.
    counted: Vec<(usize, u32, u64, Option<Before>)>,
    /// Corrections, meter partition, commit.
    corrected: Vec<(Made, u32, u64)>,
    /// Where events count, by the version in which the count began, budget, event.
    places: HashMap<(usize, String, usize), Place>,
}

impl SpendReference {
    /// An event was counted.
    pub fn count(&mut self, index: usize, partition: u32, seq: u64, before: Option<Before>) {
        self.counted.push((index, partition, seq, before));
    }

    /// A correction was applied.
    pub fn correct(&mut self, made: Made, partition: u32, seq: u64) {
        self.corrected.push((made, partition, seq));
    }

    /// The accounts of `version` as a ledger knows them that has applied the deltas up to
    /// `applied` (by meter partition); only those of `ledger` where it is given.
    pub fn accounts(
        &mut self,
        scenario: &Scenario,
        version: usize,
        applied: &[u64],
        ledger: Option<u32>,
    ) -> BTreeMap<AccountName, Expected> {
        let is_here = |scope: &str| {
            let here = partition_of(scope.as_bytes(), scenario.partitions);
            ledger.is_none_or(|ledger| ledger == here)
        };
        let mut accounts = BTreeMap::new();
        for budget in &scenario.versions[version].budgets {
            if budget.window.is_session() {
                continue;
            }
            let (from, began) = scenario.count_begins(version, budget);
            if let Some((scope, window, opening)) = opened(budget)
                && let Some(account) = account_in(&mut accounts, budget, &scope, &window, is_here)
            {
                for tally in [&mut account.tally, &mut account.live, &mut account.opening] {
                    tally.open(opening);
                }
            }
            for (index, partition, seq, before) in &self.counted {
                if *index < from || *seq > applied[*partition as usize] {
                    continue;
                }
                let one = &scenario.log[*index];
                let like = before.and_then(|(_, like)| like);
                let placed = like.map(|like| placed(one, &scenario.log[like]));
                let one = placed.as_ref().unwrap_or(one);
                let counts = self
                    .places
                    .entry((began, budget.id.to_string(), *index))
                    .or_insert_with(|| calendar_place(budget, &one.event));
                let Some((scope, window)) = counts else {
                    continue;
                };
                let Some(account) = account_in(&mut accounts, budget, scope, window, is_here)
                else {
                    continue;
                };
                let mut tallies = vec![&mut account.tally];
                if one.judged_at.is_none() {
                    tallies.push(&mut account.live);
                    account.live_events += 1;
                }
                for tally in tallies {
                    tally.add(one);
                    before.inspect(|(before, _)| tally.take_back(&scenario.log[*before]));
                }
                account.has_history |= one.judged_at.is_some();
            }
            for (made, partition, seq) in &self.corrected {
                // What the count does not contain is not corrected in it.
                if made.of < from || *seq > applied[*partition as usize] {
                    continue;
                }
                let is_history = scenario.log[made.of].judged_at.is_some();
                for (stands, times) in [(&made.before, -1), (&made.after, 1)] {
                    let Some(stands) = stands else { continue };
                    let Some((scope, window)) = calendar_place(budget, &stands.event) else {
                        continue;
                    };
                    let accounts = &mut accounts;
                    let Some(account) = account_in(accounts, budget, &scope, &window, is_here)
                    else {
                        continue;
                    };
                    account.is_corrected = true;
                    account.has_history |= is_history;
                    account.tally.add_standing(stands, times);
                    if !is_history {
                        account.live.add_standing(stands, times);
                        account.live_events += usize::from(times > 0);
                    }
                }
            }
        }
        accounts
    }
}

/// The account of `budget` in `scope` and `window`, begun where it is new, where that scope `is_here`.
fn account_in<'a>(
    accounts: &'a mut BTreeMap<AccountName, Expected>,
    budget: &Budget,
    scope: &str,
    window: &Window,
    is_here: impl Fn(&str) -> bool,
) -> Option<&'a mut Expected> {
    let name = AccountName {
        budget: budget.id.to_string(),
        scope: scope.to_owned(),
        start: window.start,
    };
    is_here(scope).then(|| {
        accounts
            .entry(name)
            .or_insert_with(|| Expected::begun(window))
    })
}

/// Scope and window of the account that has an opening from its budget's record.
fn opened(budget: &Budget) -> Option<(String, Window, Amount)> {
    let opening = budget.opening?;
    let parts = budget.scope.0.iter().map(|(dimension, pattern)| {
        let Pattern::Exactly(value) = pattern else {
            panic!("only budgets with one scope have an opening");
        };
        match dimension {
            Dimension::Workspace => escaped(value),
            other => format!("{}={}", other.name(), escaped(value)),
        }
    });
    let mut parts: Vec<String> = parts.collect();
    if !dimensions_of(budget).contains(&Dimension::Workspace) {
        parts.insert(0, "*".to_owned());
    }
    let zone = budget.timezone.zone();
    let window = Window::containing(budget.window, zone, budget.counted_from);
    Some((parts.join("/"), window, opening))
}

fn calendar_place(budget: &Budget, event: &Event<'_>) -> Place {
    let attribution = &event.attribution;
    if !matches!(event.body, Body::Usage(_)) || !counts(budget, attribution) {
        return None;
    }
    let scope = scope_of(&dimensions_of(budget), attribution)?;
    let zone = budget.timezone.zone();
    let window = Window::containing(budget.window, zone, event.time);
    Some((scope, window))
}

/// The dimensions of a budget's scope.
pub fn dimensions_of(budget: &Budget) -> Vec<Dimension> {
    budget.scope.0.iter().map(|(one, _)| one.clone()).collect()
}

/// Whether a budget counts spend of `who`.
pub fn counts(budget: &Budget, who: &Attribution<'_>) -> bool {
    let in_scope = budget.scope.0.iter().all(|(dimension, pattern)| {
        let value = who.value(dimension);
        match pattern {
            Pattern::Each => !value.is_empty(),
            Pattern::Exactly(exact) => value == exact,
        }
    });
    let meets = |(dimension, values): &(Dimension, Vec<String>)| {
        values.iter().any(|value| value == who.value(dimension))
    };
    in_scope && budget.filter.0.iter().all(meets)
}

/// Scope text as the contract writes it.
pub fn scope_of(dimensions: &[Dimension], who: &Attribution<'_>) -> Option<String> {
    let mut parts = Vec::new();
    if !dimensions.contains(&Dimension::Workspace) {
        parts.push("*".to_owned());
    }
    for dimension in dimensions {
        let value = who.value(dimension);
        if value.is_empty() {
            return None;
        }
        match dimension {
            Dimension::Workspace => parts.insert(0, escaped(value)),
            other => parts.push(format!("{}={}", other.name(), escaped(value))),
        }
    }
    Some(parts.join("/"))
}

fn escaped(value: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| match keep(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(one).collect()
}
