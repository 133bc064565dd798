//! Certificates made for a test: a root, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A root of its own in a folder.
pub struct Certificates {
    pub folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// A fresh root, as `ca.crt`.
    pub fn new() -> Self {
        let folder = super::folder();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test root");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.crt"), root.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `names` and its key, as `file.crt` and `file.key`.
    pub fn issue(&self, file: &str, names: &[&str]) -> &Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        // Renamed into place, as whoever renews them does.
        for (kind, text) in [("crt", certificate.pem()), ("key", key.serialize_pem())] {
            let next = self.folder.path().join(".next");
            std::fs::write(&next, text).unwrap();
            std::fs::rename(next, self.path(&format!("{file}.{kind}"))).unwrap();
        }
        self
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The keys of a listener's certificate in the configuration.
    pub fn pair(&self, file: &str) -> String {
        let text = |path: &Path| path.display().to_string();
        format!(
            "{{ certificate: '{}', key: '{}' }}",
            text(&self.path(&format!("{file}.crt"))),
            text(&self.path(&format!("{file}.key")))
        )
    }
}
