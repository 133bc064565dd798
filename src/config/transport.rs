//! The sections of either side's connections: listeners, certificates, the TLS of a track.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::choices::{ClientCertificate, MinVersion};
use super::node::{Kind, Node};
use super::section::{Reader, Value, section};
use super::values::{At, OneOrMany, OrOff, Span, Whole};

section! {
    /// One socket for downstream connections.
    pub struct Listener {
        /// IP:PORT to listen on.
        pub address: SocketAddr = required,
        /// What services call it in `listeners`. Omitted: its address is its name.
        pub name: Option<At<String>> = or(None),
        /// TLS to clients. Omitted: in the clear.
        pub tls: Option<At<ListenerTls>> = or(None),
        /// HTTP/2, by ALPN under TLS and by prior knowledge in the clear.
        pub http2: bool = or(true),
        /// Answer every request with a redirect to this port of the same host under HTTPS, or off.
        pub redirect_https: OrOff<Whole<1, 65_535>> = or(OrOff(None)),
        /// Connections begin with a PROXY protocol header, version 1 or 2, in which a balancer names
        /// its client: `{ from: [NETWORK] }` names the balancers, and nobody else is let in. true: any
        /// peer at a private address, and `trusted_proxies`. Or off.
        pub proxy_protocol: OrOff<ProxyProtocol> = or(OrOff(None)),
    }
}

section! {
    /// Who sends PROXY headers.
    pub struct Balancers {
        /// Their networks.
        pub from: At<OneOrMany<IpNet>> = required,
    }
}

/// Whose PROXY headers are believed.
#[derive(Clone, Debug, PartialEq)]
pub enum ProxyProtocol {
    /// Those of peers at private addresses.
    Private,
    /// Those of these networks.
    From(Vec<IpNet>),
}

impl Value for ProxyProtocol {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(text) if text == "true" => return Some(Self::Private),
            Kind::Map(_) => {}
            kind => {
                let message = "write { from: [NETWORK] } with the balancers' networks, or off";
                reader.fault(node.place, format!("is {}; {message}", kind.describe()));
                return None;
            }
        }
        let Balancers { from } = Balancers::read(node, reader)?;
        if from.0.is_empty() {
            let message = "is empty, so that nobody is let in; name the balancers' networks";
            reader.below("from", |reader| reader.fault(from.place, message));
            return None;
        }
        Some(Self::From(from.value.0))
    }

    fn schema() -> Json {
        json!({ "oneOf": [Balancers::schema(), { "const": true }] })
    }
}

section! {
    /// TLS to clients. Files are read again when they change.
    pub struct ListenerTls {
        /// Certificates; each is for the names in it, the first for all others.
        pub certificates: At<Vec<At<Pair>>> = required,
        /// A PEM file of roots: clients may show certificates that lead to one of them. Subject,
        /// fingerprint and names are passed on in X-Client-Certificate-Subject, -Fingerprint, -Sans.
        pub client_ca: Option<At<String>> = or(None),
        /// required or optional, where `client_ca` is set.
        pub client_certificate: ClientCertificate = or(ClientCertificate::Required),
        /// The oldest version agreed to: 1.2 or 1.3.
        pub min_version: MinVersion = or(MinVersion::Tls12),
        /// Strict-Transport-Security with this max-age on every answer, or off.
        pub hsts: OrOff<Span> = or(OrOff(None)),
    }
}

section! {
    /// A certificate with its key.
    pub struct Pair {
        /// A PEM file: the certificate, then its chain. Relative to the configuration file.
        pub certificate: At<String> = required,
        /// A PEM file: the private key.
        pub key: At<String> = required,
    }
}

section! {
    /// TLS to the endpoints of a track.
    pub struct TrackTls {
        /// A PEM file of the roots that are believed. Omitted: the system's.
        pub ca: Option<At<String>> = or(None),
        /// The name that is asked for and checked. Omitted: the endpoint's host.
        pub server_name: Option<At<String>> = or(None),
        /// Our certificate, if the endpoints want one.
        pub client: Option<At<Pair>> = or(None),
        /// Check the endpoints' certificates. Without it anybody in between can read and change.
        pub verify: bool = or(true),
    }
}
