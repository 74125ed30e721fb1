//! `GET /v1/state`: where a session or customer stands.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use spendfuse_domain::finding::Finding;
use spendfuse_domain::scope::{holds_workspace, session_scopes};
use spendfuse_domain::verdict::FIGURES;
use spendfuse_domain::{Detector, UnixMillis, Verdict};
use spendfuse_guard::{BudgetLine, CheckRequest, Guard, OpenFinding, Warning, as_decision};

use super::check::{conceal, is_of};
use super::query::AskedQuery;
use super::request::{Asking, Author, Question};
use super::{ApiError, Shared, Sidecar, json};
use crate::keys::Caller;

/// The answer: every budget whose scope the named dimensions determine, with what remains.
#[derive(Debug, Serialize)]
struct StateResponse {
    #[serde(serialize_with = "as_decision")]
    decision: Verdict,
    budgets: Vec<BudgetLine>,
    findings: Vec<Finding>,
    warnings: Vec<Warning>,
    state: &'static str,
    state_age_ms: Option<u64>,
    complete_to: Option<UnixMillis>,
    /// How figures lag behind `complete_to`, for people.
    figures: &'static str,
    budget_version: u64,
}

pub(super) async fn get_state(
    State(sidecar): Shared,
    caller: Caller,
    AskedQuery(query): AskedQuery<Vec<(String, String)>>,
) -> Response {
    match state(&sidecar, &caller, &query) {
        Ok(state) => json(StatusCode::OK, &state),
        Err(error) => error.into(),
    }
}

fn state(
    sidecar: &Sidecar,
    caller: &Caller,
    query: &[(String, String)],
) -> Result<StateResponse, ApiError> {
    let mut question = Question::default();
    question.add_query(query, Author::Asker)?;
    if !question.names_a_dimension() {
        let message = "name a session, a customer or other dimensions, such as ?customer=c-42";
        return Err(ApiError::bad_request(message));
    }
    if question.wanted_hold().is_some() {
        let message = "a state holds nothing: reserve belongs to /v1/check and /v1/authz";
        return Err(ApiError::bad_request(message));
    }
    question.impose(caller)?;
    let checker = &sidecar.checker;
    let now = checker.clock.now();
    let Asking {
        request, warnings, ..
    } = question.into_check(checker, "state", now.wall)?;
    let mut answer = checker.guard.check_with_reasons(&request, now).explain();
    answer.warnings.extend(warnings);
    let mut findings = open_findings(&checker.guard, &request, &answer.budgets);
    if let Some(workspace) = caller.workspace() {
        findings.retain(|finding| is_of(&finding.scope, workspace));
    }
    conceal(caller, &mut answer.budgets);
    Ok(StateResponse {
        decision: answer.decision,
        findings,
        budgets: answer.budgets,
        warnings: answer.warnings,
        state: answer.state,
        state_age_ms: answer.state_age_ms,
        complete_to: answer.complete_to,
        figures: FIGURES,
        budget_version: checker.guard.budgets_version(),
    })
}

/// The open findings of the named session, root session or customer, and those that say that one of
/// the budgets in `lines` is used up; in the order of their scopes.
fn open_findings(guard: &Guard, request: &CheckRequest<'_>, lines: &[BudgetLine]) -> Vec<Finding> {
    let who = &request.attribution;
    let sessions: Vec<_> = session_scopes(who).collect();
    let wanted = |open: &OpenFinding| {
        let finding = &open.finding;
        let of_customer = !who.customer.is_empty() && finding.customer == who.customer;
        let of_workspace = || holds_workspace(&finding.scope, &who.workspace);
        let of_budget = |line: &BudgetLine| {
            line.budget == finding.rule
                && line.scope == finding.scope
                && finding.detector == Detector::BudgetExceeded
        };
        sessions.contains(&finding.scope)
            || of_customer && of_workspace()
            || lines.iter().any(of_budget)
    };
    let open = guard.open_findings(wanted);
    let mut findings: Vec<_> = open.iter().map(|open| open.finding.clone()).collect();
    findings.sort_by(|one, other| {
        let key = |finding: &Finding| (finding.scope.clone(), finding.detector, finding.opened_at);
        key(one).cmp(&key(other))
    });
    findings
}
