//! What is allowed and lets in more than its author may think: `check` warns of it.

use super::fault::{Fault, Place};
use super::listeners;
use super::sticky;
use super::transport::{Listener, ProxyProtocol};
use super::types::Config;
use super::validate::is_bearer;

/// What lets in more than one may think.
#[must_use]
pub fn warnings(config: &Config) -> Vec<Fault> {
    let mut warnings = Vec::new();
    let mut warn = |place: Place, field: String, message: String| {
        warnings.push(Fault { place: Some(place), field, message });
    };
    for (index, listener) in config.listeners.iter().enumerate() {
        if listener.proxy_protocol.0 == Some(ProxyProtocol::Private) {
            let message = "believes whoever connects from a private address; name the balancers: \
                { from: [NETWORK] }";
            let field = format!("listeners[{index}].proxy_protocol");
            warn(listener.place, field, message.into());
        }
    }
    for (index, service) in config.services.iter().enumerate() {
        let open = |at: &usize| leads_on(&config.listeners[*at], config);
        let reached = || listeners::of(service, config).filter(open);
        let asks = |at: &usize| asks_for_certificates(&config.listeners[*at]);
        let way_in = reached().find(|at| !asks(at));
        if service.listeners.is_none()
            && let Some((guarded, way_in)) = reached().find(asks).zip(way_in)
        {
            let address = |at: usize| config.listeners[at].address;
            let message = format!(
                "can be reached at {} without the client certificate that {} asks for; bind it by \
                 `listeners`, to all of them if that is meant",
                address(way_in),
                address(guarded)
            );
            warn(service.place, format!("services[{index}]"), message);
        }
        let Some(given) = &service.sticky else { continue };
        let field = format!("services[{index}].sticky");
        if sticky::lacks_secret(given) {
            let message = "has no secret, so each replica signs by its own; set secret_file where \
                there are several";
            warn(given.place, field, message.into());
        } else if given.cookie.is_some()
            && given.secret.is_none()
            && given.secret_file.is_none()
            && given.salt.as_ref().is_some_and(|salt| !is_bearer(salt))
        {
            let message = "signs by a salt of less than 16 characters, which can be guessed; set \
                secret_file";
            warn(given.place, field, message.into());
        }
    }
    warnings
}

/// Whether requests that come there may reach a service: none does where all are redirected, but for
/// those that a trusted proxy calls secure.
fn leads_on(listener: &Listener, config: &Config) -> bool {
    listener.redirect_https.0.is_none() || !config.trusted_proxies.is_empty()
}

fn asks_for_certificates(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_lets_in_more_than_meant_is_told() {
        let tls = "tls: { certificates: [{ certificate: a, key: b }], client_ca: c }";
        let guarded = format!("{{ address: '0.0.0.0:443', name: m, {tls} }}");
        let open = "{ address: '0.0.0.0:80' }";
        let redirects = "{ address: '0.0.0.0:80', redirect_https: 443 }";
        let balanced = "{ address: '0.0.0.0:80', proxy_protocol: true }";
        let named = "{ address: '0.0.0.0:80', proxy_protocol: { from: 10.0.0.1 } }";
        for (listeners, more, said) in [
            (format!("{guarded}, {open}"), "", "services[0]: can be reached at 0.0.0.0:80"),
            (format!("{guarded}, {open}"), "listeners: [m], ", ""),
            (format!("{guarded}, {open}"), "listeners: [m, '0.0.0.0:80'], ", ""),
            (format!("{guarded}, {redirects}"), "", ""),
            (guarded.clone(), "", ""),
            (open.into(), "", ""),
            (balanced.into(), "", "listeners[0].proxy_protocol: believes"),
            (named.into(), "", ""),
            (open.into(), "sticky: { cookie: s }, ", "services[0].sticky: has no secret"),
            (open.into(), "sticky: { cookie: s, salt: short }, ", "can be guessed"),
            (open.into(), "sticky: { cookie: s, salt: a-salt-of-sixteen }, ", ""),
            (open.into(), "sticky: { cookie: s, secret_file: x }, ", ""),
            (open.into(), "sticky: { header: s }, ", ""),
        ] {
            let text = format!(
                "listeners: [{listeners}]\nservices: [{{ name: a, {more}tracks: {{ stable: {{ \
                 endpoints: ['10.0.0.1:1'] }} }} }}]\n"
            );
            let config = crate::config::parse(Path::new("a"), &text).unwrap();
            let found = warnings(&config);
            let found = found.iter().map(|fault| format!("{}: {}", fault.field, fault.message));
            let found = found.collect::<Vec<_>>().join("\n");
            let is_right = if said.is_empty() { found.is_empty() } else { found.contains(said) };
            assert!(is_right, "{text}{found}");
        }
    }
}
