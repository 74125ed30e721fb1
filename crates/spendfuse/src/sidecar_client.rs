//! Questions of commands to a running sidecar, over loopback HTTP.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::AUTHORIZATION;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::settings::{Settings, shown};

const PATIENCE: Duration = Duration::from_secs(2);
/// No answer that a command asks for is larger.
const MAX_BYTES: usize = 1024 * 1024;

/// Why a sidecar did not answer.
#[derive(Debug, thiserror::Error)]
pub enum SidecarAway {
    /// Nobody listens there.
    #[error("no sidecar answers at {url}")]
    Silent {
        /// `sidecar.url`.
        url: String,
    },
    /// Somebody answers, and something else.
    #[error("{url}{path} answers {said}")]
    Unexpected {
        /// `sidecar.url`.
        url: String,
        /// What was asked.
        path: &'static str,
        /// The status, or what is wrong with the body.
        said: String,
    },
}

/// `sidecar.url` for people: without what nobody may see.
pub fn address(settings: &Settings) -> String {
    let url = &settings.values.sidecar.url;
    shown("sidecar.url", url.trim_end_matches('/'))
}

/// `GET` of the sidecar at `sidecar.url`, with `sidecar.token` where one is set.
///
/// # Errors
/// [`SidecarAway`] within 2 s.
pub fn get(
    settings: &Settings,
    runtime: &Runtime,
    path: &'static str,
) -> Result<Value, SidecarAway> {
    let own = &settings.values.sidecar;
    let url = address(settings);
    let unexpected = |said: String| SidecarAway::Unexpected {
        url: url.clone(),
        path,
        said,
    };
    let place = own.url.trim_end_matches('/');
    let mut request = Request::get(format!("{place}{path}"));
    let token = &own.token.0;
    if !token.is_empty() {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| unexpected(error.to_string()))?;
    runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = tokio::time::timeout(PATIENCE, client.request(request)).await;
        let Ok(Ok(answer)) = answer else {
            return Err(SidecarAway::Silent { url: url.clone() });
        };
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect();
        let body = tokio::time::timeout(PATIENCE, body).await;
        let Ok(Ok(body)) = body else {
            return Err(unexpected("nothing that can be read".to_owned()));
        };
        if !status.is_success() {
            return Err(unexpected(status.to_string()));
        }
        serde_json::from_slice(&body.to_bytes()).map_err(|error| unexpected(error.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::resolve;

    #[test]
    fn the_address_of_a_sidecar_is_shown_without_its_password() {
        let given = ["sidecar.url=http://bob:hunter2@web:4117/".to_owned()];
        let resolved = resolve(None, &BTreeMap::<String, String>::new(), &given).unwrap();
        let settings = Settings::new(resolved).unwrap();
        assert_eq!(address(&settings), "http://bob:(hidden)@web:4117");
    }
}
