//! The side of TLS that upstreams see: whom we believe, and who we are.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{TlsError, error, pair, provider, roots};

/// How upstreams are spoken to.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Roots that are believed, in PEM; the system's where there are none.
    pub ca: Option<&'a [u8]>,
    /// Our certificate and key, in PEM.
    pub pair: Option<(&'a [u8], &'a [u8])>,
    /// The upstream's certificate is checked.
    pub verify: bool,
    /// Offered protocols, the best first.
    pub alpn: &'a [&'static str],
}

/// A track's TLS.
#[derive(Debug)]
pub struct ClientTls {
    /// For the handshake.
    pub config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Puts terms together.
    ///
    /// # Errors
    /// The fault.
    pub fn new(terms: &Terms<'_>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|fault| error(fault.to_string()))?;
        let builder = if terms.verify {
            let roots = match terms.ca {
                Some(pem) => roots(pem)?,
                None => system_roots()?,
            };
            builder.with_root_certificates(roots)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody))
        };
        let mut config = match terms.pair {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let pair = Arc::new(pair(certificate, key)?);
                builder
                    .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)))
            }
        };
        config.alpn_protocols = terms.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { config: Arc::new(config) })
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(error(
            "the system has no root certificates; install ca-certificates or set ca",
        ));
    }
    Ok(store)
}

/// Believes every certificate: for `verify: false`, which the reference warns of.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
