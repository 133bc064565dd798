//! TLS settings of either side, made from PEM: what is agreed, by whom, until when.

pub mod client;
pub mod identity;
pub mod server;

pub use client::ClientTls;
pub use server::ServerTls;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Why settings cannot be used; says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

fn error(text: impl Into<String>) -> TlsError {
    TlsError(text.into())
}

/// The cryptography in use, said explicitly so that no feature of a dependency changes it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|fault| error(format!("is no PEM certificate: {fault}")))?;
    if read.is_empty() {
        return Err(error("has no PEM certificate; it begins with -----BEGIN CERTIFICATE-----"));
    }
    Ok(read)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        let added = store.add(certificate);
        added
            .map_err(|fault| error(format!("has a certificate that cannot be a root: {fault}")))?;
    }
    Ok(store)
}

/// A certificate with its chain and key, held against each other.
///
/// # Errors
/// What is no certificate or key, or a key of another certificate.
pub fn pair(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|fault| error(format!("the key is no PEM private key: {fault}")))?;
    let key = provider().key_provider.load_private_key(key);
    let key =
        key.map_err(|fault| error(format!("the key is of no kind that is known: {fault}")))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(pair)
        }
        Err(_) => Err(error("certificate and key do not belong together")),
    }
}
