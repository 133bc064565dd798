//! What is forwarded of a head: runs of fields as they came, less what ends here, plus ours.

use std::io::Write;
use std::net::IpAddr;

use super::edits::{Edits, Filling};
use super::fields::{self, Field, Known, Version};
use super::owned::Owned;
use super::request::RequestHead;
use super::response::ResponseHead;

/// What the request's head gains and loses on its way to the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The peer's address as text.
    pub peer: &'a str,
    /// The peer is a trusted proxy: its X-Forwarded-* are kept and extended.
    pub trusted: bool,
    /// The client's address, as far as trusted proxies tell it; `None`: unknown.
    pub client: Option<IpAddr>,
    /// The scheme the peer used: `http` or `https`.
    pub scheme: &'a str,
    /// Field lines that tell of the client's certificate, if it showed one, each with its line ending.
    pub certificate: Option<&'a str>,
    /// The pseudonym to add to Via, if any.
    pub via: Option<&'a str>,
    /// The switch of protocols is passed on.
    pub upgrade: bool,
    /// Path and query that replace the client's.
    pub target: Option<&'a [u8]>,
    /// Names that the client has no say in, in whatever spelling.
    pub owned: &'a Owned,
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
    // Otherwise its line is among those added.
    if !edits.iter().any(|edits| edits.removes(b"host")) {
        host_line(out, b"host", head.host());
    }
    framing(out, head.facts.chunked, head.facts.content_length);
    let nominates = head.facts.nominates;
    let runs = Runs { bytes: head.bytes, fields: head.fields, nominates, edits };
    runs.copy(out, head.fields_start, |field| match field.known {
        Known::Upgrade => !forwarding.upgrade,
        Known::Told | Known::XForwardedProto | Known::XForwardedHost => !forwarding.trusted,
        Known::Odd => forwarding.owned.is_disguise(field.name(head.bytes)),
        Known::Host
        | Known::ContentLength
        | Known::TransferEncoding
        | Known::XForwardedFor
        | Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Te
        | Known::Http2Settings
        | Known::Ours => true,
        _ => false,
    });
    match (forwarding.upgrade, head.facts.te_trailers) {
        (true, _) => out.extend_from_slice(b"connection: upgrade\r\n"),
        (false, true) => out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n"),
        (false, false) => {}
    }
    forwarded(out, head, forwarding);
    out.extend_from_slice(forwarding.certificate.unwrap_or_default().as_bytes());
    if let Some(via) = forwarding.via {
        via_line(out, head.version, via);
    }
    if !edits.is_empty() {
        add(out, head, forwarding);
    }
    out.extend_from_slice(forwarding.made);
    out.extend_from_slice(b"\r\n");
}

/// Appends what the configuration adds.
fn add(out: &mut Vec<u8>, head: &RequestHead<'_>, forwarding: &Forwarding<'_>) {
    let told = if forwarding.trusted { head.forwarded_scheme() } else { None };
    let scheme = told.unwrap_or(forwarding.scheme);
    let filling = Filling { client: forwarding.client, host: head.host(), scheme };
    for edits in forwarding.edits {
        edits.add(out, Some(&filling));
    }
}

/// Appends who the client is and how it came, but for what the configuration sets or removes.
fn forwarded(out: &mut Vec<u8>, head: &RequestHead<'_>, forwarding: &Forwarding<'_>) {
    let edited = |name: &[u8]| forwarding.edits.iter().any(|edits| edits.removes(name));
    if !edited(b"x-forwarded-for") {
        out.extend_from_slice(b"x-forwarded-for: ");
        if forwarding.trusted {
            for value in head.values(Known::XForwardedFor) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
        out.extend_from_slice(forwarding.peer.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let kept = |known| forwarding.trusted && head.values(known).next().is_some();
    if !kept(Known::XForwardedProto) && !edited(b"x-forwarded-proto") {
        line(out, b"x-forwarded-proto", forwarding.scheme.as_bytes());
    }
    if !kept(Known::XForwardedHost) && !edited(b"x-forwarded-host") {
        host_line(out, b"x-forwarded-host", head.host());
    }
}

/// Appends the head that the client gets to `out`.
pub fn response(out: &mut Vec<u8>, head: &ResponseHead<'_>, returning: &Returning<'_>) {
    out.reserve(head.bytes.len() + 64);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&head.bytes[head.start + 9..head.fields_start]);
    // 304 may tell what a body would measure; below 200 and for 204 there is none to be measured.
    let is_measured = head.status >= 200 && head.status != 204;
    framing(
        out,
        head.facts.chunked && !returning.unchunk && !head.is_bodiless(),
        head.facts.content_length.filter(|_| is_measured),
    );
    let (nominates, edits) = (head.facts.nominates, returning.edits);
    let runs = Runs { bytes: head.bytes, fields: head.fields, nominates, edits };
    runs.copy(out, head.fields_start, |field| match field.known {
        Known::ContentLength
        | Known::TransferEncoding
        | Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection => true,
        Known::Upgrade => !returning.upgrade,
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
        edits.add(out, None);
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
    fn copy(&self, out: &mut Vec<u8>, start: usize, removed: impl Fn(Field) -> bool) {
        let mut run_start = start;
        for field in self.fields {
            let nominated = self.nominates && self.is_nominated(*field);
            let edited = || {
                let name = field.name(self.bytes);
                self.edits.iter().any(|edits| edits.removes(name))
            };
            if nominated || (field.known != Known::Other && removed(*field)) || edited() {
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
        let kept =
            !matches!(field.known, Known::Other | Known::Odd | Known::Cookie | Known::Expect);
        let name = field.name(self.bytes);
        !kept
            && self.fields.iter().filter(|field| field.known == Known::Connection).any(|field| {
                fields::members(field.value(self.bytes))
                    .any(|member| member.eq_ignore_ascii_case(name))
            })
    }
}

/// How the body is framed, in our spelling: what stands behind must not read another one into the
/// sender's.
fn framing(out: &mut Vec<u8>, chunked: bool, content_length: Option<u64>) {
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if let Some(length) = content_length {
        out.extend_from_slice(b"content-length: ");
        decimal(out, length);
        out.extend_from_slice(b"\r\n");
    }
}

/// A host in the spelling that routing compares: names are the same in capitals.
fn host_line(out: &mut Vec<u8>, name: &[u8], host: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    let start = out.len();
    out.extend_from_slice(host);
    out[start..].make_ascii_lowercase();
    out.extend_from_slice(b"\r\n");
}

/// Appends a number without the cost of formatting.
fn decimal(out: &mut Vec<u8>, mut number: u64) {
    // 2^64 has 20 digits.
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] += (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
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
    use crate::http1::edits::Placeholder;

    fn forward(head: &str, trusted: bool) -> String {
        let mut fields = Vec::new();
        let head = RequestHead::parse(head.as_bytes(), Limits::default(), &mut fields);
        let head = head.unwrap().unwrap();
        let mut out = Vec::new();
        let upgrade = head.wants_upgrade();
        let forwarding = Forwarding {
            peer: "192.0.2.1",
            client: Some([192, 0, 2, 1].into()),
            trusted,
            scheme: "http",
            certificate: None,
            via: None,
            upgrade,
            target: None,
            owned: &Owned::default(),
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
        let expected = format!("GET /p?q HTTP/1.1\r\nhost: a\r\nX-One: 1\r\nX-Three: 3\r\n{OURS}");
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
    fn framing_and_host_are_in_our_spelling() {
        for (lines, ours) in [
            ("HOST:\tA.Example:80 \t\r\n", "host: a.example:80\r\n"),
            ("host:a\r\nContent-LENGTH:\t005\t\r\n", "host: a\r\ncontent-length: 5\r\n"),
            (
                "content-length: 0000000000000000000\r\nhost: a\r\n",
                "host: a\r\ncontent-length: 0\r\n",
            ),
            (
                "Content-Length: 9223372036854775807 \r\nhost: a\r\n",
                "host: a\r\ncontent-length: 9223372036854775807\r\n",
            ),
            (
                "tRANSFER-eNCODING: \t chunKED \t \r\nhost: a\r\n",
                "host: a\r\ntransfer-encoding: chunked\r\n",
            ),
        ] {
            let forwarded = forward(&format!("POST / HTTP/1.1\r\n{lines}x: 1\r\n\r\n"), false);
            let host = if lines.contains("A.Example") { "a.example:80" } else { "a" };
            let expected = format!(
                "POST / HTTP/1.1\r\n{ours}x: 1\r\n{}",
                OURS.replace("host: a", &format!("host: {host}"))
            );
            assert_eq!(forwarded, expected, "{lines:?}");
        }
    }

    fn give_back(head: &str, version: Version) -> String {
        let mut fields = Vec::new();
        let head = ResponseHead::parse(head.as_bytes(), Limits::default(), &mut fields);
        let head = head.unwrap().unwrap();
        let returning = Returning {
            version,
            keep_alive: true,
            upgrade: false,
            unchunk: head.facts.chunked && version == Version::Http10,
            cookie: None,
            edits: &[],
            added: b"",
            via: None,
        };
        let mut out = Vec::new();
        response(&mut out, &head, &returning);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answers_framing_is_in_our_spelling_and_where_it_means_something() {
        for (head, ours) in [
            (
                "200 OK\r\nX: 1\r\nContent-Length:\t007 \r\n",
                "200 OK\r\ncontent-length: 7\r\nX: 1\r\n",
            ),
            ("200 OK\r\nTransfer-Encoding:CHUNKED\r\n", "200 OK\r\ntransfer-encoding: chunked\r\n"),
            ("204 None\r\ncontent-length: 3\r\nx: 1\r\n", "204 None\r\nx: 1\r\n"),
            ("103 Hints\r\ntransfer-encoding: chunked\r\n", "103 Hints\r\n"),
            ("304 Same\r\nCONTENT-LENGTH: 3\r\n", "304 Same\r\ncontent-length: 3\r\n"),
        ] {
            let given = give_back(&format!("HTTP/1.1 {head}\r\n"), Version::Http11);
            assert_eq!(given, format!("HTTP/1.1 {ours}\r\n"), "{head:?}");
        }
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let expected = "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n";
        assert_eq!(give_back(chunked, Version::Http10), expected);
        let late = "\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n";
        assert_eq!(give_back(late, Version::Http11), late.trim_start());
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
            ..Edits::default()
        };
        let bytes = b"GET http://b/p?q HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\nx: y\r\n\r\n";
        let mut fields = Vec::new();
        let head = RequestHead::parse(bytes, Limits::default(), &mut fields).unwrap().unwrap();
        let mut out = Vec::new();
        let forwarding = Forwarding {
            peer: "192.0.2.1",
            client: Some([192, 0, 2, 1].into()),
            trusted: false,
            scheme: "http",
            certificate: None,
            via: None,
            upgrade: false,
            target: Some(b"/new?q"),
            owned: &Owned::default(),
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

    #[test]
    fn values_are_filled_in_and_what_is_set_is_not_said_twice() {
        let edits = Edits {
            removed: ["x-real-ip", "x-forwarded-for", "x-forwarded-proto"].map(Into::into).into(),
            filled: vec![
                ((*b"x-real-ip: ").into(), Placeholder::Client),
                ((*b"\r\nx-forwarded-for: ").into(), Placeholder::Client),
                ((*b"\r\nx-forwarded-proto: ").into(), Placeholder::Scheme),
                ((*b"\r\nx-url: ").into(), Placeholder::Scheme),
                ((*b"://").into(), Placeholder::Host),
            ],
            lines: (*b"/\r\n").into(),
        };
        let bytes = b"GET / HTTP/1.1\r\nHost: a:81\r\nX-Real-IP: 6.6.6.6\r\n\
            X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Proto: gopher, HTTPS\r\n\r\n";
        let mut fields = Vec::new();
        let head = RequestHead::parse(bytes, Limits::default(), &mut fields).unwrap().unwrap();
        for (trusted, client, address, scheme) in [
            (false, Some([192, 0, 2, 1].into()), "192.0.2.1", "http"),
            (true, Some([203, 0, 113, 5].into()), "203.0.113.5", "https"),
            (true, None, "unknown", "https"),
        ] {
            let mut out = Vec::new();
            let forwarding = Forwarding {
                peer: "192.0.2.1",
                client,
                trusted,
                scheme: "http",
                certificate: None,
                via: None,
                upgrade: false,
                target: None,
                owned: &Owned::default(),
                edits: &[&edits],
                made: b"",
            };
            request(&mut out, &head, &forwarding);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!(
                    "GET / HTTP/1.1\r\nhost: a:81\r\nx-forwarded-host: a:81\r\nx-real-ip: {address}\r\n\
                     x-forwarded-for: {address}\r\nx-forwarded-proto: {scheme}\r\nx-url: \
                     {scheme}://a:81/\r\n\r\n"
                )
            );
        }
    }
}
