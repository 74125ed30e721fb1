//! A server whose certificate is signed by a CA of one's own.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use spendfuse_warehouse::{Warehouse, WarehouseConfig, WarehouseError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_ca_of_ones_own_is_believed_where_it_is_named_and_a_hint_is_given_where_it_is_not() {
    let folder = std::env::temp_dir().join(format!("spendfuse-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (ca, server) = certificates();
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, ca).unwrap();
    let url = serve(server).await;
    let connect = |ca_file: Option<PathBuf>| {
        let config = WarehouseConfig {
            url: url.clone(),
            ca_file,
            ..WarehouseConfig::default()
        };
        Warehouse::connect(config)
    };

    connect(Some(ca_file)).await.unwrap();
    let error = connect(None).await.unwrap_err().to_string();
    assert!(error.contains("clickhouse.ca_file"), "{error}");

    let empty = folder.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for wrong in [empty, folder.join("missing.pem")] {
        let error = connect(Some(wrong.clone())).await.unwrap_err();
        let is_named = matches!(&error, WarehouseError::BadCa { path, .. } if *path == wrong);
        assert!(is_named, "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// The CA's certificate as PEM, and a server's configuration.
fn certificates() -> (String, ServerConfig) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "our own CA");
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (pem, server)
}

/// Answers every request with success.
async fn serve(config: ServerConfig) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not believe us hangs up.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(ANSWER).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    url
}
