//! What is forwarded of a head: runs of fields as they came, less what ends here, plus ours.

use std::io::Write;

use super::fields::{self, Field, Known, Version};
use super::request::RequestHead;
use super::response::ResponseHead;

/// Fields that a configuration takes away and adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names that are removed, those that are set anew among them, in lower case.
    pub removed: Vec<Box<str>>,
    /// Field lines that are added, each with its line ending.
    pub lines: Box<[u8]>,
}

impl Edits {
    /// Whether a field of this name does not go on.
    #[must_use]
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// What the request's head gains and loses on its way to the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The peer's address as text.
    pub peer: &'a str,
    /// The peer is a trusted proxy: its X-Forwarded-* are kept and extended.
    pub trusted: bool,
    /// The scheme the peer used: `http` or `https`.
    pub scheme: &'a str,
    /// The subject of the client's certificate, if it showed one.
    pub subject: Option<&'a str>,
    /// The pseudonym to add to Via, if any.
    pub via: Option<&'a str>,
    /// The switch of protocols is passed on.
    pub upgrade: bool,
    /// Path and query that replace the client's.
    pub target: Option<&'a [u8]>,
    /// What the service and the rule change.
    pub edits: &'a [&'a Edits],
    /// Field lines made for this request, each with its line ending.
    pub made: &'a [u8],
}

/// What the response's head gains and loses on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct Returning<'a> {
    /// The client's protocol version.
    pub version: Version,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The switch of protocols is passed on.
    pub upgrade: bool,
    /// The chunked coding is taken off, because the client cannot read it.
    pub unchunk: bool,
    /// A `Set-Cookie` value to add.
    pub cookie: Option<&'a str>,
    /// What the service and the rule change.
    pub edits: &'a [&'a Edits],
    /// Further field lines, each with its line ending.
    pub added: &'a [u8],
    /// The pseudonym to add to Via, if any.
    pub via: Option<&'a str>,
}

/// Appends the head that the upstream gets to `out`.
pub fn request(out: &mut Vec<u8>, head: &RequestHead<'_>, forwarding: &Forwarding<'_>) {
    out.reserve(head.bytes.len() + 192);
    out.extend_from_slice(head.method);
    out.push(b' ');
    out.extend_from_slice(forwarding.target.unwrap_or(head.path_and_query));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let edits = forwarding.edits;
    if edits.iter().any(|edits| edits.removes(b"host")) {
        // Its line is among those added.
    } else if let Some(authority) = head.authority {
        line(out, b"host", authority);
    } else if head.facts.host.is_none() {
        line(out, b"host", b"");
    }
    let nominates = head.facts.nominates;
    let runs = Runs { bytes: head.bytes, fields: head.fields, nominates, edits };
    runs.copy(out, head.fields_start, |known| match known {
        Known::Host => head.authority.is_some(),
        Known::Upgrade => !forwarding.upgrade,
        Known::Forwarded | Known::XForwardedProto | Known::XForwardedHost => !forwarding.trusted,
        Known::XForwardedFor
        | Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Te
        | Known::Http2Settings
        | Known::XClientCertificateSubject => true,
        _ => false,
    });
    match (forwarding.upgrade, head.facts.te_trailers) {
        (true, _) => out.extend_from_slice(b"connection: upgrade\r\n"),
        (false, true) => out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n"),
        (false, false) => {}
    }
    forwarded(out, head, forwarding);
    if let Some(subject) = forwarding.subject {
        line(out, b"x-client-certificate-subject", subject.as_bytes());
    }
    if let Some(via) = forwarding.via {
        via_line(out, head.version, via);
    }
    for edits in edits {
        out.extend_from_slice(&edits.lines);
    }
    out.extend_from_slice(forwarding.made);
    out.extend_from_slice(b"\r\n");
}

fn forwarded(out: &mut Vec<u8>, head: &RequestHead<'_>, forwarding: &Forwarding<'_>) {
    out.extend_from_slice(b"x-forwarded-for: ");
    if forwarding.trusted {
        for value in head.values(Known::XForwardedFor) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(forwarding.peer.as_bytes());
    out.extend_from_slice(b"\r\n");
    let kept = |known| forwarding.trusted && head.values(known).next().is_some();
    if !kept(Known::XForwardedProto) {
        line(out, b"x-forwarded-proto", forwarding.scheme.as_bytes());
    }
    if !kept(Known::XForwardedHost) {
        line(out, b"x-forwarded-host", head.host());
    }
}

/// Appends the head that the client gets to `out`.
pub fn response(out: &mut Vec<u8>, head: &ResponseHead<'_>, returning: &Returning<'_>) {
    out.reserve(head.bytes.len() + 64);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&head.bytes[9..head.fields_start]);
    let bodiless = head.is_bodiless();
    let (nominates, edits) = (head.facts.nominates, returning.edits);
    let runs = Runs { bytes: head.bytes, fields: head.fields, nominates, edits };
    runs.copy(out, head.fields_start, |known| match known {
        Known::Connection | Known::KeepAlive | Known::ProxyConnection => true,
        Known::Upgrade => !returning.upgrade,
        Known::TransferEncoding => returning.unchunk || bodiless,
        _ => false,
    });
    if returning.upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
    } else if !returning.keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if returning.version == Version::Http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if let Some(cookie) = returning.cookie {
        line(out, b"set-cookie", cookie.as_bytes());
    }
    for edits in edits {
        out.extend_from_slice(&edits.lines);
    }
    out.extend_from_slice(returning.added);
    if let Some(via) = returning.via {
        via_line(out, head.version, via);
    }
    out.extend_from_slice(b"\r\n");
}

/// The field lines of a head, to be copied in runs.
struct Runs<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
    nominates: bool,
    edits: &'a [&'a Edits],
}

impl Runs<'_> {
    /// Copies every field but those that `removed` names and those that Connection nominates.
    fn copy(&self, out: &mut Vec<u8>, start: usize, removed: impl Fn(Known) -> bool) {
        let mut run_start = start;
        for field in self.fields {
            let nominated = self.nominates && self.is_nominated(*field);
            let edited = || {
                let name = field.name(self.bytes);
                self.edits.iter().any(|edits| edits.removes(name))
            };
            if nominated || (field.known != Known::Other && removed(field.known)) || edited() {
                out.extend_from_slice(&self.bytes[run_start..field.start()]);
                run_start = field.end();
            }
        }
        // The final empty line is written by the caller, behind what it adds.
        out.extend_from_slice(&self.bytes[run_start..self.bytes.len() - 2]);
    }

    /// Whether a Connection field names this one as hop-by-hop.
    ///
    /// What carries framing, routing or the client's address is kept all the same: nominating it
    /// is an attack on the next hop, never a wish of it.
    fn is_nominated(&self, field: Field) -> bool {
        let kept = !matches!(field.known, Known::Other | Known::Cookie | Known::Expect);
        let name = field.name(self.bytes);
        !kept
            && self.fields.iter().filter(|field| field.known == Known::Connection).any(|field| {
                fields::members(field.value(self.bytes))
                    .any(|member| member.eq_ignore_ascii_case(name))
            })
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn via_line(out: &mut Vec<u8>, version: Version, pseudonym: &str) {
    let version = if version == Version::Http10 { "1.0" } else { "1.1" };
    write!(out, "via: {version} {pseudonym}\r\n").expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    fn forward(head: &str, trusted: bool) -> String {
        let mut fields = Vec::new();
        let head = RequestHead::parse(head.as_bytes(), Limits::default(), &mut fields);
        let head = head.unwrap().unwrap();
        let mut out = Vec::new();
        let upgrade = head.wants_upgrade();
        let forwarding = Forwarding {
            peer: "192.0.2.1",
            trusted,
            scheme: "http",
            subject: None,
            via: None,
            upgrade,
            target: None,
            edits: &[],
            made: b"",
        };
        request(&mut out, &head, &forwarding);
        String::from_utf8(out).unwrap()
    }

    const OURS: &str =
        "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a\r\n\r\n";

    #[test]
    fn hop_by_hop_fields_end_here() {
        let head = "GET /p?q HTTP/1.1\r\nHost: a\r\nKeep-Alive: 1\r\nX-One: 1\r\n\
            Proxy-Connection: x\r\nConnection: close, X-Two\r\nx-two: 2\r\nTE: gzip\r\n\
            Upgrade: h2c\r\nHTTP2-Settings: x\r\nX-Three: 3\r\n\r\n";
        let expected = format!("GET /p?q HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-Three: 3\r\n{OURS}");
        assert_eq!(forward(head, false), expected);
    }

    #[test]
    fn fields_that_carry_meaning_cannot_be_nominated_away() {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\
            connection: host, content-length, x-forwarded-for\r\n\r\n";
        let expected = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n{OURS}");
        assert_eq!(forward(head, false), expected);
    }

    #[test]
    fn forwarded_fields_are_believed_from_trusted_peers_only() {
        let head = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.1.1.1\r\n\
            x-forwarded-for: 2.2.2.2\r\nx-forwarded-proto: https\r\nforwarded: for=1\r\n\r\n";
        assert_eq!(forward(head, false), format!("GET / HTTP/1.1\r\nhost: a\r\n{OURS}"));
        assert_eq!(
            forward(head, true),
            "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: https\r\nforwarded: for=1\r\n\
             x-forwarded-for: 1.1.1.1, 2.2.2.2, 192.0.2.1\r\nx-forwarded-host: a\r\n\r\n"
        );
    }

    #[test]
    fn an_absolute_target_becomes_path_and_host() {
        let head = "GET http://b:1/x HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n";
        assert!(forward(head, false).starts_with("GET /x HTTP/1.1\r\nhost: b:1\r\nx: 1\r\n"));
        assert!(
            forward("GET /x HTTP/1.0\r\n\r\n", false).starts_with("GET /x HTTP/1.1\r\nhost: \r\n")
        );
    }

    #[test]
    fn an_upgrade_is_passed_on() {
        let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
            upgrade: websocket\r\n\r\n";
        let expected = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n{OURS}"
        );
        assert_eq!(forward(head, false), expected);
    }

    #[test]
    fn a_response_loses_its_hop_and_gains_ours() {
        let mut fields = Vec::new();
        let bytes = b"HTTP/1.0 200 Fine\r\nConnection: close, x-a\r\nx-a: 1\r\nx-b: 2\r\n\r\n";
        let head = ResponseHead::parse(bytes, Limits::default(), &mut fields).unwrap().unwrap();
        let mut out = Vec::new();
        let returning = Returning {
            version: Version::Http11,
            keep_alive: true,
            upgrade: false,
            unchunk: false,
            cookie: Some("k=1"),
            edits: &[],
            added: b"x-c: 3\r\n",
            via: Some("gw"),
        };
        response(&mut out, &head, &returning);
        let expected =
            "HTTP/1.1 200 Fine\r\nx-b: 2\r\nset-cookie: k=1\r\nx-c: 3\r\nvia: 1.0 gw\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn edits_remove_and_add_on_either_way() {
        let edits = Edits {
            removed: vec!["x-secret".into(), "host".into()],
            lines: (*b"host: inner\r\nx-new: 1\r\n").into(),
        };
        let bytes = b"GET http://b/p?q HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\nx: y\r\n\r\n";
        let mut fields = Vec::new();
        let head = RequestHead::parse(bytes, Limits::default(), &mut fields).unwrap().unwrap();
        let mut out = Vec::new();
        let forwarding = Forwarding {
            peer: "192.0.2.1",
            trusted: false,
            scheme: "http",
            subject: None,
            via: None,
            upgrade: false,
            target: Some(b"/new?q"),
            edits: &[&edits],
            made: b"x-made: 2\r\n",
        };
        request(&mut out, &head, &forwarding);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /new?q HTTP/1.1\r\nx: y\r\nx-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: \
             http\r\nx-forwarded-host: b\r\nhost: inner\r\nx-new: 1\r\nx-made: 2\r\n\r\n"
        );
    }
}
