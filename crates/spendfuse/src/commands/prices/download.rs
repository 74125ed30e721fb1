//! A price file from an address, with an end to everything: time, length, redirects.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::USER_AGENT;
use hyper::{Request, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::Failure;

const PATIENCE: Duration = Duration::from_secs(60);
/// The largest of the sources has 4 MB.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// The bytes at `address`.
pub fn download(address: &str) -> Result<Vec<u8>, Failure> {
    let failed = |reason: String| {
        let whose = address.split('?').next().unwrap_or_default();
        Failure::work(format!("{whose}: {reason}; prices stay as they are"))
    };
    let address: Uri = address
        .parse()
        .map_err(|error| Failure::usage(format!("{address}: {error}")))?;
    let tls = spendfuse_tls::client_config(None).map_err(|error| failed(error.to_string()))?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let request = Request::get(address)
        .header(USER_AGENT, concat!("spendfuse/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::work)?;
    let exchange = async {
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        if status.is_redirection() {
            let reason = format!("{status}: redirects are not followed, name where it leads to");
            return Err(failed(reason));
        }
        if !status.is_success() {
            return Err(failed(status.to_string()));
        }
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?;
        Ok(body.to_bytes().to_vec())
    };
    let in_time = runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
    in_time.unwrap_or_else(|_| Err(failed(format!("no answer within {PATIENCE:?}"))))
}
