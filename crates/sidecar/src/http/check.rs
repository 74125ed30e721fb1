//! `POST /v1/check`: may this call go ahead?

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use metrics::{counter, histogram};
use spendfuse_domain::scope::workspace_of;
use spendfuse_guard::{
    BudgetLine, CheckResponse, Clock, Guard, NotReserved, Reserving, decision_name,
};

use super::request::{Misplaced, Question};
use super::{ApiError, Sidecar, TOO_MANY_RESERVATIONS, json};
use crate::keys::Caller;
use crate::metrics::{CHECK_SECONDS, CHECKS};
use crate::prices::Prices;
use crate::reservations::{self, Reserver};

/// What questions are answered from, over HTTP and on the command line.
pub struct Checker {
    /// Who decides.
    pub guard: Guard,
    /// What announced calls will cost.
    pub prices: Prices,
    /// The clock that the guard follows by.
    pub clock: Clock,
    /// The workspace of questions that name none; empty = none.
    pub default_workspace: String,
    /// Whether a question with faults is refused.
    pub strict: bool,
    /// `None` where nothing can be reserved.
    pub reserving: Option<Reserver>,
    /// What may help who names nothing at all.
    pub hint: &'static str,
}

pub(super) async fn check(
    sidecar: &Sidecar,
    caller: &Caller,
    head: &Parts,
    body: &[u8],
) -> Response {
    let answer = match Question::from_json(body, Misplaced::in_head(head)) {
        Ok(question) => sidecar.answer(question, caller, "check").await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => error.into(),
    }
}

impl Sidecar {
    /// The answer to a question of this caller, who learns nothing of other workspaces.
    pub(crate) async fn answer(
        &self,
        mut question: Question,
        caller: &Caller,
        endpoint: &'static str,
    ) -> Result<CheckResponse, ApiError> {
        question.impose(caller)?;
        let mut answer = self.checker.answer(question, endpoint).await?;
        conceal(caller, &mut answer.budgets);
        Ok(answer)
    }
}

/// Takes figures away that tell of the spend of other workspaces than the caller's. Whether such a
/// budget stops the call stays.
pub(super) fn conceal(caller: &Caller, lines: &mut [BudgetLine]) {
    let Some(workspace) = caller.workspace() else {
        return;
    };
    for line in lines {
        if !is_of(&line.scope, workspace) {
            line.conceal();
        }
    }
}

/// Whether the scope with this text holds spend of `workspace` alone.
pub(super) fn is_of(scope: &str, workspace: &str) -> bool {
    // A workspace may be called `*`, whose scope's text is another one.
    scope.split('/').next() != Some("*") && workspace_of(scope) == workspace
}

impl Checker {
    /// Asks the guard and puts the decision into words; `endpoint` is for metrics.
    ///
    /// # Errors
    /// What cannot be answered, and every fault where the checker is strict.
    pub async fn answer(
        &self,
        question: Question,
        endpoint: &'static str,
    ) -> Result<CheckResponse, ApiError> {
        let began = Instant::now();
        let now = self.clock.now();
        let wanted = self.wanted_hold(&question)?;
        let asking = question.into_check(self, endpoint, now.wall)?;
        let request = &asking.request;
        let (decision, reserving) = match wanted {
            None => (self.guard.check_with_reasons(request, now), None),
            Some((timeout, reserver)) => {
                let (expected, timeout_millis) = (asking.expected, timeout.as_millis() as i64);
                let reserved = match &reserver.in_flight {
                    Some(in_flight) => in_flight.reserve(request, expected, timeout_millis).await,
                    None => self.guard.reserve(request, expected, timeout_millis, now),
                };
                let Reserving {
                    decision,
                    asked,
                    hold,
                } = reserved.map_err(not_reserved)?;
                (decision, Some((asked, hold, &reserver.reservations)))
            }
        };
        histogram!(CHECK_SECONDS).record(began.elapsed().as_secs_f64());
        let name = decision_name(decision.verdict());
        counter!(CHECKS, "decision" => name, "endpoint" => endpoint).increment(1);
        let mut response = decision.explain();
        response.warnings.extend(asking.warnings);
        if let Some((asked, hold, names)) = reserving {
            response.reserved_usd = Some(asked.spend.cost);
            response.reserve_rule = Some(asked.basis);
            if let Some(hold) = hold {
                reservations::count("held");
                response.reservation_id = Some(names.name(hold.number));
                response.reserved_until = Some(reservations::ends_at(&hold, now));
            }
        }
        Ok(response)
    }

    /// For how long the call's cost is to be held, where that is asked for.
    fn wanted_hold(&self, question: &Question) -> Result<Option<(Duration, &Reserver)>, ApiError> {
        let Some(timeout) = question.wanted_hold() else {
            return Ok(None);
        };
        let message = "only a running sidecar reserves: ask its /v1/check";
        let reserving = self.reserving.as_ref();
        let reserving = reserving.ok_or_else(|| ApiError::bad_request(message))?;
        Ok(Some((timeout, reserving)))
    }

    /// The number of the reservation with this name; `None` where it is not of this process.
    pub(crate) fn reservation(&self, name: &str) -> Option<u64> {
        self.reserving.as_ref()?.reservations.number(name)
    }

    /// The same, of a caller's own workspace: numbers can be guessed.
    pub(crate) fn reservation_of(&self, name: &str, caller: &Caller) -> Option<u64> {
        let number = self.reservation(name)?;
        let is_own = |workspace| self.guard.holds_in(number, workspace);
        caller.workspace().is_none_or(is_own).then_some(number)
    }
}

fn not_reserved(error: NotReserved) -> ApiError {
    match error {
        NotReserved::Full { .. } => {
            let message = format!("{error} (sidecar.max_reservations)");
            ApiError::new(TOO_MANY_RESERVATIONS, message)
        }
        NotReserved::TooMuch | NotReserved::NoEstimate => ApiError::bad_request(error.to_string()),
    }
}
