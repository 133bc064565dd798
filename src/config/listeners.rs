//! Listeners: what is bound since the start, how each treats its clients, and which services answer
//! on it.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::route::Table;
use crate::state::ListenerPolicy;
use crate::tls::ServerTls;

use super::fault::Place;
use super::material::Material;
use super::section::Reader;
use super::transport::{Listener, ProxyProtocol};
use super::types::{Config, Service};
use super::validate::host_name;
use super::values::At;

/// What is listened on since the start. Addresses are read then only: one that is new waits for the
/// next start, one that has gone is served as before.
#[derive(Debug, Default)]
pub struct Bound(Vec<One>);

#[derive(Debug)]
struct One {
    /// The address in the file.
    address: SocketAddr,
    /// Its place in the file at present, if it has one.
    place: Option<usize>,
    policy: Arc<ListenerPolicy>,
}

impl Bound {
    /// Takes over what `config` says of each listener.
    pub(super) fn follow(&mut self, config: &Config, material: &Material) {
        if self.0.is_empty() {
            let one = |listener: &At<Listener>| One {
                address: listener.address,
                place: None,
                policy: Arc::default(),
            };
            self.0 = config.listeners.iter().map(one).collect();
        }
        let mut left: Vec<usize> = (0..config.listeners.len()).collect();
        for (number, one) in self.0.iter_mut().enumerate() {
            // Port 0 may be there more than once; each takes the next.
            let found = left.iter().position(|at| config.listeners[*at].address == one.address);
            one.place = found.map(|found| left.remove(found));
            if let Some(at) = one.place {
                let tls = material.listeners.get(at).and_then(Option::as_ref);
                one.policy = Arc::new(policy(number, (&config.listeners[at], config), tls));
            }
        }
    }

    /// How each treats its clients.
    pub(super) fn policies(&self) -> Vec<Arc<ListenerPolicy>> {
        self.0.iter().map(|one| Arc::clone(&one.policy)).collect()
    }

    /// Which services answer on each. Those that lead to the same ones share a table.
    pub(super) fn tables(&self, config: &Config) -> Vec<Arc<Table>> {
        let mut made: Vec<(Vec<usize>, Arc<Table>)> = Vec::new();
        let mut table_of = |one: &One| {
            let answers = |service: &Service| match one.place {
                Some(at) => of(service, config).any(|bound| bound == at),
                // One that the file no longer has leads to what is bound to none.
                None => service.listeners.is_none(),
            };
            let services = config.services.iter().enumerate();
            let services = services.filter(|(_, service)| answers(service));
            let services: Vec<usize> = services.map(|(index, _)| index).collect();
            if let Some((_, table)) = made.iter().find(|(same, _)| *same == services) {
                return Arc::clone(table);
            }
            let fresh = Arc::new(table(config, &services));
            made.push((services, Arc::clone(&fresh)));
            fresh
        };
        self.0.iter().map(&mut table_of).collect()
    }
}

fn table(config: &Config, services: &[usize]) -> Table {
    let mut table = Table::default();
    for &index in services {
        let service = &config.services[index];
        for path in &service.paths {
            if service.hosts.is_empty() {
                table.insert(None, path, index);
            }
            for host in &service.hosts {
                table.insert(Some(&host_name(host)), path, index);
            }
        }
    }
    table
}

/// Where no stranger of the internet is: loopback, private, shared and link-local addresses
/// (RFC 1918, 3927, 4193, 6598).
const PRIVATE: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// The networks of those who send PROXY headers.
fn balancers(given: &ProxyProtocol, config: &Config) -> Box<[IpNet]> {
    match given {
        ProxyProtocol::From(from) => from.as_slice().into(),
        ProxyProtocol::Private => {
            let private = PRIVATE.iter().filter_map(|net| net.parse().ok());
            private.chain(config.trusted_proxies.iter().copied()).collect()
        }
    }
}

fn policy(
    number: usize,
    (listener, config): (&Listener, &Config),
    tls: Option<&Arc<ServerTls>>,
) -> ListenerPolicy {
    let hsts = listener.tls.as_ref().and_then(|tls| tls.hsts.0);
    let hsts = hsts.map(|age| {
        format!("strict-transport-security: max-age={}\r\n", age.0.as_secs()).into_bytes()
    });
    ListenerPolicy {
        number,
        tls: tls.cloned(),
        http2: listener.http2,
        redirect_https: listener.redirect_https.0.and_then(|port| u16::try_from(port.0).ok()),
        hsts: hsts.map(Into::into),
        balancers: listener.proxy_protocol.0.as_ref().map(|given| balancers(given, config)),
    }
}

/// The listeners that lead to `service`, by their places in the file.
pub(super) fn of<'c>(
    service: &'c Service,
    config: &'c Config,
) -> impl Iterator<Item = usize> + Clone + 'c {
    let leads = |listener: &Listener| match &service.listeners {
        None => true,
        Some(bound) => bound.iter().any(|text| is_called(listener, text)),
    };
    let listeners = config.listeners.iter().enumerate();
    listeners.filter(move |(_, listener)| leads(listener)).map(|(index, _)| index)
}

/// Whether `text` is the listener's name or address.
fn is_called(listener: &Listener, text: &str) -> bool {
    listener.name.as_ref().is_some_and(|name| name.value == text)
        || text.parse::<SocketAddr>().is_ok_and(|address| address == listener.address)
}

pub(super) fn validate(config: &Config, check: &mut Reader) {
    check.below("listeners", |check| {
        if config.listeners.is_empty() {
            check.fault(Place { line: 1, column: 1 }, "is empty; name at least one address");
        }
        for (index, listener) in config.listeners.iter().enumerate() {
            check.below_index(index, |check| one(listener, &config.listeners[..index], check));
            let address = listener.address;
            if address.port() != 0 && config.admin.address.value == address {
                check.below_index(index, |check| check.fault(listener.place, twice(address)));
            }
        }
    });
}

fn twice(address: SocketAddr) -> String {
    format!("{address} is listened on twice; take another port")
}

fn one(listener: &At<Listener>, before: &[At<Listener>], check: &mut Reader) {
    let address = listener.address;
    // Port 0 is a fresh port each time, so two of them are no double.
    if address.port() != 0 && before.iter().any(|other| other.address == address) {
        check.fault(listener.place, twice(address));
    }
    if let Some(name) = &listener.name {
        check.below("name", |check| {
            super::validate::name(name, check);
            let has_it = |other: &At<Listener>| {
                other.name.as_ref().is_some_and(|other| other.value == name.value)
            };
            if before.iter().any(has_it) {
                let message = format!("`{}` is the name of another listener too", name.value);
                check.fault(name.place, message + "; names are unique");
            }
        });
    }
    tls(listener, check);
}

fn tls(listener: &At<Listener>, check: &mut Reader) {
    let Some(tls) = &listener.tls else { return };
    if listener.redirect_https.0.is_some() {
        let message = "has TLS already; set redirect_https on the listener in the clear";
        check.fault(listener.place, message);
    }
    if tls.certificates.is_empty() {
        let message = "is empty; name at least one certificate and its key";
        check.below("tls", |check| {
            check.below("certificates", |check| check.fault(tls.certificates.place, message));
        });
    }
}

/// What a service is bound to is there, and is one listener.
pub(super) fn check_bound(service: &Service, config: &Config, check: &mut Reader) {
    let Some(bound) = &service.listeners else { return };
    check.below("listeners", |check| {
        if bound.is_empty() {
            let message = "is empty, so that nobody could reach the service; name a listener, or \
                omit it for all of them";
            check.fault(bound.place, message);
        }
        for (index, text) in bound.iter().enumerate() {
            let called = config.listeners.iter().filter(|listener| is_called(listener, text));
            let message = match called.count() {
                1 => continue,
                0 => format!("`{}` is no listener; known: {}", text.value, known(config)),
                _ => format!("`{}` is more than one listener; give them names", text.value),
            };
            check.below_index(index, |check| check.fault(text.place, message));
        }
    });
}

fn known(config: &Config) -> String {
    let name = |listener: &At<Listener>| match &listener.name {
        Some(name) => name.value.clone(),
        None => listener.address.to_string(),
    };
    config.listeners.iter().map(name).collect::<Vec<_>>().join(", ")
}
