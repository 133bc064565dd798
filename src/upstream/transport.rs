//! How an endpoint is spoken to: in the clear or under TLS, HTTP/1 or HTTP/2.

use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::tls::ClientTls;

/// The protocol of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; in the clear with prior knowledge.
    Http2,
    /// What TLS agrees on.
    Auto,
}

/// How an endpoint is spoken to.
#[derive(Debug, Default)]
pub struct Transport {
    /// The protocol.
    pub protocol: Protocol,
    /// Under TLS, and for whom.
    pub tls: Option<(Arc<ClientTls>, ServerName<'static>)>,
    /// Tells transports apart: connections of one are never used for another.
    pub key: u64,
}

impl Transport {
    /// The scheme of requests over it.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}
