//! Settling an account after its spend, its budget or the time changed: what readers of the
//! blocklist, of findings and of alerts must be told.

use std::collections::BTreeMap;

use spendfuse_domain::budget::{BasisPoints, CompiledBudget, Step};
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::scope::{Dimension, Dimensions as _, ScopeText};
use spendfuse_domain::verdict::{BlocklistEntry, budget_key};
use spendfuse_domain::{Action, Amount, BudgetId, Detector, Figures, Nanos, Severity, UnixMillis};

use crate::account::{Account, AccountPlace, Due, Nearness, Standing};
use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::alert_limit::AlertLimit;
use crate::recent::exhausts_at;
use crate::stamps::Stamps;

/// What a commit tells, of either stage: its state to a successor, verdicts and findings to readers,
/// alerts to people.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// State changes, in order; `None` = tombstone.
    pub changelog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Verdicts, in order; `None` = tombstone.
    pub blocklist: Vec<(String, Option<BlocklistEntry>)>,
    /// Of those the ones whose verdict readers did not hold before, for the warehouse.
    pub verdict_changes: Vec<BlocklistEntry>,
    /// Findings, in order.
    pub findings: Vec<(String, Finding)>,
    /// Alerts for people.
    pub alerts: Vec<Alert>,
}

impl Told {
    /// An entry whose verdict readers did not hold before.
    pub(crate) fn changed_verdict(&mut self, key: String, entry: BlocklistEntry) {
        self.verdict_changes.push(entry.clone());
        self.blocklist.push((key, Some(entry)));
    }

    /// An alert, unless it is only counted in this hour. What ends one is always told.
    pub(crate) fn alert(&mut self, alert: Alert, limit: &mut AlertLimit) {
        match alert.details.lifted_at {
            Some(_) => self.alerts.push(alert),
            None => self.alerts.extend(limit.admit(alert)),
        }
    }

    /// What follows from a settled account; what is left of it is for its owner.
    pub(crate) fn settled(&mut self, settlement: &mut Settlement, limit: &mut AlertLimit) {
        match settlement.entry.take() {
            Some((key, entry)) if settlement.verdict_changed => self.changed_verdict(key, entry),
            Some((key, entry)) => self.blocklist.push((key, Some(entry))),
            None => {}
        }
        self.findings.extend(settlement.finding.take());
        if let Some(alert) = settlement.alert.take() {
            self.alert(alert, limit);
        }
    }

    /// The end of a commit at `now`: what is to be said of the clock, and of alerts that were only
    /// counted. `place` names who says it: `meter partition 3`.
    pub(crate) fn end(
        &mut self,
        now: UnixMillis,
        stamps: &mut Stamps,
        limit: &mut AlertLimit,
        place: impl Fn() -> String,
    ) {
        if let Some(alert) = stamps.alert(now, &place) {
            self.alert(alert, limit);
        }
        self.alerts.extend(limit.counted(now, place));
    }
}

/// What follows from an account's state.
#[derive(Debug, Default)]
pub struct Settlement {
    /// The entry to publish, with its key.
    pub entry: Option<(String, BlocklistEntry)>,
    /// Whether the entry's verdict differs from what readers held before.
    pub verdict_changed: bool,
    /// The finding to publish, with its key.
    pub finding: Option<(String, Finding)>,
    /// Alerts for people.
    pub alert: Option<Alert>,
    /// When to settle again though nothing else happens.
    pub again_at: Option<UnixMillis>,
    /// The figure is due, and how near it is to a limit.
    pub waits_for_turn: Option<Nearness>,
}

impl Settlement {
    /// The entry counts the usage topic's events up to these offsets.
    pub(crate) fn counts_through(&mut self, offsets: &BTreeMap<u32, i64>) {
        if let Some((_, entry)) = &mut self.entry
            && entry.says_through()
        {
            entry.through.clone_from(offsets);
        }
    }
}

/// When a figure that has moved is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As soon as it is due.
    AtOnce,
    /// When its turn comes among all that are due.
    InTurn,
}

/// Settles `account`: decides what is due and remembers what was told.
pub fn settle(
    account: &mut Account,
    compiled: &CompiledBudget,
    place: AccountPlace<'_>,
    seq: u64,
    now: UnixMillis,
    pace: Pace,
) -> Settlement {
    let mut settlement = Settlement::default();
    let standing = account.standing(compiled);
    let reached = standing.step.map_or(0, |step| step.at.0);
    settlement.alert = match reached < account.alerted {
        true => {
            let message = below_again(account, compiled, &standing, place);
            let id = &compiled.budget.id;
            let mut lifted = lifted_alert(account, id, place, message, now);
            lifted.details.step = Some(BasisPoints(reached));
            lifted.details.figures = Figures::new(standing.spent, standing.limit);
            Some(lifted)
        }
        false => step_alert(account, compiled, &standing, place, now),
    };
    account.alerted = reached;

    let due = account.due(compiled, &standing, place, now);
    let due = match (due, pace) {
        (Due::Refresh, Pace::AtOnce) => Due::Now,
        (due, _) => due,
    };
    let exceeds = standing.spent >= standing.limit;
    // The finding opens and closes at once, whether or not the limit is one of the budget's steps.
    if !exceeds {
        account.is_quiet = false;
        let id = &compiled.budget.id;
        settlement.finding = close_finding(account, id, Some(compiled), place.scope, now);
    } else if !account.is_quiet && (account.exceeded_since.is_none() || due == Due::Now) {
        account.exceeded_since.get_or_insert(now);
        settlement.finding = open_finding(account, compiled, place.scope, now);
    }
    match due {
        Due::Never => {}
        Due::Refresh => settlement.waits_for_turn = Some(standing.nearness()),
        Due::At(time) => settlement.again_at = Some(time),
        Due::Now => {
            let known = account.published_verdict(now);
            settlement.verdict_changed = known != standing.verdict();
            let key = budget_key(&compiled.budget.id, place.scope);
            settlement.entry = Some((key, account.publish(compiled, place, seq, now)));
        }
    }
    settlement
}

/// What ends the alerts of `account`'s steps, if any was raised, where the account itself ends before
/// its window: `why`.
pub fn lift(
    account: &mut Account,
    budget: &BudgetId,
    place: AccountPlace<'_>,
    why: &str,
    now: UnixMillis,
) -> Option<Alert> {
    let (scope, window) = (place.scope, place.window);
    let message = format!("{scope} is not held to budget {budget} in {window} any more: {why}");
    let lifted = lifted_alert(account, budget, place, message, now);
    (std::mem::take(&mut account.alerted) > 0).then_some(lifted)
}

/// The record that ends the alert that was raised last, and all of lower steps.
fn lifted_alert(
    account: &Account,
    budget: &BudgetId,
    place: AccountPlace<'_>,
    message: String,
    now: UnixMillis,
) -> Alert {
    Alert {
        v: 1,
        key: step_key(budget, place, account.alerted),
        kind: AlertKind::BudgetStep,
        severity: Severity::Info,
        scope: place.scope.to_owned(),
        subject: budget.to_string(),
        message,
        at: now,
        count: None,
        details: AlertDetails {
            budget: Some(budget.to_string()),
            step: Some(BasisPoints(0)),
            window: Some(place.window.to_owned()),
            window_start: Some(place.window_start),
            ends_at: place.resets_at,
            lifted_at: Some(now),
            ..AlertDetails::default()
        },
    }
}

fn below_again(
    account: &Account,
    compiled: &CompiledBudget,
    standing: &Standing<'_>,
    place: AccountPlace<'_>,
) -> String {
    let at = f64::from(account.alerted) / 100.0;
    let (spent, limit) = (standing.spent.figure(), standing.limit);
    let (scope, window, id) = (place.scope, place.window, &compiled.budget.id);
    let mut steps = compiled.budget.steps.iter();
    match steps.any(|step| step.at.0 == account.alerted) {
        true => format!(
            "{scope} is below {at} % of budget {id} in {window} again: {spent} of {limit} spent"
        ),
        false => format!(
            "budget {id} has no step at {at} % any more: {scope} has spent {spent} of {limit} in {window}"
        ),
    }
}

fn step_key(budget: &BudgetId, place: AccountPlace<'_>, step: u32) -> String {
    let start = place.window_start.0;
    format!("{budget}|{}|{start}|{step}", place.scope)
}

/// The account's `budget_exceeded` finding, if one is open.
pub(crate) fn open_finding(
    account: &Account,
    compiled: &CompiledBudget,
    scope: &str,
    now: UnixMillis,
) -> Option<(String, Finding)> {
    let finding = exceeded_finding(account, compiled, scope, FindingState::Open, now)?;
    Some((exceeded_key(&compiled.budget.id, scope), finding))
}

/// The `budget_exceeded` finding that ends with the account, if one is open. `compiled` is `None`
/// where the budget itself is gone.
pub fn close_finding(
    account: &mut Account,
    budget: &BudgetId,
    compiled: Option<&CompiledBudget>,
    scope: &str,
    now: UnixMillis,
) -> Option<(String, Finding)> {
    let closed = match compiled {
        Some(compiled) => exceeded_finding(account, compiled, scope, FindingState::Closed, now),
        None => budget_finding(account, budget, scope, FindingState::Closed, now),
    };
    account.exceeded_since = None;
    closed.map(|finding| (exceeded_key(budget, scope), finding))
}

fn exceeded_key(budget: &BudgetId, scope: &str) -> String {
    format!("{scope}|{}|{budget}|", Detector::BudgetExceeded.name())
}

fn step_alert(
    account: &Account,
    compiled: &CompiledBudget,
    standing: &Standing<'_>,
    place: AccountPlace<'_>,
    now: UnixMillis,
) -> Option<Alert> {
    let step: &Step = standing.step.filter(|step| step.at.0 > account.alerted)?;
    let budget = &compiled.budget;
    let (severity, consequence) = match &step.action {
        Action::Warn => (Severity::Warning, "calls go on".to_owned()),
        Action::Downgrade(model) => (Severity::Warning, format!("calls are asked to use {model}")),
        Action::Block => (Severity::Critical, "calls are refused".to_owned()),
    };
    let at = f64::from(step.at.0) / 100.0;
    let (spent, limit) = (standing.spent.figure(), standing.limit);
    let rates = account.recent.rates(limit.unit(), now);
    Some(Alert {
        v: 1,
        key: step_key(&budget.id, place, step.at.0),
        kind: AlertKind::BudgetStep,
        severity,
        scope: place.scope.to_owned(),
        subject: budget.id.to_string(),
        message: format!(
            "{} reached {at} % of budget {} in {}: {spent} of {limit} spent; {consequence}",
            place.scope, budget.id, place.window
        ),
        at: now,
        count: None,
        details: AlertDetails {
            budget: Some(budget.id.to_string()),
            step: Some(step.at),
            action: Some(step.action.verdict().name().to_owned()),
            window: Some(place.window.to_owned()),
            window_start: Some(place.window_start),
            ends_at: place.resets_at,
            figures: Figures::new(standing.spent, standing.limit),
            rates,
            exhausts_at: exhausts_at(&rates, standing.spent, limit, place.resets_at, now),
            caused_by: account.caused_by.first().cloned(),
            to: budget.alert.clone(),
            ..AlertDetails::default()
        },
    })
}

fn exceeded_finding(
    account: &Account,
    compiled: &CompiledBudget,
    scope: &str,
    state: FindingState,
    now: UnixMillis,
) -> Option<Finding> {
    let id = &compiled.budget.id;
    let standing = account.standing(compiled);
    let blocks = matches!(standing.step.map(|step| &step.action), Some(Action::Block));
    let (spent, limit) = (standing.spent.figure(), standing.limit);
    let in_unit = |amount: Amount| match amount {
        Amount::Usd(nanos) => nanos.get() as f64 / 1e9,
        Amount::Tokens(count) | Amount::Calls(count) => count as f64,
    };
    Some(Finding {
        severity: if blocks {
            Severity::Critical
        } else {
            Severity::Warning
        },
        measured: in_unit(standing.spent),
        threshold: in_unit(standing.limit),
        wasted_usd: above_limit(account, &standing),
        message: format!("budget {id} is used up: {spent} of {limit}"),
        ..budget_finding(account, id, scope, state, now)?
    })
}

/// The finding as far as it does not depend on the budget, which may be gone.
fn budget_finding(
    account: &Account,
    budget: &BudgetId,
    scope: &str,
    state: FindingState,
    now: UnixMillis,
) -> Option<Finding> {
    let opened_at = account.exceeded_since?;
    let parts = ScopeText::parse(scope);
    let named = |dimension| {
        let value = parts.as_ref().map(|parts| parts.value(dimension));
        value.unwrap_or_default().to_owned()
    };
    Some(Finding {
        v: 1,
        detector: Detector::BudgetExceeded,
        scope: scope.to_owned(),
        agent: String::new(),
        model: String::new(),
        customer: named(&Dimension::Customer),
        feature: named(&Dimension::Feature),
        rule: budget.to_string(),
        state,
        severity: Severity::Warning,
        opened_at,
        last_at: now,
        measured: account.spend().cost.get() as f64 / 1e9,
        threshold: 0.0,
        wasted_usd: Nanos::ZERO,
        evidence: account.caused_by.clone(),
        message: format!("budget {budget} was removed"),
    })
}

/// Money spent above the limit; for limits in tokens or calls the same share of the cost.
fn above_limit(account: &Account, standing: &Standing<'_>) -> Nanos {
    let spent = standing.spent.number();
    match (standing.spent - standing.limit).or_zero() {
        Amount::Usd(above) => above,
        Amount::Tokens(_) | Amount::Calls(_) if spent == 0 => Nanos::ZERO,
        Amount::Tokens(above) | Amount::Calls(above) => {
            Nanos::new(account.spend().cost.get() * above / spent)
        }
    }
}
