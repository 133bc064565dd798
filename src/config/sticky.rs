//! Sticky users: the section, and which secrets sign their cookies.

use std::fmt::Write;

use aws_lc_rs::hmac;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::route::seal::{SECRETS_MAX, Seal};
use crate::route::{Sticky as Compiled, StickyKey, sticky};

use super::compile::Registry;
use super::material::Material;
use super::section::{Reader, section};
use super::types::{Config, Service};
use super::validate::{NO_TOKEN, is_bearer, token};
use super::values::{At, Span};

section! {
    /// How users keep their track: exactly one of header and cookie.
    pub struct Sticky {
        /// The header field that carries the user's key.
        pub header: Option<At<String>> = or(None),
        /// The cookie that carries a random key, signed; it is set when absent or signed by others.
        pub cookie: Option<At<String>> = or(None),
        /// How long the cookie lasts. Omitted: the browser's session.
        pub max_age: Option<Span> = or(None),
        /// Seed of the draw. Where there is no `secret`, cookies are signed by it, so keep it secret.
        pub salt: Option<String> = or(None),
        /// Signs cookies, and makes the draw by a header unforeseeable. The same at every replica.
        /// Omitted: the salt signs; without one the gateway's own secret, which no replica shares.
        pub secret: Option<At<String>> = or(None),
        /// Or a file with it. Of several lines the first signs and all are believed, so that a secret
        /// can be replaced.
        pub secret_file: Option<At<String>> = or(None),
    }
}

pub(super) fn validate(sticky: &At<Sticky>, check: &mut Reader) {
    match (&sticky.header, &sticky.cookie) {
        (Some(name), None) => {
            check.below("header", |check| token(name, check));
            if sticky.max_age.is_some() {
                check.fault(sticky.place, "`max_age` belongs to a cookie; remove it");
            }
        }
        (None, Some(name)) => check.below("cookie", |check| token(name, check)),
        _ => check.fault(sticky.place, "needs exactly one of `header` and `cookie`"),
    }
    if let Some(secret) = &sticky.secret {
        if !is_bearer(secret) {
            let message = NO_TOKEN.replace("token", "secret");
            check.below("secret", |check| check.fault(secret.place, message));
        }
        if sticky.secret_file.is_some() {
            check.fault(sticky.place, "has `secret` and `secret_file`; remove one of them");
        }
    }
}

/// A secret that nobody else has: 256 bits, as many as HMAC-SHA-256 makes use of.
///
/// # Panics
/// When the system gives no randomness, which leaves nothing safe to do.
#[must_use]
pub fn fresh_secret() -> Box<[u8]> {
    let mut secret = String::new();
    for _ in 0..4 {
        let bits = SysRng.try_next_u64().expect("the system gives randomness");
        // A String takes every write.
        let _ = write!(secret, "{bits:016x}");
    }
    secret.into_bytes().into()
}

/// The secrets in a file's text.
///
/// # Errors
/// What is wrong with them.
pub(super) fn secrets(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<String> = lines.map(str::to_owned).collect();
    if secrets.is_empty() || !secrets.iter().all(|secret| is_bearer(secret)) {
        return Err(format!("{}, one a line", NO_TOKEN.replace("token", "secret")));
    }
    if secrets.len() > SECRETS_MAX {
        return Err(format!("has more than {SECRETS_MAX} secrets; remove the oldest"));
    }
    Ok(secrets)
}

/// Whether the gateway's own secret signs its cookies.
pub(super) fn lacks_secret(sticky: &Sticky) -> bool {
    let has_secret = sticky.secret.is_some() || sticky.secret_file.is_some();
    sticky.cookie.is_some() && sticky.salt.is_none() && !has_secret
}

/// Whether the gateway's own secret signs anything.
#[must_use]
pub fn needs_own_secret(config: &Config) -> bool {
    let lacks =
        |service: &At<Service>| service.sticky.as_ref().is_some_and(|one| lacks_secret(one));
    config.services.iter().any(lacks)
}

/// What signs for a service, the first; the others are believed.
fn secrets_of<'a>(
    service: &'a Service,
    sticky: &'a Sticky,
    (material, own): (&'a Material, &'a [u8]),
) -> Vec<&'a [u8]> {
    let in_file = material.secrets.get(&service.name.value);
    match (&sticky.secret, in_file, &sticky.salt) {
        (Some(secret), _, _) => vec![secret.as_bytes()],
        (None, Some(secrets), _) => secrets.iter().map(String::as_bytes).collect(),
        (None, None, Some(salt)) => vec![salt.as_bytes()],
        (None, None, None) => vec![own],
    }
}

/// How a service's users keep their track, if they do.
pub(super) fn of(
    service: &Service,
    config: &Config,
    (material, registry): (&Material, &mut Registry),
) -> Option<Compiled> {
    let given = service.sticky.as_ref()?;
    // Made here only where nobody has given one that is kept: a secret that nothing needs is none.
    let own = if needs_own_secret(config) { registry.own_secret(fresh_secret) } else { &[] };
    Some(compile((service, given), config, (material, own)))
}

fn compile(
    (service, sticky): (&Service, &Sticky),
    config: &Config,
    from: (&Material, &[u8]),
) -> Compiled {
    let version =
        service.tracks.get("canary").and_then(|canary| canary.version.as_deref()).unwrap_or("");
    let text = sticky.salt.as_deref().unwrap_or(&service.name);
    let salt = sticky::salt(text, version);
    if let Some(header) = &sticky.header {
        let is_secret = sticky.secret.is_some() || sticky.secret_file.is_some();
        let secret = secrets_of(service, sticky, from).into_iter().next().filter(|_| is_secret);
        let secret = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret));
        return Compiled {
            key: StickyKey::Header(header.to_ascii_lowercase().into()),
            salt,
            secret,
        };
    }
    let name = sticky.cookie.as_ref().expect("validated to have a key");
    // Services of one host share its cookies: each must believe what another has set, or they would
    // replace each other's for ever.
    let same = config.services.iter().filter_map(|other| {
        let one = other.sticky.as_ref()?;
        let is_same = one.cookie.as_ref().is_some_and(|cookie| cookie.value == name.value);
        is_same.then(|| secrets_of(other, one, from))
    });
    let own = secrets_of(service, sticky, from);
    let key = StickyKey::Cookie {
        name: name.as_str().into(),
        max_age_s: sticky.max_age.map(|age| age.0.as_secs()),
        seal: Seal::new(own.into_iter().chain(same.flatten())),
    };
    Compiled { key, salt, secret: None }
}
