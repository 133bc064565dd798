//! The side of TLS that clients see: certificates by name, resumption, client certificates.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, error, pair, provider, roots};

/// What a listener agrees to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms<'a> {
    /// Certificate chain and key of every name, in PEM; the first is for unknown names.
    pub pairs: &'a [(Vec<u8>, Vec<u8>)],
    /// Roots of client certificates, in PEM.
    pub client_ca: Option<&'a [u8]>,
    /// A client without a certificate is refused.
    pub client_certificate_required: bool,
    /// TLS 1.2 is agreed to.
    pub tls12: bool,
    /// HTTP/2 is agreed to.
    pub http2: bool,
}

/// A listener's TLS.
#[derive(Debug)]
pub struct ServerTls {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// When each certificate ends, in seconds since 1970, in the order given.
    pub ends_s: Vec<i64>,
    /// The positions of certificates that are for no name.
    pub nameless: Vec<usize>,
    /// Clients may show certificates.
    pub asks_clients: bool,
}

impl ServerTls {
    /// Puts terms together.
    ///
    /// # Errors
    /// The position of the pair at fault, if it is one, and the fault.
    pub fn new(terms: &Terms<'_>) -> Result<Self, (Option<usize>, TlsError)> {
        let mut by_name = ByName::default();
        let (mut ends_s, mut nameless) = (Vec::new(), Vec::new());
        for (position, (certificate, key)) in terms.pairs.iter().enumerate() {
            let added = pair(certificate, key).and_then(|pair| by_name.add(Arc::new(pair)));
            let (end_s, has_names) = added.map_err(|fault| (Some(position), fault))?;
            ends_s.push(end_s);
            if !has_names {
                nameless.push(position);
            }
        }
        let whole = |fault: TlsError| (None, fault);
        let versions: &[&rustls::SupportedProtocolVersion] =
            if terms.tls12 { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS13] };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|fault| whole(error(fault.to_string())))?;
        let builder = match terms.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = Arc::new(roots(pem).map_err(whole)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = if terms.client_certificate_required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|fault| whole(error(fault.to_string())))?,
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = if terms.http2 {
            vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()]
        } else {
            vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()]
        };
        // Tickets are sealed by a key that is renewed by itself: resumption without memory, shared
        // by all workers.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|fault| whole(error(fault.to_string())))?;
        let asks_clients = terms.client_ca.is_some();
        Ok(Self { config: Arc::new(config), ends_s, nameless, asks_clients })
    }
}

/// Certificates by the names in them.
#[derive(Debug, Default)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the `*`, leading dot included.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    /// Adds a certificate and returns when it ends, and whether it is for any name or address.
    fn add(&mut self, pair: Arc<CertifiedKey>) -> Result<(i64, bool), TlsError> {
        let der = pair.end_entity_cert().map_err(|fault| error(fault.to_string()))?;
        let parsed = X509Certificate::from_der(der);
        let (_, parsed) = parsed.map_err(|fault| error(format!("is no certificate: {fault}")))?;
        let end_s = parsed.validity().not_after.timestamp();
        let names = parsed.subject_alternative_name().ok().flatten();
        let mut has_names = false;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            has_names |= matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
            let GeneralName::DNSName(name) = name else { continue };
            let name = name.to_ascii_lowercase();
            // The first of two certificates for a name stays, as the first is the default.
            match name.strip_prefix('*') {
                Some(suffix) => self.wildcard.entry(suffix.to_owned()),
                None => self.exact.entry(name),
            }
            .or_insert_with(|| Arc::clone(&pair));
        }
        self.first.get_or_insert(pair);
        Ok((end_s, has_names))
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.wildcard.get(&name[name.find('.')?..]);
        self.exact.get(&name).or_else(wildcard).or(self.first.as_ref())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name().unwrap_or_default()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn the_certificate_of_the_name_is_shown_else_the_first() {
        let mut by_name = ByName::default();
        let mut added = Vec::new();
        for names in [&["a.example"][..], &["*.b.example", "b.example"], &["x.b.example"]] {
            let (certificate, key) = made(names);
            let one = Arc::new(pair(&certificate, &key).unwrap());
            by_name.add(Arc::clone(&one)).unwrap();
            added.push(one);
        }
        for (name, expected) in [
            ("a.example", 0),
            ("A.EXAMPLE", 0),
            ("b.example", 1),
            ("y.b.example", 1),
            ("x.b.example", 2),
            ("z.y.b.example", 0),
            ("", 0),
        ] {
            assert!(Arc::ptr_eq(by_name.find(name).unwrap(), &added[expected]), "{name}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (certificate, _) = made(&["a"]);
        let (_, key) = made(&["a"]);
        let pairs = [(certificate.clone(), key)];
        let fault = ServerTls::new(&Terms { pairs: &pairs, tls12: true, ..Terms::default() });
        let expected = "certificate and key do not belong together";
        assert_eq!(fault.unwrap_err(), (Some(0), TlsError(expected.into())));
        let pairs = [(certificate, b"nothing".to_vec())];
        let fault = ServerTls::new(&Terms { pairs: &pairs, ..Terms::default() });
        assert!(fault.unwrap_err().1.0.starts_with("the key is no PEM private key"));
    }

    #[test]
    fn the_end_of_a_certificate_is_known() {
        let pairs = [made(&["a"])];
        let tls = ServerTls::new(&Terms { pairs: &pairs, ..Terms::default() }).unwrap();
        // rcgen's certificates end in the year 4096.
        assert_eq!(tls.ends_s, [67_090_118_400]);
    }
}
