//! Connections to ClickHouse by TLS.

use std::path::Path;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use spendfuse_tls::{BadCa, client_config};

use crate::error::WarehouseError;

/// Connects by TLS.
pub(crate) fn https(
    connector: HttpConnector,
    ca_file: Option<&Path>,
) -> Result<HttpsConnector<HttpConnector>, WarehouseError> {
    let config = client_config(ca_file)
        .map_err(|BadCa { path, reason }| WarehouseError::BadCa { path, reason })?;
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector))
}
