//! A fresh connection to an endpoint: the socket, and TLS where it is wanted.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::wire::{TlsWire, Wire};

use super::endpoint::Endpoint;
use super::transport::Protocol;

/// An upstream that is silent for this long is asked by its kernel whether it is there …
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
/// … again after this …
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// … and given up after so many.
const KEEPALIVE_RETRIES: u32 = 3;

/// Whether an error of connecting says that this host has run out of something: file descriptors,
/// ports or memory for sockets. It says nothing of the endpoint.
#[must_use]
pub fn is_ours(error: &Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    code.is_some_and(|code| ours.contains(&code))
}

/// Connects to `endpoint`; says too whether HTTP/2 is to be spoken.
///
/// # Errors
/// The connect's or TLS's, or a protocol that was not agreed on.
pub async fn connect(endpoint: &Endpoint) -> Result<(Wire, bool)> {
    let transport = endpoint.transport();
    let stream = TcpStream::connect(endpoint.address()).await?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    let keepalive = keepalive.with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_RETRIES);
    // A connection without it works all the same.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
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
