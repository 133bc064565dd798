//! A request head: start line, target, host, and the framing of what follows.

use memchr::memchr;

use super::body::Body;
use super::fields::{self, Facts, Field, HeadError, Limits, Version, is_token};

/// A parsed request head; everything borrows from the bytes read.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// The head's own bytes, final empty line included.
    pub bytes: &'a [u8],
    /// The method as written.
    pub method: &'a [u8],
    /// Path and query: the target, or what an absolute target has behind its authority.
    pub path_and_query: &'a [u8],
    /// The authority that an absolute target names; it replaces Host (RFC 9112 §3.2.2).
    pub authority: Option<&'a [u8]>,
    /// The client's protocol version.
    pub version: Version,
    /// Where the first field line starts.
    pub fields_start: usize,
    /// The field lines in order.
    pub fields: &'a [Field],
    /// What the fields say together.
    pub facts: Facts,
}

impl<'a> RequestHead<'a> {
    /// Reads a head from the start of `bytes`, its fields into `fields`.
    ///
    /// `Ok(None)` when it is not complete yet. Empty lines ahead of a request are skipped
    /// (RFC 9112 §2.2) and count as part of it.
    ///
    /// # Errors
    /// The first fault or passed limit.
    pub fn parse(
        bytes: &'a [u8],
        limits: Limits,
        fields: &'a mut Vec<Field>,
    ) -> Result<Option<Self>, HeadError> {
        let mut start = 0;
        while bytes[start..].starts_with(b"\r\n") {
            start += 2;
        }
        let Some(length) = memchr(b'\n', &bytes[start..]) else {
            if bytes.len() >= limits.head_bytes {
                return Err(HeadError::TooLong);
            }
            // What cannot become a method is refused at once: a TLS hello, say, has no LF.
            let method_so_far = bytes[start..].iter().take_while(|&&byte| byte != b' ');
            let plausible = method_so_far.clone().all(|&byte| is_token(byte) || byte == b'\r');
            return if plausible { Ok(None) } else { Err(HeadError::StartLine) };
        };
        let fields_start = start + length + 1;
        if length == 0 || bytes[fields_start - 2] != b'\r' {
            return Err(HeadError::LineEnding);
        }
        let (method, target, version) = start_line(&bytes[start..fields_start - 2])?;
        let Some((facts, end)) = fields::read(bytes, fields_start, version, limits, fields)? else {
            return Ok(None);
        };
        let (authority, path_and_query) = split_target(method, target)?;
        let head = Self {
            bytes: &bytes[..end],
            method,
            path_and_query,
            authority,
            version,
            fields_start,
            fields,
            facts,
        };
        head.check_host()?;
        Ok(Some(head))
    }

    /// Host as the request means it: the target's authority, else the Host field, else empty.
    #[must_use]
    pub fn host(&self) -> &'a [u8] {
        self.authority.unwrap_or_else(|| {
            self.facts.host.map_or(&[], |position| self.fields[position].value(self.bytes))
        })
    }

    /// Whether its target and its Host field name different hosts.
    #[must_use]
    pub fn names_two_hosts(&self) -> bool {
        let field = self.facts.host.map(|position| self.fields[position].value(self.bytes));
        let target = self.authority;
        target.zip(field).is_some_and(|(target, field)| !target.eq_ignore_ascii_case(field))
    }

    /// How the body that follows is framed.
    #[must_use]
    pub fn body(&self) -> Body {
        if self.facts.chunked {
            Body::chunked()
        } else {
            Body::length(self.facts.content_length.unwrap_or(0))
        }
    }

    /// Whether the client asks to switch protocols in a way that is passed on.
    ///
    /// A request with a body is not (nobody agrees what follows), nor is `h2c`, which would carry
    /// requests past routing.
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.facts.upgrade
            && self.facts.connection_upgrade
            && self.version == Version::Http11
            && !self.facts.chunked
            && self.facts.content_length.unwrap_or(0) == 0
            && !self.values(fields::Known::Upgrade).any(|value| {
                fields::members(value).any(|protocol| {
                    let name = protocol.split(|byte| !is_token(*byte)).next();
                    name.is_some_and(|name| name.eq_ignore_ascii_case(b"h2c"))
                })
            })
    }

    /// The values of every field of one known name.
    #[must_use]
    pub fn values(&self, known: fields::Known) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let (bytes, fields) = (self.bytes, self.fields);
        fields.iter().filter(move |field| field.known == known).map(|field| field.value(bytes))
    }

    /// The scheme that the last proxy in front tells in X-Forwarded-Proto.
    #[must_use]
    pub fn forwarded_scheme(&self) -> Option<&'static str> {
        // What stands before it was the client's to write.
        let line = self.values(fields::Known::XForwardedProto).next_back()?;
        let last = line.rsplit(|&byte| byte == b',').next()?.trim_ascii();
        ["https", "http"].into_iter().find(|scheme| last.eq_ignore_ascii_case(scheme.as_bytes()))
    }

    fn check_host(&self) -> Result<(), HeadError> {
        let field = self.facts.host.map(|position| self.fields[position].value(self.bytes));
        if field.is_none() && self.version == Version::Http11 {
            return Err(HeadError::Host);
        }
        let valid = field.is_none_or(is_authority) && self.authority.is_none_or(is_authority);
        if valid { Ok(()) } else { Err(HeadError::Host) }
    }
}

fn start_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), HeadError> {
    let method_end = line.iter().take_while(|&&byte| is_token(byte)).count();
    if method_end == 0 || line.get(method_end) != Some(&b' ') {
        return Err(HeadError::StartLine);
    }
    let rest = &line[method_end + 1..];
    let target_end = memchr(b' ', rest).ok_or(HeadError::StartLine)?;
    let version = match &rest[target_end + 1..] {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(HeadError::Version);
        }
        _ => return Err(HeadError::StartLine),
    };
    Ok((&line[..method_end], &rest[..target_end], version))
}

/// Splits a target into the authority of its absolute form, if any, and path with query.
fn split_target<'a>(
    method: &[u8],
    target: &'a [u8],
) -> Result<(Option<&'a [u8]>, &'a [u8]), HeadError> {
    let visible = target.iter().all(|&byte| (0x21..=0x7e).contains(&byte) && byte != b'#');
    if !visible || target.is_empty() {
        return Err(HeadError::Target);
    }
    if target[0] == b'/' || (target == b"*" && method == b"OPTIONS") || method == b"CONNECT" {
        return Ok((None, target));
    }
    let scheme = |name: &[u8]| {
        target.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let rest = match () {
        () if scheme(b"http://") => &target[7..],
        () if scheme(b"https://") => &target[8..],
        () => return Err(HeadError::Target),
    };
    let path_start =
        rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_start);
    if authority.is_empty() || path.first() == Some(&b'?') {
        return Err(HeadError::Target);
    }
    Ok((Some(authority), if path.is_empty() { b"/" } else { path }))
}

/// Whether `host` is `name[:port]` or `[address][:port]`, or empty, with no user information.
fn is_authority(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', rest @ ..] => {
            let Some(close) = memchr(b']', rest) else { return false };
            let address = &rest[..close];
            let digits = |&byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if address.is_empty() || !address.iter().all(digits) {
                return false;
            }
            (&b""[..], &rest[close + 1..])
        }
        _ => host.split_at(memchr(b':', host).unwrap_or(host.len())),
    };
    let name_valid = name.iter().all(|&byte| REG_NAME[usize::from(byte)]);
    let port_valid = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    name_valid && port_valid && !(name.is_empty() && host.first() == Some(&b':'))
}

/// What a name in an authority may have (RFC 3986 §3.2.2), but escapes: a host in another spelling
/// is no host that anybody serves, and servers might read it as one.
const REG_NAME: [bool; 256] = fields::bytes_of(
    b"-._~!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn error(head: &str) -> Option<HeadError> {
        RequestHead::parse(head.as_bytes(), Limits::default(), &mut Vec::new()).err()
    }

    #[test]
    fn start_lines_are_strict() {
        for (line, expected) in [
            ("GET  / HTTP/1.1", HeadError::StartLine),
            ("GET / HTTP/1.1 ", HeadError::StartLine),
            ("GET /", HeadError::StartLine),
            ("GET\t/ HTTP/1.1", HeadError::StartLine),
            (" GET / HTTP/1.1", HeadError::StartLine),
            ("G(T / HTTP/1.1", HeadError::StartLine),
            ("GET / HTTP/2.0", HeadError::Version),
            ("GET / HTTP/1.2", HeadError::Version),
            ("GET / http/1.1", HeadError::StartLine),
            ("GET x HTTP/1.1", HeadError::Target),
            ("GET /\x7f HTTP/1.1", HeadError::Target),
            ("GET /# HTTP/1.1", HeadError::Target),
            ("GET /é HTTP/1.1", HeadError::Target),
            ("GET * HTTP/1.1", HeadError::Target),
            ("GET ftp://a/ HTTP/1.1", HeadError::Target),
            ("GET http:///x HTTP/1.1", HeadError::Target),
        ] {
            assert_eq!(error(&format!("{line}\r\nhost: a\r\n\r\n")), Some(expected), "{line:?}");
        }
        assert_eq!(error("GET / HTTP/1.1\nhost: a\r\n\r\n"), Some(HeadError::LineEnding));
        assert_eq!(error("\x16\x03\x01\x02"), Some(HeadError::StartLine));
    }

    #[test]
    fn hosts_are_strict() {
        assert_eq!(error("GET / HTTP/1.1\r\n\r\n"), Some(HeadError::Host));
        assert_eq!(error("GET / HTTP/1.0\r\n\r\n"), None);
        for (host, expected) in [
            ("a.example:8080", None),
            ("[::1]:80", None),
            ("", None),
            ("a b", Some(HeadError::Host)),
            ("user@a", Some(HeadError::Host)),
            ("a/b", Some(HeadError::Host)),
            ("a:http", Some(HeadError::Host)),
            ("a:123456", Some(HeadError::Host)),
            (":80", Some(HeadError::Host)),
            ("[::1", Some(HeadError::Host)),
            ("[]", Some(HeadError::Host)),
        ] {
            let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
            assert_eq!(error(&head), expected, "{host:?}");
        }
    }

    #[test]
    fn an_absolute_target_overrides_host() {
        let mut fields = Vec::new();
        let bytes = b"GET http://b.example:81?x HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(
            RequestHead::parse(bytes, Limits::default(), &mut fields).err(),
            Some(HeadError::Target)
        );
        let bytes = b"GET HTTP://b.example:81/p?x HTTP/1.1\r\nhost: a\r\n\r\n";
        let head = RequestHead::parse(bytes, Limits::default(), &mut fields).unwrap().unwrap();
        assert_eq!(head.host(), b"b.example:81");
        assert_eq!(head.path_and_query, b"/p?x");
    }

    #[test]
    fn every_prefix_of_a_head_is_incomplete_and_never_an_error() {
        let head = b"POST /a?b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n";
        let mut fields = Vec::new();
        for end in 0..head.len() {
            let parsed = RequestHead::parse(&head[..end], Limits::default(), &mut fields);
            assert!(matches!(parsed, Ok(None)), "{end}");
        }
        let parsed = RequestHead::parse(head, Limits::default(), &mut fields).unwrap().unwrap();
        assert_eq!(parsed.bytes.len(), head.len());
    }

    #[test]
    fn h2c_and_bodies_are_not_upgraded() {
        let wants = |lines: &str| {
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
            let mut fields = Vec::new();
            RequestHead::parse(head.as_bytes(), Limits::default(), &mut fields)
                .unwrap()
                .unwrap()
                .wants_upgrade()
        };
        assert!(wants("connection: Upgrade\r\nupgrade: websocket\r\n"));
        assert!(!wants("upgrade: websocket\r\n"));
        assert!(!wants("connection: upgrade\r\nupgrade: websocket, h2c\r\n"));
        assert!(!wants("connection: upgrade\r\nupgrade: H2C/1\r\n"));
        assert!(!wants("connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n"));
    }
}
