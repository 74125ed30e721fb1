//! A decision in words: the JSON that `POST /v1/check` answers (`schemas/check-response`).

use std::sync::Arc;

use serde::Serialize;
use spendfuse_domain::scope::{Dimension, Dimensions as _, session_scopes};
use spendfuse_domain::{
    Amount, Attribution, BudgetId, Figures, Nanos, Percent, UnixMillis, Verdict,
};

use crate::compiled::GuardedBudget;
use crate::decision::{CheckRequest, Decision, Match, Spent};
use crate::entry::Entry;
use crate::findings::OpenFindings;

/// The answer of `POST /v1/check`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct CheckResponse {
    /// `allow`, `warn`, `downgrade` or `block`.
    pub decision: &'static str,
    /// Every budget that applies and every session block, strictest first.
    pub budgets: Vec<BudgetLine>,
    pub downgrade_to: Option<String>,
    pub warnings: Vec<Warning>,
    /// Seconds until every blocking budget has reset; null where one never does.
    pub retry_after_seconds: Option<u64>,
    pub state: &'static str,
    pub state_age_ms: Option<u64>,
    pub complete_to: Option<UnixMillis>,
    pub reservation_id: Option<String>,
    pub reserved_usd: Option<String>,
}

/// How the call stands to one budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct BudgetLine {
    pub budget: String,
    pub scope: String,
    pub verdict: Verdict,
    #[serde(flatten, serialize_with = "Figures::serialize_line")]
    pub figures: Figures,
    pub percent: Option<Percent>,
    pub window: String,
    pub resets_at: Option<UnixMillis>,
    pub message: Option<String>,
    pub help_url: Option<String>,
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

    /// What to tell who asks about `asked` (without the default workspace), where it lacks what makes
    /// an answer worth having: a workspace, or anything at all. Most budgets do not apply then.
    pub fn of_lack(asked: &Attribution<'_>, default_workspace: &str) -> Option<Self> {
        let names = |dimension: &Dimension| !asked.value(dimension).is_empty();
        let (kind, message) = if !names(&Dimension::Workspace) && default_workspace.is_empty() {
            (
                "no_workspace",
                "no workspace is named and sidecar.default_workspace is not set; only budgets of all workspaces were looked at",
            )
        } else if asked.tags.is_empty() && !Dimension::FIXED.iter().any(names) {
            (
                "nothing_named",
                "nothing is named, so only the budgets of the whole default workspace were looked at",
            )
        } else {
            return None;
        };
        Some(Self::new(kind, "warning", message.to_owned()))
    }
}

/// The name of a verdict as a decision.
pub fn decision_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "allow",
        other => other.name(),
    }
}

/// A budget that applies, judged by its full entry.
struct Judged {
    found: Match,
    entry: Option<Arc<Entry>>,
    spent: Amount,
}

impl Decision<'_> {
    /// Puts the decision into words. `request` and `now` are those of the check. Amounts are those
    /// of this moment: where one has passed a step since the check, so has the answer.
    pub fn explain(&self, request: &CheckRequest<'_>, now: UnixMillis) -> CheckResponse {
        let judged = self
            .matches
            .iter()
            .map(|found| self.judged(found, request, now));
        let judged: Vec<_> = judged.collect();
        let lines = judged.iter().map(|one| self.budget_line(one, request, now));
        let stopped = self.session_blocks.iter().map(|entry| session_line(entry));
        let mut budgets: Vec<_> = lines.chain(stopped).collect();
        budgets.sort_by(|one, other| {
            let strictness = other.verdict.cmp(&one.verdict);
            strictness.then_with(|| one.budget.cmp(&other.budget))
        });
        let strictest = budgets.first().map_or(Verdict::Ok, |line| line.verdict);
        let verdict = if self.cold_block {
            Verdict::Block
        } else {
            strictest
        };
        CheckResponse {
            decision: decision_name(verdict),
            retry_after_seconds: retry_after(&budgets, self.cold_block, now),
            budgets,
            downgrade_to: match verdict {
                Verdict::Downgrade => self.downgrade_of(judged.iter().map(|one| &one.found)),
                _ => None,
            }
            .map(str::to_owned),
            warnings: self.warnings(&judged, request),
            state: self.state.state.name(),
            state_age_ms: self.state.age_millis,
            complete_to: self.state.complete_to,
            reservation_id: None,
            reserved_usd: None,
        }
    }

    fn judged(&self, found: &Match, request: &CheckRequest<'_>, now: UnixMillis) -> Judged {
        let compiled = self.compiled(found.budget);
        let entry = self.replica.entries.get(found.key);
        let entry = entry.filter(|entry| !entry.is_expired(now));
        let spent = entry
            .as_ref()
            .and_then(|entry| Spent::of(entry, compiled, now));
        let limit = compiled.budget().limit;
        let mut again = Match::new(found.budget, found.key);
        again.judge(compiled, spent, request, self.state.state);
        Judged {
            found: again,
            entry,
            spent: limit.with(spent.map_or(0, |spent| spent.amount)),
        }
    }

    fn budget_line(
        &self,
        judged: &Judged,
        request: &CheckRequest<'_>,
        now: UnixMillis,
    ) -> BudgetLine {
        let Judged {
            found,
            entry,
            spent,
        } = judged;
        let compiled = self.compiled(found.budget);
        let budget = compiled.budget();
        let group = &self.snapshot.budgets.groups[compiled.group];
        let asking = group.asking(&request.attribution);
        let (window, resets_at) = match entry {
            Some(entry) => (entry.window.to_string(), entry.resets_at),
            None => compiled.window(asking, now),
        };
        BudgetLine {
            budget: budget.id.to_string(),
            scope: group.scope_text(asking),
            verdict: found.verdict,
            figures: Figures::new(*spent, budget.limit),
            percent: Percent::of(*spent, budget.limit),
            window,
            resets_at,
            message: budget.message.clone(),
            help_url: budget.help_url.clone(),
        }
    }

    /// The open findings of the request's session and of its root session.
    fn findings(&self, request: &CheckRequest<'_>) -> impl Iterator<Item = OpenFindings> {
        let who = &request.attribution;
        let hasher = &self.replica.hasher;
        let findings = &self.replica.findings;
        let scopes = session_scopes(who);
        scopes.filter_map(|scope| findings.get(hasher.scope(&scope)))
    }

    fn warnings(&self, judged: &[Judged], request: &CheckRequest<'_>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let about_budget = |kind, severity, message, id: &BudgetId| Warning {
            budget: Some(id.to_string()),
            ..Warning::new(kind, severity, message)
        };
        if self.cold_block {
            let message = "the guard has not caught up yet and refuses calls until then";
            warnings.push(Warning::new("cold", "critical", message.to_owned()));
        }
        for open in self.findings(request) {
            warnings.extend(open.iter().map(|open| Warning {
                kind: open.finding.detector.name(),
                severity: open.finding.severity.name(),
                message: open.finding.message.clone(),
                wasted_usd: Some(open.finding.wasted_usd),
                budget: None,
            }));
        }
        let matches = judged.iter().map(|one| &one.found);
        for found in matches.filter(|found| found.by_staleness) {
            let id = &self.compiled(found.budget).budget().id;
            let message = format!("budget {id} refuses calls because the guard's state is old");
            warnings.push(about_budget("stale", "critical", message, id));
        }
        for place in &self.not_evaluated {
            let compiled = self.compiled(*place);
            let id = &compiled.budget().id;
            let lacks = missing_fields(compiled, request).join(", ");
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
        figures: Figures::default(),
        percent: None,
        window: entry.window.to_string(),
        resets_at: entry.resets_at.or(entry.expires_at()),
        message: Some(format!("the session was stopped by detector {detector}")),
        help_url: None,
    }
}

/// Seconds, rounded up, until the last of the blocking lines has reset.
fn retry_after(budgets: &[BudgetLine], cold_block: bool, now: UnixMillis) -> Option<u64> {
    if cold_block {
        return None;
    }
    let blocking = budgets.iter().filter(|line| line.verdict == Verdict::Block);
    let resets = blocking.map(|line| line.resets_at);
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
