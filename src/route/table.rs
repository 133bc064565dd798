//! From host and path to the service: the most specific wins.

use std::collections::HashMap;

use super::path;

/// Which service takes a request: by exact host, then longest suffix, then any host; for each by
/// the longest path prefix.
#[derive(Clone, Debug, Default)]
pub struct Table {
    exact: HashMap<Box<[u8]>, Paths>,
    /// Suffixes with their leading dot, longest first.
    suffixes: Vec<(Box<[u8]>, Paths)>,
    any: Paths,
}

/// Path prefixes, longest first, and the service each leads to.
#[derive(Clone, Debug, Default)]
struct Paths(Vec<(Box<[u8]>, usize)>);

/// Longest host name that is looked up; DNS allows 253.
const HOST_BYTES_MAX: usize = 256;

impl Table {
    /// Leads `host` (`None`: any; `*.suffix`; lower case) with the prefix `path` to `service`.
    pub fn insert(&mut self, host: Option<&str>, path: &str, service: usize) {
        let paths = match host {
            None => &mut self.any,
            Some(host) => match host.strip_prefix('*') {
                Some(suffix) => self.suffix(suffix.as_bytes()),
                None => self.exact.entry(host.as_bytes().into()).or_default(),
            },
        };
        let path = path.strip_suffix('/').unwrap_or(path).as_bytes();
        let at = paths.0.partition_point(|(other, _)| other.len() >= path.len());
        paths.0.insert(at, (path.into(), service));
    }

    fn suffix(&mut self, suffix: &[u8]) -> &mut Paths {
        let known = self.suffixes.iter().position(|(other, _)| **other == *suffix);
        let at = known.unwrap_or_else(|| {
            let at = self.suffixes.partition_point(|(other, _)| other.len() >= suffix.len());
            self.suffixes.insert(at, (suffix.into(), Paths::default()));
            at
        });
        &mut self.suffixes[at].1
    }

    /// The service for a Host value and a resolved path.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return self.any.find(path);
        }
        let mut buffer = [0; HOST_BYTES_MAX];
        let host = normalized(host, &mut buffer);
        let exact = self.exact.get(host).and_then(|paths| paths.find(path));
        exact
            .or_else(|| {
                let mut suffixes = self.suffixes.iter();
                suffixes.find_map(|(suffix, paths)| {
                    let below = host.len() > suffix.len() && host.ends_with(suffix);
                    below.then(|| paths.find(path)).flatten()
                })
            })
            .or_else(|| self.any.find(path))
    }
}

impl Table {
    /// Whether any service has this host, whatever the path.
    #[must_use]
    pub fn has_host(&self, host: &[u8]) -> bool {
        let mut buffer = [0; HOST_BYTES_MAX];
        let host = normalized(host, &mut buffer);
        let is_below = |suffix: &[u8]| host.len() > suffix.len() && host.ends_with(suffix);
        !self.any.0.is_empty()
            || self.exact.contains_key(host)
            || self.suffixes.iter().any(|(suffix, _)| is_below(suffix))
    }
}

impl Paths {
    fn find(&self, path: &[u8]) -> Option<usize> {
        self.0
            .iter()
            .find(|(prefix, _)| path::has_prefix(path, prefix))
            .map(|(_, service)| *service)
    }
}

/// The host without port and final dot, in lower case. What is too long is no host of ours.
fn normalized<'a>(host: &[u8], buffer: &'a mut [u8; HOST_BYTES_MAX]) -> &'a [u8] {
    let name_end = match host.first() {
        Some(b'[') => memchr::memchr(b']', host).map_or(host.len(), |close| close + 1),
        _ => memchr::memchr(b':', host).unwrap_or(host.len()),
    };
    let name = host[..name_end].strip_suffix(b".").unwrap_or(&host[..name_end]);
    let Some(buffer) = buffer.get_mut(..name.len()) else { return b"" };
    buffer.copy_from_slice(name);
    buffer.make_ascii_lowercase();
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_service_wins() {
        let mut table = Table::default();
        table.insert(None, "/", 0);
        table.insert(None, "/api", 1);
        table.insert(Some("*.example.com"), "/", 2);
        table.insert(Some("*.eu.example.com"), "/", 3);
        table.insert(Some("api.example.com"), "/api", 4);
        table.insert(Some("api.example.com"), "/api/v2", 5);
        for (host, path, service) in [
            ("other", "/", 0),
            ("other", "/api/x", 1),
            ("other", "/apix", 0),
            ("www.example.com", "/api", 2),
            ("example.com", "/", 0),
            ("a.eu.example.com", "/", 3),
            ("API.example.com.:8080", "/api", 4),
            ("api.example.com", "/api/v2/x", 5),
            ("api.example.com", "/other", 2),
            ("", "/", 0),
        ] {
            assert_eq!(table.find(host.as_bytes(), path.as_bytes()), Some(service), "{host}{path}");
        }
    }

    #[test]
    fn nothing_matches_without_a_service_for_it() {
        let mut table = Table::default();
        table.insert(Some("a.example"), "/x", 0);
        table.insert(Some("[::1]"), "/", 1);
        assert_eq!(table.find(b"b.example", b"/x"), None);
        assert_eq!(table.find(b"a.example", b"/y"), None);
        assert_eq!(table.find(b"[::1]:80", b"/y"), Some(1));
        assert_eq!(table.find(&[b'a'; 5_000], b"/x"), None);
    }
}
