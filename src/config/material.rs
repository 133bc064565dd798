//! The files that a configuration names: certificates, keys and roots, read and held against each
//! other before anything of them is put in force.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use xxhash_rust::xxh3::xxh3_64;

use crate::notify::{Receiver, Secret};
use crate::outbound::Url;
use crate::tls::{ClientTls, ServerTls, client, server};
use crate::upstream::Protocol;

use super::choices::{ClientCertificate, MinVersion};
use super::fault::{Fault, Faults, Place};
use super::notifications::{self, Notification};
use super::transport::{Listener, Pair, TrackTls};
use super::types::{Config, Track};
use super::validate::{NO_TOKEN, is_bearer};
use super::values::At;

/// Largest file that is read; a bundle of all public roots has 200 KiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the named files hold.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// In the order of the listeners; `None`: in the clear.
    pub listeners: Vec<Option<Arc<ServerTls>>>,
    /// By service and track; the number tells settings apart.
    pub tracks: HashMap<(String, String), (Arc<ClientTls>, u64)>,
    /// Every certificate of a listener as the file names it, and when it ends, in seconds since
    /// 1970.
    pub certificates: Vec<(String, i64)>,
    /// Tokens that may look, and that may act, from their files.
    pub tokens: [Vec<String>; 2],
    /// What signs sticky cookies, from files, by service.
    pub secrets: HashMap<String, Vec<String>>,
    /// Who is told of what rollouts do.
    pub receivers: Vec<Receiver>,
    /// What settings were made of, so that what did not change is kept with its sessions.
    servers: HashMap<u64, Arc<ServerTls>>,
    clients: HashMap<u64, Arc<ClientTls>>,
    files: Vec<PathBuf>,
}

impl Material {
    /// Reads every file that `config`, which came from `path`, names.
    ///
    /// # Errors
    /// Every fault found, at the place that names the file.
    pub fn read(config: &Config, path: &Path, last: &Self) -> Result<Self, Faults> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut reading = Reading { folder, last, found: Self::default(), faults: Vec::new() };
        for (index, listener) in config.listeners.iter().enumerate() {
            reading.listener(listener, &format!("listeners[{index}].tls"));
        }
        let files = [&config.admin.tokens.read_file, &config.admin.tokens.operate_file];
        for (position, (file, key)) in
            files.into_iter().zip(["read_file", "operate_file"]).enumerate()
        {
            reading.found.tokens[position] = reading.tokens(file.as_ref(), key).unwrap_or_default();
        }
        for (index, section) in config.notifications.iter().enumerate() {
            let made = reading.receiver(section, &format!("notifications[{index}]"));
            reading.found.receivers.extend(made);
        }
        for (index, service) in config.services.iter().enumerate() {
            let file = service.sticky.as_ref().and_then(|sticky| sticky.secret_file.as_ref());
            if let Some(file) = file
                && let Some(found) = reading.secrets(file, &format!("services[{index}].sticky"))
            {
                reading.found.secrets.insert(service.name.value.clone(), found);
            }
            for (name, track) in &service.tracks.0 {
                let field = format!("services[{index}].tracks.{}.tls", name.value);
                if let Some(made) = reading.track(track, &field) {
                    let key = (service.name.value.clone(), name.value.clone());
                    reading.found.tracks.insert(key, made);
                }
            }
        }
        if reading.faults.is_empty() {
            Ok(reading.found)
        } else {
            Err(Faults::new(path, reading.faults))
        }
    }

    /// The files that were read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Tells contents of `files` apart; one that cannot be read is a content of its own.
#[must_use]
pub fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hashes = Vec::new();
    for file in files {
        hashes.extend(read(file).map_or(0, |bytes| xxh3_64(&bytes)).to_le_bytes());
    }
    xxh3_64(&hashes)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Reading<'a> {
    folder: PathBuf,
    last: &'a Material,
    found: Material,
    faults: Vec<Fault>,
}

impl Reading<'_> {
    fn fault(&mut self, place: Place, field: &str, message: String) {
        self.faults.push(Fault { place: Some(place), field: field.to_owned(), message });
    }

    fn file(&mut self, name: &At<String>, field: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(&name.value);
        let bytes = read(&path);
        self.found.files.push(path);
        bytes
            .map_err(|error| {
                let message = format!("`{}` cannot be read: {error}; check the path", name.value);
                self.fault(name.place, field, message);
            })
            .ok()
    }

    /// A file that need not be named; an error when it is and cannot be read.
    fn optional(&mut self, name: Option<&At<String>>, field: &str) -> Result<Option<Vec<u8>>, ()> {
        match name {
            Some(name) => self.file(name, field).map(Some).ok_or(()),
            None => Ok(None),
        }
    }

    fn tokens(&mut self, file: Option<&At<String>>, key: &str) -> Option<Vec<String>> {
        let (file, field) = (file?, format!("admin.tokens.{key}"));
        let text = String::from_utf8_lossy(&self.file(file, &field)?).into_owned();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let tokens: Vec<String> = lines.map(str::to_owned).collect();
        if tokens.is_empty() || !tokens.iter().all(|token| is_bearer(token)) {
            self.fault(file.place, &field, format!("{NO_TOKEN}, one a line"));
        }
        Some(tokens)
    }

    fn secrets(&mut self, file: &At<String>, field: &str) -> Option<Vec<String>> {
        let field = format!("{field}.secret_file");
        let text = String::from_utf8_lossy(&self.file(file, &field)?).into_owned();
        let found = super::sticky::secrets(&text);
        found.map_err(|why| self.fault(file.place, &field, why)).ok()
    }

    fn receiver(&mut self, section: &Notification, field: &str) -> Option<Receiver> {
        let in_file = section.url_file.as_ref();
        let url = match (&section.url, in_file) {
            (Some(url), _) => Some(url.0.clone()),
            (None, Some(file)) => {
                let field = format!("{field}.url_file");
                let text = self.file(file, &field)?;
                let url = Url::parse(String::from_utf8_lossy(&text).trim());
                url.map_err(|why| self.fault(file.place, &field, why)).ok()
            }
            (None, None) => None,
        };
        let secret = match &section.secret_file {
            Some(file) => {
                let field = format!("{field}.secret_file");
                let text = self.file(file, &field)?;
                let secret = Secret::parse(&String::from_utf8_lossy(&text));
                Some(secret.map_err(|why| self.fault(file.place, &field, why.into())).ok()?)
            }
            None => None,
        };
        Some(notifications::receiver(section, url?, secret, &self.folder))
    }

    fn pair(&mut self, pair: &Pair, field: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let certificate = self.file(&pair.certificate, &format!("{field}.certificate"));
        let key = self.file(&pair.key, &format!("{field}.key"));
        certificate.zip(key)
    }

    fn listener(&mut self, listener: &Listener, field: &str) {
        let made = listener.tls.as_ref().and_then(|tls| {
            let mut pairs = Vec::new();
            for (index, pair) in tls.certificates.iter().enumerate() {
                pairs.push(self.pair(pair, &format!("{field}.certificates[{index}]")));
            }
            let pairs = pairs.into_iter().collect::<Option<Vec<_>>>();
            let ca = self.optional(tls.client_ca.as_ref(), &format!("{field}.client_ca"));
            let (pairs, ca) = (pairs?, ca.ok()?);
            let terms = server::Terms {
                pairs: &pairs,
                client_ca: ca.as_deref(),
                client_certificate_required: tls.client_certificate == ClientCertificate::Required,
                tls12: tls.min_version == MinVersion::Tls12,
                http2: listener.http2,
            };
            let key = key_of(&terms);
            if let Some(kept) = self.last.servers.get(&key) {
                return Some((key, Arc::clone(kept)));
            }
            match ServerTls::new(&terms) {
                Ok(made) => Some((key, Arc::new(made))),
                Err((position, error)) => {
                    let position = position.map(|at| (tls.certificates[at].place, at));
                    let (place, field) = position.map_or((tls.place, field.to_owned()), |found| {
                        (found.0, format!("{field}.certificates[{}]", found.1))
                    });
                    self.fault(place, &field, error.to_string());
                    None
                }
            }
        });
        let Some((key, made)) = made else { return self.found.listeners.push(None) };
        let names = listener.tls.iter().flat_map(|tls| tls.certificates.iter());
        let names = names.map(|pair| pair.certificate.value.clone());
        self.found.certificates.extend(names.zip(made.ends_s.iter().copied()));
        self.found.servers.insert(key, Arc::clone(&made));
        self.found.listeners.push(Some(made));
    }

    fn track(&mut self, track: &Track, field: &str) -> Option<(Arc<ClientTls>, u64)> {
        let tls: &At<TrackTls> = track.tls.as_ref()?;
        let ca = self.optional(tls.ca.as_ref(), &format!("{field}.ca"));
        let pair = match &tls.client {
            Some(pair) => Some(self.pair(pair, &format!("{field}.client"))?),
            None => None,
        };
        let ca = ca.ok()?;
        let protocol = track.protocol();
        let alpn: &[&str] = match protocol {
            Protocol::Http1 => &["http/1.1"],
            Protocol::Http2 => &["h2"],
            Protocol::Auto => &["h2", "http/1.1"],
        };
        let terms = client::Terms {
            ca: ca.as_deref(),
            pair: pair.as_ref().map(|(certificate, key)| (&certificate[..], &key[..])),
            verify: tls.verify,
            alpn,
        };
        let key = xxh3_64(format!("{terms:?}").as_bytes());
        let kept = self.last.clients.get(&key).cloned();
        let made = kept.map_or_else(|| ClientTls::new(&terms).map(Arc::new), Ok);
        match made {
            Ok(made) => {
                self.found.clients.insert(key, Arc::clone(&made));
                Some((made, key))
            }
            Err(error) => {
                self.fault(tls.place, field, error.to_string());
                None
            }
        }
    }
}

fn key_of(terms: &server::Terms<'_>) -> u64 {
    xxh3_64(format!("{terms:?}").as_bytes())
}

/// The name that an endpoint's certificate must be for.
#[must_use]
pub fn server_name(tls: &TrackTls, host: &str) -> Option<ServerName<'static>> {
    let name = tls.server_name.as_ref().map_or(host, |name| &name.value);
    let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(name.to_owned()).ok()
}
