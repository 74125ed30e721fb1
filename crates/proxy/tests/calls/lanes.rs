//! An upstream that speaks HTTP/2: its connections take so many calls at once, and no more.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::generate_simple_self_signed;
use spendfuse_proxy::{AskUsage, Shape, Upstream};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use crate::completion;
use crate::support::{bench_of, text};

/// Calls that are to be under way at once: more than a connection takes.
const CALLS: usize = 150;
const OF_CONNECTION: u32 = 100;

/// An upstream that answers when all calls have come, its certificate, and how many connections it has.
async fn upstream() -> (String, String, Arc<AtomicUsize>) {
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let connections = Arc::new(AtomicUsize::new(0));
    let all = Arc::new(Barrier::new(CALLS));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, all, count) = (acceptor.clone(), Arc::clone(&all), Arc::clone(&count));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let answer = service_fn(move |_: hyper::Request<hyper::body::Incoming>| {
                    let all = Arc::clone(&all);
                    async move {
                        all.wait().await;
                        let answer = Response::builder().header("content-type", "application/json");
                        let answer = answer.body(Body::from(completion().to_string())).unwrap();
                        Ok::<_, Infallible>(answer)
                    }
                });
                count.fetch_add(1, Ordering::Relaxed);
                let mut server = http2::Builder::new(TokioExecutor::new());
                let server = server.max_concurrent_streams(OF_CONNECTION);
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    (base_url, made.cert.pem(), connections)
}

#[tokio::test]
async fn calls_do_not_wait_for_each_other_at_an_upstream_of_http_2() {
    let (base_url, certificate, connections) = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certificate).unwrap();
    let bench = bench_of(Vec::new(), &[], |config| {
        config.ca_file = Some(ca_file);
        let secure = Upstream {
            base_url,
            shape: Shape::OpenAi,
            provider: "openai".to_owned(),
            key: None,
            ask_usage: AskUsage::Auto,
        };
        config.upstreams.insert("secure".to_owned(), secure);
    })
    .await;
    let bench = Arc::new(bench);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let bench = Arc::clone(&bench);
        calls.spawn(async move {
            let path = "/secure/v1/chat/completions";
            let response = bench.post(path, &[], r#"{"model":"gpt-4o"}"#).await;
            assert_eq!(response.status(), 200);
            text(response).await
        });
    }
    let answered = tokio::time::timeout(Duration::from_secs(60), calls.join_all());
    let answers = answered.await.expect("calls wait for each other");
    let wanted = completion().to_string();
    assert!(answers.iter().all(|answer| *answer == wanted));
    assert!(connections.load(Ordering::Relaxed) >= 2);
}
