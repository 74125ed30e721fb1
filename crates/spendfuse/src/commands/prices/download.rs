//! A price file from an address, with an end to everything: time, length, redirects.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, USER_AGENT};
use hyper::{Request, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::Failure;
use crate::settings::split_credentials;

const PATIENCE: Duration = Duration::from_secs(60);
/// The largest of the sources has 4 MB.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// The bytes at `address`, which may have a user and a password before its host.
pub fn download(address: &str) -> Result<Vec<u8>, Failure> {
    let (address, credentials) = split_credentials(address);
    let whose = address.split('?').next().unwrap_or_default();
    let failed =
        |reason: String| Failure::work(format!("{whose}: {reason}; prices stay as they are"));
    let uri: Uri = address
        .parse()
        .map_err(|error| Failure::usage(format!("{whose}: {error}")))?;
    let tls = spendfuse_tls::client_config(None).map_err(|error| failed(error.to_string()))?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let mut request =
        Request::get(uri).header(USER_AGENT, concat!("spendfuse/", env!("CARGO_PKG_VERSION")));
    if let Some((user, password)) = credentials {
        let token = STANDARD.encode(format!("{user}:{password}"));
        request = request.header(AUTHORIZATION, format!("Basic {token}"));
    }
    let request = request
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_password_goes_to_the_server_and_into_no_message() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = connection.read(&mut request).unwrap();
            connection
                .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let failure = download(&format!(
            "http://bob:hunter2@{server}/prices.json?token=s3cret"
        ));
        let said = failure.unwrap_err().to_string();
        assert!(
            said.starts_with(&format!("http://{server}/prices.json: 403")),
            "{said}"
        );
        assert!(
            !said.contains("hunter2") && !said.contains("s3cret"),
            "{said}"
        );
        let asked = asked.join().unwrap();
        assert!(asked.contains("Basic Ym9iOmh1bnRlcjI="), "{asked}");
    }
}
