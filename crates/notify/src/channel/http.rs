//! Posts, with an end to everything: time, redirects, the length of answers.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use spendfuse_domain::printable;
use spendfuse_tls::{BadCa, client_config};

use super::ChannelError;
use crate::rules::Outcome;

/// What is read of an answer: enough for a reason.
const MOST_OF_ANSWER: usize = 4 * 1024;
/// What is kept of it.
const MOST_OF_REASON: usize = 200;

/// A request.
pub(super) struct Post {
    pub(super) address: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// Posts JSON over HTTP and HTTPS.
pub(super) struct Client {
    client: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(ca_file: Option<&Path>, timeout: Duration) -> Result<Self, ChannelError> {
        let config = client_config(ca_file)
            .map_err(|BadCa { path, reason }| ChannelError::BadCa { path, reason })?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        // Messages are rare, and a connection that the other side has closed meanwhile would leave
        // it open whether the message arrived.
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client, timeout })
    }

    pub(super) async fn post(&self, post: Post) -> Outcome {
        let mut request = Request::post(post.address)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("spendfuse/", env!("CARGO_PKG_VERSION")));
        for (name, value) in post.headers {
            request = request.header(name, value);
        }
        let Ok(request) = request.body(Full::new(Bytes::from(post.body))) else {
            return Outcome::Refused {
                reason: "its settings make no valid request".to_owned(),
            };
        };
        let answered = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        answered.unwrap_or_else(|_| Outcome::Later {
            reason: format!("no answer within {:?}", self.timeout),
            after: None,
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Outcome {
        match self.client.request(request).await {
            Ok(answer) => outcome_of(answer).await,
            Err(error) => Outcome::Later {
                reason: innermost(&error),
                after: None,
            },
        }
    }
}

async fn outcome_of(answer: Response<hyper::body::Incoming>) -> Outcome {
    let status = answer.status();
    // The head decides: whoever says yes has it, whatever becomes of the rest of the answer.
    if status.is_success() {
        return Outcome::Delivered;
    }
    let after = answer.headers().get(RETRY_AFTER);
    let after = after.and_then(|value| retry_after(value.to_str().ok()?, Timestamp::now()));
    let body = Limited::new(answer.into_body(), MOST_OF_ANSWER).collect();
    let body = body.await.map(|body| body.to_bytes()).unwrap_or_default();
    let reason = reason(status, &String::from_utf8_lossy(&body));
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Later { reason, after }
        }
        status if status.is_server_error() => Outcome::Later { reason, after },
        _ => Outcome::Refused { reason },
    }
}

fn reason(status: StatusCode, body: &str) -> String {
    let said: String = body.trim().chars().take(MOST_OF_REASON).collect();
    match (status.is_redirection(), said.is_empty()) {
        (true, _) => format!("{status}: redirects are not followed, set the address it leads to"),
        (false, true) => status.to_string(),
        (false, false) => format!("{status}: {}", printable(&said)),
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// hyper says "client error (Connect)"; why stands in the innermost of its errors. Addresses stand
/// in none of them.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether something can be posted there.
pub(super) fn check_address(address: &str) -> Result<(), String> {
    let uri: Option<Uri> = address.parse().ok();
    let is_http = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    match uri.filter(|uri| is_http(uri) && uri.host().is_some()) {
        Some(_) => Ok(()),
        None => Err("`url` must be a whole address that begins with https://".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_asked_for_in_seconds_or_by_date() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let after = |text| retry_after(text, now);
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        let date = after("Sun, 22 Nov 2026 10:01:30 GMT");
        assert_eq!(date, Some(Duration::from_secs(90)));
        let past = after("Sun, 22 Nov 2026 09:01:30 GMT");
        assert_eq!(past, Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }
}
