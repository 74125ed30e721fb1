//! Whose certificates are believed: those of the system's store, and of a CA of one's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// A CA's file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct BadCa {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// How a client of HTTPS connects; `ca_file` has certificates in PEM.
///
/// # Errors
/// [`BadCa`] where that file cannot be read, or holds no certificate.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, BadCa> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default versions")
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth())
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, BadCa> {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be read are of no use to anybody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        // Small container images have no store.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let Some(path) = ca_file else {
        return Ok(roots);
    };
    let failed = |reason: String| BadCa {
        path: path.to_owned(),
        reason,
    };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(roots)
}
