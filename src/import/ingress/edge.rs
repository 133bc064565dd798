//! What is one for all hosts: listeners, and limits.

use super::Ingress;
use crate::import::draft::{Draft, Yaml, plain, size};

/// What is one for all hosts: TLS, and the limits.
pub(super) fn write(all: &[Ingress<'_>], draft: &mut Draft) {
    let mains: Vec<&Ingress> = all.iter().filter(|one| one.canary.is_none()).collect();
    if mains.is_empty() {
        return;
    }
    if !draft.certificates.is_empty() {
        let has_tls =
            |host: &str| mains.iter().any(|one| one.tls_hosts.iter().any(|own| own == host));
        draft.redirects = mains.iter().all(|one| {
            one.settings.redirects_to_tls && one.locations.iter().all(|one| has_tls(&one.host))
        });
        for one in mains.iter().filter(|one| !draft.redirects && !one.tls_hosts.is_empty()) {
            if one.settings.redirects_to_tls {
                one.whole.differs("sends its hosts to HTTPS, where others are served in the clear; `redirect_https` is one for a listener, and is left out");
            }
        }
        draft.tls.push(("hsts".to_owned(), plain("365d")));
    }
    let sizes: Vec<u64> = mains.iter().map(|one| one.settings.body_bytes).collect();
    let most = if sizes.contains(&0) { 0 } else { sizes.iter().copied().max().unwrap_or(0) };
    let mut limits = Vec::new();
    if most > 0 {
        limits.push(("body".to_owned(), size(most)));
    }
    for one in mains.iter().filter(|one| one.settings.body_bytes != most) {
        one.whole.differs("has a smaller `proxy-body-size` than others; `limits.body` is one for all, the largest");
    }
    let connections = mains.iter().filter_map(|one| one.settings.connections).max();
    if let Some(most) = connections {
        limits.push(("connections_per_source".to_owned(), plain(most.min(1_000_000))));
        for one in mains.iter().filter(|one| one.settings.connections.is_some()) {
            if let Some(field) = one.notes.get("limit-connections") {
                field.differs("counts requests at once; `limits.connections_per_source` counts connections, for all services");
            }
        }
    }
    if !limits.is_empty() {
        draft.top.push(("limits".to_owned(), Yaml::Map(limits)));
    }
}
