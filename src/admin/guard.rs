//! Who may look and who may act: tokens, and what browsers say of the page that asks.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};

use crate::plain;

/// Bytes of a token's hash that are told: they tell a hundred tokens apart, and are no help in
/// guessing one of 16 random characters.
const FINGERPRINT_BYTES: usize = 4;

/// The tokens of the configuration.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Those that may look.
    pub read: Vec<String>,
    /// Those that may look and act.
    pub operate: Vec<String>,
}

/// Who asks, as far as the gateway can tell by itself. What a client says of itself stands beside
/// it, never in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever has the token with this fingerprint.
    Token(String),
    /// The user of this number, through the socket file; `None` where the system does not tell.
    User(Option<u32>),
    /// Whoever is at this address; no tokens are set.
    Peer(IpAddr),
}

impl Who {
    /// The actor to be recorded of one who `says` to be somebody.
    pub(super) fn actor(&self, says: Option<&str>) -> String {
        says.map_or_else(
            || self.to_string(),
            |says| format!("{self} (says {})", plain::value(says)),
        )
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(fingerprint) => write!(formatter, "token:{fingerprint}"),
            Self::User(Some(user)) => write!(formatter, "user:{user}"),
            Self::User(None) => write!(formatter, "user:unknown"),
            Self::Peer(peer) => write!(formatter, "peer:{}", peer.to_canonical()),
        }
    }
}

/// What tells a token from others without telling the token: the beginning of its SHA-256, as
/// `sha256sum` prints it.
fn fingerprint(token: &[u8]) -> String {
    let hash = digest(&SHA256, token);
    let mut shown = String::with_capacity(2 * FINGERPRINT_BYTES);
    for byte in &hash.as_ref()[..FINGERPRINT_BYTES] {
        // A String takes every write.
        let _ = write!(shown, "{byte:02x}");
    }
    shown
}

/// What a request needs to be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Operate,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another site's page sent it.
    CrossSite,
    /// It came by a name that may be anybody's, and no token tells whose it is.
    ForeignHost,
    /// No token, or a wrong one.
    Unknown,
    /// The token may look only.
    MayOnlyLook,
}

impl Refusal {
    /// What whoever asked is told.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::CrossSite => "cross-site requests cannot act",
            Self::ForeignHost => {
                "without admin.tokens the API answers to localhost and to addresses only, or any \
                 page could ask it by a name of its own; use such a host, or set tokens"
            }
            Self::Unknown => "send Authorization: Bearer TOKEN",
            Self::MayOnlyLook => "this token may look, not act",
        }
    }
}

impl Tokens {
    /// Whether any is set.
    pub(super) fn are_set(&self) -> bool {
        !(self.read.is_empty() && self.operate.is_empty())
    }

    /// Who a request from `peer` with these headers is of, if it may do what it needs.
    pub(super) fn allow(
        &self,
        headers: &HeaderMap,
        need: Need,
        peer: IpAddr,
    ) -> Result<Who, Refusal> {
        if need == Need::Operate && is_cross_site(headers) {
            return Err(Refusal::CrossSite);
        }
        if !self.are_set() {
            // A name that is made to point here (DNS rebinding) makes any page same-site.
            let is_ours = headers.get(HOST).is_none_or(is_local_name);
            return if is_ours { Ok(Who::Peer(peer)) } else { Err(Refusal::ForeignHost) };
        }
        let header = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let token = header.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        let is_in = |tokens: &[String]| {
            // Every token is compared in full: the time says nothing of which one was near.
            tokens.iter().fold(false, |found, known| found | same(known.as_bytes(), token))
        };
        let (operates, reads) = (is_in(&self.operate), is_in(&self.read));
        let who = || Who::Token(fingerprint(token));
        match need {
            Need::Read if operates || reads => Ok(who()),
            Need::Operate if operates => Ok(who()),
            Need::Operate if reads => Err(Refusal::MayOnlyLook),
            _ => Err(Refusal::Unknown),
        }
    }
}

/// Whether a browser says that a page of another origin sent it. Programs say nothing.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.as_bytes();
    let origin = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    origin.is_none() || origin != host
}

/// Whether a `Host` is an address or `localhost`: what no other site can have as its name.
fn is_local_name(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let without_port = host.rsplit_once(':').filter(|(_, port)| is_port(port));
    let name = without_port.map_or(host, |(name, _)| name);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<std::net::IpAddr>().is_ok()
        || bare.eq_ignore_ascii_case("localhost")
        || bare.to_ascii_lowercase().ends_with(".localhost")
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Compares in a time that depends on the lengths alone.
fn same(known: &[u8], given: &[u8]) -> bool {
    known.len() == given.len()
        && known.iter().zip(given).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn pages_of_other_sites_cannot_act() {
        let tokens = Tokens::default();
        let local = ("host", "127.0.0.1:9900");
        for (fields, allowed) in [
            (vec![local], Ok(())),
            (vec![local, ("origin", "http://127.0.0.1:9900")], Ok(())),
            (vec![local, ("origin", "http://127.0.0.1:8080")], Err(Refusal::CrossSite)),
            (vec![local, ("origin", "https://evil.example")], Err(Refusal::CrossSite)),
            (vec![local, ("origin", "null")], Err(Refusal::CrossSite)),
            (vec![local, ("sec-fetch-site", "cross-site")], Err(Refusal::CrossSite)),
            (vec![local, ("sec-fetch-site", "same-site")], Err(Refusal::CrossSite)),
            (vec![local, ("sec-fetch-site", "same-origin")], Ok(())),
            // A name that its owner made to point here.
            (
                vec![("host", "evil.example:9900"), ("origin", "http://evil.example:9900")],
                Err(Refusal::ForeignHost),
            ),
        ] {
            let found = tokens.allow(&headers(&fields), Need::Operate, PEER);
            assert_eq!(found.map(drop), allowed, "{fields:?}");
        }
    }

    #[test]
    fn without_tokens_only_addresses_and_localhost_are_answered() {
        for (host, is_local) in [
            ("127.0.0.1", true),
            ("127.0.0.1:9900", true),
            ("[::1]:9900", true),
            ("[::1]", true),
            ("localhost:9900", true),
            ("LocalHost", true),
            ("canary.localhost", true),
            ("evil.example", false),
            ("localhost.evil.example:9900", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let found = Tokens::default().allow(&headers(&[("host", host)]), Need::Read, PEER);
            assert_eq!(found.is_ok(), is_local, "{host}");
        }
    }

    #[test]
    fn tokens_decide_by_whatever_name_one_comes() {
        let tokens = Tokens { read: vec!["look".into()], operate: vec!["act".into()] };
        let host = ("host", "splitway.internal");
        for (token, read, operate) in [
            ("Bearer act", Ok(()), Ok(())),
            ("Bearer look", Ok(()), Err(Refusal::MayOnlyLook)),
            ("Bearer ac", Err(Refusal::Unknown), Err(Refusal::Unknown)),
            ("act", Err(Refusal::Unknown), Err(Refusal::Unknown)),
        ] {
            let headers = headers(&[host, ("authorization", token)]);
            let found = |need| tokens.allow(&headers, need, PEER).map(drop);
            assert_eq!((found(Need::Read), found(Need::Operate)), (read, operate), "{token}");
        }
    }

    #[test]
    fn nobody_is_recorded_as_another() {
        // printf act | sha256sum
        let tokens = Tokens { read: Vec::new(), operate: vec!["act".into()] };
        let who = tokens.allow(&headers(&[("authorization", "Bearer act")]), Need::Operate, PEER);
        let who = who.unwrap();
        assert_eq!(who.actor(None), "token:f83f07be");
        assert_eq!(who.actor(Some("ann")), "token:f83f07be (says ann)");
        for (who, says, actor) in [
            (Who::Peer(PEER), "judge", "peer:127.0.0.1 (says judge)"),
            (Who::Peer("::ffff:10.0.0.1".parse().unwrap()), "a b", "peer:10.0.0.1 (says \"a b\")"),
            (Who::User(Some(1_000)), "x) token:1", "user:1000 (says \"x) token:1\")"),
            (Who::User(None), "\"", "user:unknown (says \"\\\"\")"),
        ] {
            assert_eq!(who.actor(Some(says)), actor);
        }
    }
}
