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

/// Who takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The position of the service.
    pub service: usize,
    /// With another path it might have been another service, or none.
    pub by_path: bool,
}

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
        let path = path::configured(path);
        let path = path.strip_suffix(b"/").unwrap_or(&path);
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

    /// The service for a Host value and a path as it is compared.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<Found> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return self.any.find(path);
        }
        let mut buffer = [0; HOST_BYTES_MAX];
        let host = normalized(host, &mut buffer);
        let exact = self.exact.get(host);
        let below = |suffix: &[u8]| host.len() > suffix.len() && host.ends_with(suffix);
        let suffixes = self.suffixes.iter().filter(|(suffix, _)| below(suffix));
        let mut by_path = false;
        for paths in exact.into_iter().chain(suffixes.map(|(_, paths)| paths)).chain([&self.any]) {
            if let Some(found) = paths.find(path) {
                return Some(Found { by_path: by_path || found.by_path, ..found });
            }
            // Its paths led to nobody, which is why the next is asked.
            by_path |= !paths.0.is_empty();
        }
        None
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
    fn find(&self, path: &[u8]) -> Option<Found> {
        let found = self.0.iter().find(|(prefix, _)| path::has_prefix(path, prefix));
        // The longest come first: where that is the root, there is no other.
        let by_path = self.0.first().is_some_and(|(longest, _)| !longest.is_empty());
        found.map(|(_, service)| Found { service: *service, by_path })
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
            let found = table.find(host.as_bytes(), path.as_bytes()).map(|found| found.service);
            assert_eq!(found, Some(service), "{host}{path}");
        }
    }

    #[test]
    fn where_paths_decide_is_known() {
        let mut table = Table::default();
        for (service, (host, path)) in [
            (None, "/"),
            (Some("a.example"), "/"),
            (Some("b.example"), "/%61pi"),
            (Some("*.c.example"), "/"),
            (Some("*.c.example"), "/x"),
        ]
        .into_iter()
        .enumerate()
        {
            table.insert(host, path, service);
        }
        for (host, path, service, by_path) in [
            ("other", "/", 0, false),
            ("a.example", "/x", 1, false),
            ("b.example", "/api", 2, true),
            ("b.example", "/", 0, true),
            ("a.c.example", "/", 3, true),
            ("a.c.example", "/x", 4, true),
        ] {
            let found = table.find(host.as_bytes(), path.as_bytes());
            assert_eq!(found, Some(Found { service, by_path }), "{host}{path}");
        }
    }

    #[test]
    fn nothing_matches_without_a_service_for_it() {
        let mut table = Table::default();
        table.insert(Some("a.example"), "/x", 0);
        table.insert(Some("[::1]"), "/", 1);
        assert_eq!(table.find(b"b.example", b"/x"), None);
        assert_eq!(table.find(b"a.example", b"/y"), None);
        assert_eq!(table.find(b"[::1]:80", b"/y").map(|found| found.service), Some(1));
        assert_eq!(table.find(&[b'a'; 5_000], b"/x"), None);
    }
}
