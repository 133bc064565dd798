//! Who is at the other end of a downstream connection, and how it came.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::memory::Account;
use crate::state::ListenerPolicy;

/// The client of a connection, the same for all of its requests.
#[derive(Debug)]
pub struct Client {
    /// Its address; behind the PROXY protocol the one that was told.
    pub peer: SocketAddr,
    /// Its IP address as text, for X-Forwarded-For.
    pub peer_text: Box<str>,
    /// `https` under TLS, else `http`.
    pub scheme: &'static str,
    /// Field lines that tell of its certificate, if it showed one.
    pub certificate: Option<Box<str>>,
    /// How the listener that it came to treats it.
    pub listener: Arc<ListenerPolicy>,
    /// What its requests hold.
    pub account: Rc<Account>,
}

impl Client {
    /// A client in the clear.
    #[must_use]
    pub fn new(peer: SocketAddr, listener: Arc<ListenerPolicy>) -> Self {
        // An IPv4 client of a dual-stack listener is the IPv4 client that rules and logs mean.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let peer_text = peer.ip().to_string().into();
        let (certificate, account) = (None, Rc::default());
        Self { peer, peer_text, scheme: "http", certificate, listener, account }
    }
}
