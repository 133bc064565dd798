//! Heads of HTTP/2 as heads of HTTP/1 and back: what means the same on either side.
//!
//! What HTTP/2 forbids the library below has refused; what HTTP/1 forbids our own parser refuses
//! when it reads what is written here, so that both protocols are held to one strictness.

use std::borrow::Cow;
use std::io::Write;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version as HttpVersion};

use crate::http1::fields::{self, Field, Limits};
use crate::http1::{Known, RequestHead, ResponseHead, Version};

/// How the body behind a translated head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, or its length is in the head.
    Raw,
    /// In chunks, with room for trailers.
    Chunked,
}

/// Appends the request of `parts` as an HTTP/1 head.
pub fn request_to_wire(out: &mut Vec<u8>, parts: &http::request::Parts, has_body: bool) -> Framing {
    let uri = &parts.uri;
    let authority = uri.authority().map(http::uri::Authority::as_str);
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let target = if parts.method == Method::CONNECT {
        authority.unwrap_or_default()
    } else {
        uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    };
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        line(out, b"host", authority.as_bytes());
    }
    let is_same = |value: &HeaderValue| {
        authority
            .is_some_and(|authority| authority.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    for (name, value) in &parts.headers {
        // A Host that differs from the authority stays, and makes a head with two: refused.
        let is_said = *name == header::HOST && is_same(value);
        if !is_said && *name != header::COOKIE {
            // White space around a value has no place in HTTP/2, and none in what is made of it.
            line(out, name.as_ref(), value.as_bytes().trim_ascii());
        }
    }
    cookies(out, &parts.headers);
    framing(out, &parts.headers, has_body)
}

/// Crumbs of cookies become one field again (RFC 9113 §8.2.3).
fn cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    out.extend_from_slice(b"cookie: ");
    out.extend_from_slice(first.as_bytes());
    for crumb in crumbs {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(crumb.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn framing(out: &mut Vec<u8>, headers: &HeaderMap, has_body: bool) -> Framing {
    let is_chunked = has_body && !headers.contains_key(header::CONTENT_LENGTH);
    if is_chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if is_chunked { Framing::Chunked } else { Framing::Raw }
}

/// Appends the response of `parts` as an HTTP/1 head.
pub fn response_to_wire(
    out: &mut Vec<u8>,
    parts: &http::response::Parts,
    has_body: bool,
    to_head: bool,
) -> Framing {
    let status = parts.status;
    let reason = status.canonical_reason().unwrap_or_default();
    write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_str()).expect("a Vec takes every write");
    for (name, value) in &parts.headers {
        line(out, name.as_ref(), value.as_bytes());
    }
    let is_bodiless = status.is_informational() || matches!(status.as_u16(), 204 | 304) || to_head;
    if !has_body && !is_bodiless && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    framing(out, &parts.headers, has_body && !is_bodiless)
}

/// Appends trailers as field lines.
pub fn trailers_to_wire(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        line(out, name.as_ref(), value.as_bytes());
    }
}

/// The request that an HTTP/1 head is, for `scheme`, and for `authority` when it names none.
///
/// # Errors
/// A target or field that HTTP/2 cannot say.
pub fn request_from_wire(
    head: &RequestHead<'_>,
    scheme: &str,
    authority: &str,
) -> Result<Request<()>, http::Error> {
    let host = head.host();
    let authority = if host.is_empty() { authority.as_bytes() } else { host };
    let uri = Uri::builder().scheme(scheme).authority(authority);
    let path_and_query = escaped(head.path_and_query);
    let mut request = Request::builder()
        .version(HttpVersion::HTTP_2)
        .method(head.method)
        .uri(uri.path_and_query(&*path_and_query).build()?)
        .body(())?;
    copy(request.headers_mut(), head.bytes, head.fields, |field| {
        matches!(field.known, Known::Host)
    })?;
    Ok(request)
}

/// A target with escapes for what no URI may hold: HTTP/1 carries it all the same, HTTP/2's servers
/// and the library below refuse it.
fn escaped(target: &[u8]) -> Cow<'_, [u8]> {
    const ESCAPED: &[u8] = b"\"<>`";
    if !target.iter().any(|byte| ESCAPED.contains(byte)) {
        return Cow::Borrowed(target);
    }
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for &byte in target {
        if ESCAPED.contains(&byte) {
            write!(escaped, "%{byte:02X}").expect("a Vec takes every write");
        } else {
            escaped.push(byte);
        }
    }
    Cow::Owned(escaped)
}

/// The response that an HTTP/1 head is.
///
/// # Errors
/// A field that HTTP/2 cannot say.
pub fn response_from_wire(head: &ResponseHead<'_>) -> Result<Response<()>, http::Error> {
    let mut response = Response::builder()
        .version(HttpVersion::HTTP_2)
        .status(StatusCode::from_u16(head.status)?)
        .body(())?;
    copy(response.headers_mut(), head.bytes, head.fields, |_| false)?;
    Ok(response)
}

/// Trailers from their field lines, final empty line included. What belongs to the connection or
/// the framing is no trailer.
#[must_use]
pub fn trailers_from_wire(bytes: &[u8]) -> HeaderMap {
    let mut found = Vec::new();
    let mut trailers = HeaderMap::new();
    let limits = Limits { head_bytes: bytes.len() + 1, header_count: 1_000 };
    if let Ok(Some(_)) = fields::read(bytes, 0, Version::Http11, limits, &mut found) {
        // What cannot be a field of HTTP/2 is left out, as any recipient may do with trailers.
        let is_framing = |field: &Field| matches!(field.known, Known::Host | Known::ContentLength);
        let _ = copy(&mut trailers, bytes, &found, is_framing);
    }
    trailers
}

/// Copies fields but those of one hop (RFC 9113 §8.2.2) and what `removed` names.
fn copy(
    headers: &mut HeaderMap,
    bytes: &[u8],
    fields: &[Field],
    removed: impl Fn(&Field) -> bool,
) -> Result<(), http::Error> {
    for field in fields {
        let is_hop = matches!(
            field.known,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::Http2Settings
        );
        if !is_hop && !removed(field) {
            let name = HeaderName::from_bytes(field.name(bytes))?;
            headers.append(name, HeaderValue::from_bytes(field.value(bytes))?);
        }
    }
    Ok(())
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_wire(request: Request<()>, has_body: bool) -> (String, Framing) {
        let mut out = Vec::new();
        let framing = request_to_wire(&mut out, &request.into_parts().0, has_body);
        (String::from_utf8(out).unwrap(), framing)
    }

    fn get(uri: &str) -> http::request::Builder {
        Request::builder().uri(uri).version(HttpVersion::HTTP_2)
    }

    #[test]
    fn a_request_becomes_a_head() {
        let request = get("https://a.example:8443/x?y=1").header("accept", "*/*").body(()).unwrap();
        let expected = "GET /x?y=1 HTTP/1.1\r\nhost: a.example:8443\r\naccept: */*\r\n\r\n";
        assert_eq!(to_wire(request, false), (expected.to_owned(), Framing::Raw));
    }

    #[test]
    fn crumbs_of_cookies_are_joined_and_a_second_host_stays_to_be_refused() {
        let request = get("https://a/")
            .header("cookie", "a=1")
            .header("host", "b")
            .header("cookie", "b=2")
            .body(());
        let (head, _) = to_wire(request.unwrap(), false);
        assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
        let mut fields = Vec::new();
        let parsed = RequestHead::parse(head.as_bytes(), Limits::default(), &mut fields);
        assert!(parsed.is_err(), "{head}");
        for host in ["a", "A"] {
            let request = get("https://a/").header("host", host).header("x", " \ty ").body(());
            let (head, _) = to_wire(request.unwrap(), false);
            assert_eq!(head, "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n");
        }
    }

    #[test]
    fn a_body_without_length_is_chunked() {
        let (head, framing) = to_wire(get("https://a/").method("POST").body(()).unwrap(), true);
        assert_eq!(framing, Framing::Chunked);
        assert!(head.ends_with("transfer-encoding: chunked\r\n\r\n"));
        let counted = get("https://a/").header("content-length", "3").body(()).unwrap();
        assert_eq!(to_wire(counted, true).1, Framing::Raw);
    }

    #[test]
    fn heads_lose_what_belongs_to_the_connection() {
        let bytes = b"POST /p HTTP/1.1\r\nhost: a\r\nconnection: te\r\nte: trailers\r\n\
            transfer-encoding: chunked\r\nx-one: 1\r\n\r\n";
        let mut fields = Vec::new();
        let head = RequestHead::parse(bytes, Limits::default(), &mut fields).unwrap().unwrap();
        let request = request_from_wire(&head, "http", "1.2.3.4:5").unwrap();
        assert_eq!(request.uri(), "http://a/p");
        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["te", "x-one"]);
    }

    #[test]
    fn whatever_http1_asks_for_can_be_asked_for() {
        let sayable = |target: &str, host: &str| {
            let head = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
            let mut fields = Vec::new();
            let head =
                RequestHead::parse(head.as_bytes(), Limits::default(), &mut fields).ok()??;
            Some(request_from_wire(&head, "http", "1.2.3.4:5").unwrap().uri().to_string())
        };
        for byte in 0..=127_u8 {
            let byte = char::from(byte);
            for target in [format!("/{byte}x"), format!("/?q={byte}x")] {
                let Some(said) = sayable(&target, "a") else { continue };
                let shown = match byte {
                    '"' => "%22".to_owned(),
                    '<' => "%3C".to_owned(),
                    '>' => "%3E".to_owned(),
                    '`' => "%60".to_owned(),
                    plain => plain.to_string(),
                };
                let start = target.strip_suffix(&format!("{byte}x")).unwrap();
                assert_eq!(said, format!("http://a{start}{shown}x"));
            }
            let _ = sayable("/", &format!("a{byte}"));
            let _ = sayable("/", &format!("{byte}a"));
        }
        for host in ["", "a:", "a:99999", "[::1]", "[::1.2.3.4.5]:1", "a,b", "a'b", "a~b"] {
            assert!(sayable("/", host).is_some(), "{host}");
        }
        assert_eq!(sayable("/", "%41"), None);
    }

    #[test]
    fn trailers_go_both_ways_without_framing() {
        let trailers = trailers_from_wire(b"grpc-status: 5\r\nContent-Length: 9\r\nx: y\r\n\r\n");
        assert_eq!(trailers.len(), 2);
        let mut out = Vec::new();
        trailers_to_wire(&mut out, &trailers);
        assert_eq!(out, b"grpc-status: 5\r\nx: y\r\n");
    }

    #[test]
    fn an_answer_that_ends_with_its_head_has_no_body() {
        let answer = |status: u16, to_head: bool| {
            let mut out = Vec::new();
            let parts = Response::builder().status(status).body(()).unwrap().into_parts().0;
            response_to_wire(&mut out, &parts, false, to_head);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(answer(200, false), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(answer(200, true), "HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(answer(204, false), "HTTP/1.1 204 No Content\r\n\r\n");
    }
}
