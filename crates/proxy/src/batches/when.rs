//! When the results of a batch were there: the same however often they are read.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;
use spendfuse_domain::UnixMillis;
use tokio::time::{sleep, timeout};

use crate::proxy::Proxy;
use crate::whole::Whole;

/// How long whoever reads results waits for it.
const LONGEST_QUESTION: Duration = Duration::from_secs(10);
/// How soon somebody is asked again who could not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Bytes of what is said about results.
const LONGEST_ABOUT: usize = 256 * 1024;

/// What the provider says at this address, asked with these headers; `None` where it does not.
pub(super) async fn told(proxy: &Proxy, about: &(Uri, HeaderMap)) -> Option<UnixMillis> {
    let told = timeout(LONGEST_QUESTION, answered(proxy, about)).await;
    told.ok().flatten()
}

/// Asks until there is an answer: under another time all would be counted again a day later.
async fn answered(proxy: &Proxy, (uri, headers): &(Uri, HeaderMap)) -> Option<UnixMillis> {
    loop {
        let (uri, headers) = (uri.clone(), headers.clone());
        let answer = proxy.send(Method::GET, uri, headers, Body::empty()).await;
        if let Ok(answer) = answer
            && !is_of_moment(answer.status())
        {
            let (head, body) = answer.into_parts();
            let about = Whole::read(body, LONGEST_ABOUT, &proxy.memory).await?;
            let read = head.status.is_success().then_some(about.read)?;
            return time_in(&read);
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Whether the next moment may bring another answer.
fn is_of_moment(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
}

/// When results were there, as what describes them says: a batch of Anthropic's, a file of OpenAI's, one
/// of Google's.
fn time_in(about: &[u8]) -> Option<UnixMillis> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct About {
        ended_at: Option<Value>,
        created_at: Option<Value>,
        #[serde(rename = "createTime")]
        create_time: Option<Value>,
    }
    let about: About = serde_json::from_slice(about).ok()?;
    let told = [about.ended_at, about.created_at, about.create_time];
    told.into_iter().flatten().find_map(time_of)
}

/// A time as providers write it.
pub(super) fn time_of(time: Value) -> Option<UnixMillis> {
    match time {
        Value::String(text) => UnixMillis::parse_rfc3339(&text).ok(),
        Value::Number(seconds) => {
            let millis = seconds.as_i64()?.checked_mul(1000)?;
            Some(UnixMillis(millis))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_results_is_read_from_what_describes_them() {
        for (about, wanted) in [
            (
                r#"{"created_at":"2026-11-22T09:00:00Z","ended_at":"2026-11-22T10:00:00.5Z"}"#,
                Some(1_795_341_600_500),
            ),
            (
                r#"{"created_at":1795341600,"purpose":"batch_output"}"#,
                Some(1_795_341_600_000),
            ),
            (
                r#"{"createTime":"2026-11-22T10:00:00Z"}"#,
                Some(1_795_341_600_000),
            ),
            (r#"{"ended_at":null,"created_at":[]}"#, None),
            ("{}", None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(time_in(about.as_bytes()), wanted.map(UnixMillis), "{about}");
        }
    }
}
