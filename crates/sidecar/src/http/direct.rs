//! What is asked before every call, answered without a router.
//!
//! Each layer of axum's boxes a future and moves the whole request: for a check that took longer
//! than the check. The same functions are called here one after the other; everything else goes to
//! the router.

use std::sync::Arc;

use axum::Router;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, header};
use axum::response::Response;

use super::auth::Demand;
use super::intake::{self, BodyRules};
use super::{
    MAX_CHECK_BYTES, Sidecar, authz, browsers, check, method_not_allowed, never_stored, routes,
};
use crate::keys::Right;
use crate::server::{Answers, Connection, RequestBody};

/// The HTTP API of one of the sidecar's addresses. Cloning is cheap.
#[derive(Clone)]
pub struct Api {
    router: Router,
    questions: Arc<Questions>,
}

struct Questions {
    sidecar: Arc<Sidecar>,
    demand: Demand,
    refuses_browsers: bool,
    rules_of_checks: BodyRules,
    rules_of_gateways: BodyRules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Check,
    Authz,
}

impl Api {
    /// `is_tcp` where callers do not come over a Unix socket: there they present a key or the token,
    /// where any is set.
    pub fn new(sidecar: Arc<Sidecar>, is_tcp: bool) -> Self {
        let demand = Demand {
            sidecar: Arc::clone(&sidecar),
            right: Right::Check,
            is_tcp,
        };
        let rules = |demands_json| BodyRules {
            intake: sidecar.intake.clone(),
            at_most: MAX_CHECK_BYTES,
            demands_json,
        };
        Self {
            router: routes(Arc::clone(&sidecar), is_tcp),
            questions: Arc::new(Questions {
                demand,
                refuses_browsers: is_tcp && sidecar.config.listens_on_loopback(),
                rules_of_checks: rules(true),
                rules_of_gateways: rules(false),
                sidecar,
            }),
        }
    }
}

impl Answers for Api {
    async fn answer(
        &self,
        request: Request<impl RequestBody>,
        connection: Option<&Arc<Connection>>,
    ) -> Response {
        let question = match request.uri().path() {
            "/v1/check" => Question::Check,
            path if authz::is_asked_at(path) => Question::Authz,
            _ => return self.router.answer(request, connection).await,
        };
        let (parts, body) = request.into_parts();
        if self.questions.refuses_browsers
            && let Some(refusal) = browsers::refusal(&parts.uri, &parts.headers)
        {
            return refusal;
        }
        let connection = connection.map(Arc::as_ref);
        let answer = self.questions.answer(question, parts, body, connection);
        never_stored(answer.await).await
    }
}

impl Questions {
    async fn answer(
        &self,
        question: Question,
        parts: Parts,
        body: impl RequestBody,
        connection: Option<&Connection>,
    ) -> Response {
        let address = connection.and_then(Connection::address);
        let caller = match self.demand.admit(&parts.headers, address) {
            Ok(caller) => caller.unwrap_or_default(),
            Err(refusal) => return refusal.response(),
        };
        if question == Question::Check && parts.method != Method::POST {
            let mut response = method_not_allowed();
            let allowed = HeaderValue::from_static("POST");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        let rules = match question {
            Question::Check => &self.rules_of_checks,
            Question::Authz => &self.rules_of_gateways,
        };
        let taken = intake::take(rules, &parts.headers, body, connection);
        let (body, _reserved) = match taken.await {
            Ok(taken) => taken,
            Err(refusal) => return refusal.response(),
        };
        let sidecar = &*self.sidecar;
        let answer = match question {
            Question::Check => check::check(sidecar, &caller, &parts, &body).await,
            Question::Authz => authz::authorize(sidecar, &caller, &parts, &body).await,
        };
        intake::reserve_if_long(&rules.intake, answer).await
    }
}
