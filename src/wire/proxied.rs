//! The PROXY protocol's header, version 1 or 2, by which a balancer in front names its client
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, line end included.
const LINE_BYTES_MAX: usize = 107;
/// Version 2 has 16 bytes, and then as many as it says; extensions seldom pass a few hundred.
const FIXED_BYTES: usize = 16;
const REST_BYTES_MAX: usize = 4_096;

/// What does not begin with a header that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PROXY header is missing or malformed")]
pub struct HeaderError;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has.
    pub length: usize,
    /// The client; `None` when the balancer speaks for itself, or of what is no TCP client.
    pub source: Option<SocketAddr>,
}

/// Reads a header from the start of `bytes`; `Ok(None)` when it goes on.
///
/// # Errors
/// Anything else.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] == SIGNATURE[..seen] {
        return if bytes.len() < FIXED_BYTES { Ok(None) } else { binary(bytes) };
    }
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    match line.iter().position(|&byte| byte == b'\n') {
        Some(end) => text(&line[..end]).map(|source| Some(Header { length: end + 1, source })),
        None if b"PROXY ".starts_with(&line[..line.len().min(6)])
            && line.len() < LINE_BYTES_MAX =>
        {
            Ok(None)
        }
        None => Err(HeaderError),
    }
}

/// Reads a header from `stream` and not a byte more, for what follows may be TLS.
///
/// # Errors
/// The socket's, or what is no header.
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut bytes = Vec::new();
    loop {
        let mut seen = [0; LINE_BYTES_MAX];
        let count = stream.peek(&mut seen).await?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let known = bytes.len();
        bytes.extend_from_slice(&seen[..count]);
        let parsed =
            parse(&bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        // All of an unfinished header belongs to it; of a whole one the rest does not.
        bytes.truncate(parsed.map_or(bytes.len(), |header| header.length));
        stream.read_exact(&mut bytes[known..]).await?;
        if let Some(header) = parsed {
            return Ok(header.source);
        }
    }
}

fn text(line: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix('\r'));
    let mut words = line.ok_or(HeaderError)?.split(' ');
    if words.next() != Some("PROXY") {
        return Err(HeaderError);
    }
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let mut next = || words.next().ok_or(HeaderError);
    let (source, target) = (next()?, next()?);
    let (port, target_port) = (next()?, next()?);
    let address = |text: &str| -> Result<IpAddr, HeaderError> {
        match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| HeaderError),
            Some("TCP6") => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| HeaderError),
            _ => Err(HeaderError),
        }
    };
    // The standard library takes a sign too.
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| match text.parse::<u16>() {
        Ok(number) if is_number(text) => Ok(number),
        _ => Err(HeaderError),
    };
    address(target)?;
    number(target_port)?;
    let source = SocketAddr::new(address(source)?, number(port)?);
    if words.next().is_none() { Ok(Some(source)) } else { Err(HeaderError) }
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let (command, family) = (bytes[12], bytes[13]);
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    // The version is 2; commands are LOCAL and PROXY.
    if !matches!(command, 0x20 | 0x21) || rest > REST_BYTES_MAX {
        return Err(HeaderError);
    }
    let length = FIXED_BYTES + rest;
    let Some(body) = bytes.get(FIXED_BYTES..length) else { return Ok(None) };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    // The transport is TCP: what a datagram came from is no client of ours.
    let family = if family & 0xf == 1 { family >> 4 } else { 0 };
    let source = match (command, family) {
        (0x20, _) => None,
        (_, 1) if rest >= 12 => {
            let address = <[u8; 4]>::try_from(&body[..4]).map_err(|_| HeaderError)?;
            Some(SocketAddr::new(Ipv4Addr::from(address).into(), port(8)))
        }
        (_, 2) if rest >= 36 => {
            let address = <[u8; 16]>::try_from(&body[..16]).map_err(|_| HeaderError)?;
            Some(SocketAddr::new(Ipv6Addr::from(address).into(), port(32)))
        }
        (_, 1 | 2) => return Err(HeaderError),
        _ => None,
    };
    Ok(Some(Header { length, source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: &[u8]) -> Result<Option<(usize, Option<String>)>, HeaderError> {
        let parsed = parse(bytes)?;
        Ok(parsed.map(|header| (header.length, header.source.map(|source| source.to_string()))))
    }

    #[test]
    fn lines_name_the_client() {
        let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\nGET";
        assert_eq!(source(line), Ok(Some((41, Some("192.0.2.1:56324".into())))));
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(source(line), Ok(Some((32, Some("[2001:db8::1]:1".into())))));
        assert_eq!(source(b"PROXY UNKNOWN ff x\r\n"), Ok(Some((20, None))));
        for end in 0..31 {
            assert_eq!(source(&line[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        ] {
            assert_eq!(source(line.as_bytes()), Err(HeaderError), "{line:?}");
        }
        let endless = format!("PROXY TCP4 {}", "1".repeat(200));
        assert_eq!(source(endless.as_bytes()), Err(HeaderError));
    }

    #[test]
    fn binary_headers_name_the_client_in_any_pieces() {
        let head = |command: u8, family: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&SIGNATURE[..], &[command, family], &length, body].concat()
        };
        let four = head(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0, 7, 1, 187, 3, 0, 1, 9]);
        assert_eq!(source(&four), Ok(Some((32, Some("192.0.2.1:7".into())))));
        for end in 0..four.len() {
            assert_eq!(source(&four[..end]), Ok(None), "{end}");
        }
        let six = [&[0; 15][..], &[1], &[0; 16], &[0, 9, 0, 1]].concat();
        assert_eq!(source(&head(0x21, 0x21, &six)), Ok(Some((52, Some("[::1]:9".into())))));
        assert_eq!(source(&head(0x20, 0, &[])), Ok(Some((16, None))));
        assert_eq!(source(&head(0x31, 0x11, &[0; 12])), Err(HeaderError));
        assert_eq!(source(&head(0x21, 0x11, &[0; 11])), Err(HeaderError));
        assert_eq!(source(&head(0x21, 0x11, &[0; 5_000])), Err(HeaderError));
        // What is no TCP client names nobody: datagrams, sockets of files, families unknown.
        for family in [0x00, 0x12, 0x22, 0x31, 0x32, 0xf1] {
            assert_eq!(source(&head(0x21, family, &[7; 216])), Ok(Some((232, None))), "{family}");
        }
        // A length beyond what came is waited for, never read past.
        let spoofed = [&SIGNATURE[..], &[0x21, 0x11, 0, 200], &[1; 12]].concat();
        assert_eq!(source(&spoofed), Ok(None));
    }
}
