//! A decision in words: the JSON that `POST /v1/check` answers (`schemas/check-response`).

use std::sync::Arc;

use serde::{Serialize, Serializer};
use smallvec::SmallVec;
use spendfuse_domain::scope::{Dimension, Dimensions as _};
use spendfuse_domain::{BudgetId, LineFigures, Nanos, Percent, UnixMillis, Verdict};

use crate::compiled::GuardedBudget;
use crate::decision::{AT_HAND, CheckRequest, Decision, Match};
use crate::digest::Kind;
use crate::entry::Entry;
use crate::findings::OpenFindings;
use crate::guard::Replica;
use crate::hash::EntryHash;
use crate::holds::{Basis, Held};

/// The answer of `POST /v1/check`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct CheckResponse {
    /// `allow`, `warn`, `downgrade` or `block`.
    #[serde(serialize_with = "as_decision")]
    pub decision: Verdict,
    /// Every budget that applies and every session block, strictest first.
    pub budgets: Vec<BudgetLine>,
    pub downgrade_to: Option<String>,
    pub warnings: Vec<Warning>,
    /// Seconds until every blocking budget has reset, 1 where only other calls are in the way; null
    /// where one never does, and where the call alone costs more than a limit: waiting helps neither.
    pub retry_after_seconds: Option<u64>,
    pub state: &'static str,
    pub state_age_ms: Option<u64>,
    pub complete_to: Option<UnixMillis>,
    pub reservation_id: Option<String>,
    /// What this call holds, or was to hold where it is refused.
    pub reserved_usd: Option<Nanos>,
    /// By what that was found.
    pub reserve_rule: Option<Basis>,
    /// The reservation ends then, where nobody settles, releases or extends it before.
    pub reserved_until: Option<UnixMillis>,
}

/// How the call stands to one budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct BudgetLine {
    pub budget: String,
    pub scope: String,
    pub verdict: Verdict,
    #[serde(flatten)]
    pub figures: LineFigures,
    pub percent: Option<Percent>,
    pub window: String,
    pub resets_at: Option<UnixMillis>,
    pub message: Option<String>,
    pub help_url: Option<String>,
    /// Whether it refuses only because of what other calls hold, which may change at any moment.
    #[serde(skip)]
    pub is_held_up: bool,
    /// Whether it would refuse the call in a new window too: the call alone costs more than the limit.
    #[serde(skip)]
    pub is_too_dear: bool,
}

impl BudgetLine {
    /// Takes away what it says of spend: it is not for whoever asked. Limit and verdict stay.
    pub fn conceal(&mut self) {
        self.figures = LineFigures {
            limit: self.figures.limit,
            ..LineFigures::default()
        };
        self.percent = None;
        self.is_held_up = false;
    }
}

/// Something that the caller should know, whatever the decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Warning {
    /// A detector's name, or `not_evaluated`, `stale`, `cold`, `unknown_model`, `unknown_field`,
    /// `no_workspace`, `nothing_named`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub severity: &'static str,
    pub message: String,
    pub wasted_usd: Option<Nanos>,
    /// The budget that it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
}

impl Warning {
    /// A warning that is about no budget in particular.
    pub fn new(kind: &'static str, severity: &'static str, message: String) -> Self {
        Self {
            kind,
            severity,
            message,
            wasted_usd: None,
            budget: None,
        }
    }
}

/// The name of a verdict as a decision.
pub fn decision_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "allow",
        other => other.name(),
    }
}

/// Writes a verdict as a decision.
///
/// # Errors
/// Those of the serializer.
pub fn as_decision<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(decision_name(*verdict))
}

/// What a match was judged by.
pub(crate) struct Seen {
    /// The place of its entry.
    pub(crate) key: EntryHash,
    /// What other calls hold, or this one too. Read before the entry: what has left it since is there.
    pub(crate) held: Held,
    /// `None` where the scope has none.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// One for each match, in their order.
pub(crate) type AllSeen = SmallVec<[Seen; AT_HAND]>;

impl Seen {
    /// What `replica` says of the place now, and what is held of it in the unit of its limit;
    /// `is_any_held` is false where nothing is held anywhere.
    pub(crate) fn at(
        key: EntryHash,
        unit: Kind,
        replica: &Replica,
        is_any_held: bool,
        now: UnixMillis,
    ) -> Self {
        let held = match is_any_held {
            true => replica.holds.held(key, unit),
            false => Held::default(),
        };
        Self {
            key,
            held,
            entry: replica.current(key, now),
        }
    }
}

/// A decision with what it was made of.
pub struct Reasoned<'a> {
    pub(crate) decision: Decision<'a>,
    pub(crate) seen: AllSeen,
    pub(crate) request: &'a CheckRequest<'a>,
    pub(crate) now: UnixMillis,
}

impl Reasoned<'_> {
    /// As [`Decision::verdict`].
    pub fn verdict(&self) -> Verdict {
        self.decision.verdict()
    }

    /// Puts the decision into words.
    pub fn explain(&self) -> CheckResponse {
        let Decision {
            verdict,
            cold_block,
            state,
            ..
        } = self.decision;
        let matches = self.decision.matches.iter();
        let lines = matches
            .zip(&self.seen)
            .map(|(found, seen)| self.budget_line(found, seen));
        let stopped = self.decision.session_blocks.iter();
        let stopped = stopped.map(|entry| session_line(entry));
        let mut budgets: Vec<_> = lines.chain(stopped).collect();
        budgets.sort_by(|one, other| {
            let strictness = other.verdict.cmp(&one.verdict);
            strictness.then_with(|| one.budget.cmp(&other.budget))
        });
        let downgrade_to = match verdict {
            Verdict::Downgrade => self.decision.downgrade_to(),
            _ => None,
        };
        CheckResponse {
            decision: verdict,
            retry_after_seconds: retry_after(&budgets, cold_block, self.now),
            budgets,
            downgrade_to: downgrade_to.map(str::to_owned),
            warnings: self.warnings(),
            state: state.state.name(),
            state_age_ms: state.age_millis,
            complete_to: state.complete_to,
            reservation_id: None,
            reserved_usd: None,
            reserve_rule: None,
            reserved_until: None,
        }
    }

    /// The scope in which a budget counts the call.
    pub(crate) fn scope_of(&self, found: &Match) -> String {
        let compiled = self.decision.compiled(found.budget);
        let group = &self.decision.snapshot.budgets.groups[compiled.group];
        group.scope_text(group.asking(&self.request.attribution))
    }

    fn budget_line(&self, found: &Match, seen: &Seen) -> BudgetLine {
        let entry = seen.entry.as_deref();
        let compiled = self.decision.compiled(found.budget);
        let budget = compiled.budget();
        let (scope, window, resets_at) = match entry {
            Some(entry) => (
                entry.scope().to_owned(),
                entry.window.to_string(),
                entry.resets_at,
            ),
            None => {
                let group = &self.decision.snapshot.budgets.groups[compiled.group];
                let asking = group.asking(&self.request.attribution);
                let (window, resets_at) = compiled.window(asking, self.now);
                (self.scope_of(found), window, resets_at)
            }
        };
        let limit = compiled.limit(self.request.session_limit, entry);
        let spent = entry.map_or(limit.with(0), |entry| entry.counted_by(limit));
        let Held {
            reserved,
            pending,
            elsewhere,
        } = seen.held;
        let reserved = reserved.saturating_add(elsewhere);
        BudgetLine {
            budget: budget.id.as_str().to_owned(),
            scope,
            verdict: found.verdict,
            figures: LineFigures::new(spent, limit, pending.into(), reserved.into()),
            percent: Percent::of(spent, limit),
            window,
            resets_at,
            message: budget.message.clone(),
            help_url: budget.help_url.clone(),
            is_held_up: found.by_holds,
            is_too_dear: found.is_too_dear,
        }
    }

    /// The open findings of the request's session and of its root session.
    fn findings(&self) -> impl Iterator<Item = OpenFindings> {
        let Replica {
            hasher, findings, ..
        } = self.decision.replica;
        let root = hasher.root_session(&self.request.attribution);
        let scopes = self.decision.session.into_iter().chain(root);
        scopes.filter_map(|scope| findings.get(scope))
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let about_budget = |kind, severity, message, id: &BudgetId| Warning {
            budget: Some(id.as_str().to_owned()),
            ..Warning::new(kind, severity, message)
        };
        if self.decision.cold_block {
            let message = "the guard has not caught up yet and refuses calls until then";
            warnings.push(Warning::new("cold", "critical", message.to_owned()));
        }
        for open in self.findings() {
            warnings.extend(open.iter().map(|open| Warning {
                kind: open.finding.detector.name(),
                severity: open.finding.severity.name(),
                message: open.finding.message.clone(),
                wasted_usd: Some(open.finding.wasted_usd),
                budget: None,
            }));
        }
        let matches = self.decision.matches.iter();
        for found in matches.filter(|found| found.by_staleness) {
            let id = &self.decision.compiled(found.budget).budget().id;
            let message = format!("budget {id} refuses calls because the guard's state is old");
            warnings.push(about_budget("stale", "critical", message, id));
        }
        for index in &self.decision.not_evaluated {
            let compiled = self.decision.compiled(*index);
            let id = &compiled.budget().id;
            let lacks = missing_fields(compiled, self.request).join(", ");
            let message = format!("budget {id} was not evaluated: the request lacks {lacks}");
            warnings.push(about_budget("not_evaluated", "info", message, id));
        }
        warnings
    }
}

/// The line of a session that a detector has stopped.
fn session_line(entry: &Entry) -> BudgetLine {
    let detector = entry.detector().unwrap_or("a detector");
    BudgetLine {
        budget: entry.budget().to_owned(),
        scope: entry.scope().to_owned(),
        verdict: entry.verdict,
        figures: LineFigures::default(),
        percent: None,
        window: entry.window.to_string(),
        resets_at: entry.resets_at.or(entry.expires_at()),
        message: Some(format!("the session was stopped by detector {detector}")),
        help_url: None,
        is_held_up: false,
        is_too_dear: false,
    }
}

/// Seconds, rounded up, until the last of the blocking lines has reset; what others hold may be
/// given back in the next second.
fn retry_after(budgets: &[BudgetLine], cold_block: bool, now: UnixMillis) -> Option<u64> {
    if cold_block {
        return None;
    }
    let blocking = budgets.iter().filter(|line| line.verdict == Verdict::Block);
    let resets = blocking.map(|line| match (line.is_too_dear, line.is_held_up) {
        (true, _) => None,
        (false, true) => Some(now.plus(1000)),
        (false, false) => line.resets_at,
    });
    let last = resets
        .reduce(|one, other| Some(one?.max(other?)))
        .flatten()?;
    Some(last.since(now).max(0) as u64).map(|millis| millis.div_ceil(1000))
}

fn missing_fields(compiled: &GuardedBudget, request: &CheckRequest<'_>) -> Vec<String> {
    let conditions = compiled.budget().filter.0.iter();
    let missing = |dimension: &&Dimension| request.attribution.value(dimension).is_empty();
    let dimensions = conditions.map(|(dimension, _)| dimension).filter(missing);
    dimensions
        .map(|dimension| dimension.name().into_owned())
        .collect()
}
