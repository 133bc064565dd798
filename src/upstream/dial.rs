//! A fresh connection to an endpoint: the socket, and TLS where it is wanted.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::wire::{TlsWire, Wire};

use super::endpoint::Endpoint;
use super::transport::Protocol;

/// Connects to `endpoint`; says too whether HTTP/2 is to be spoken.
///
/// # Errors
/// The connect's or TLS's, or a protocol that was not agreed on.
pub async fn connect(endpoint: &Endpoint) -> Result<(Wire, bool)> {
    let transport = endpoint.transport();
    let stream = TcpStream::connect(endpoint.address()).await?;
    let Some((tls, name)) = &transport.tls else {
        return Ok((Wire::new(stream), transport.protocol == Protocol::Http2));
    };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let wire = TlsWire::new(connector.connect(name.clone(), stream).await?);
    let is_http2 = wire.is_http2();
    if transport.protocol == Protocol::Http2 && !is_http2 {
        return Err(Error::new(ErrorKind::Unsupported, "the upstream does not agree on h2"));
    }
    Ok((Wire::tls(wire), is_http2))
}
