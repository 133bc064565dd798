//! A response head from an upstream, read with the care that a request gets.

use memchr::memchr;

use super::body::Body;
use super::fields::{self, Facts, Field, HeadError, Limits, Version, has_control};

/// Most empty lines ahead of a status line that are skipped: old servers end a body, or an interim
/// answer, with one too many.
const EMPTY_LINES_MAX: usize = 2;

/// A parsed response head; everything borrows from the bytes read.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// The head's own bytes, final empty line included.
    pub bytes: &'a [u8],
    /// The status code, 100 to 999.
    pub status: u16,
    /// The upstream's protocol version.
    pub version: Version,
    /// Where the status line starts, behind empty lines.
    pub start: usize,
    /// Where the first field line starts.
    pub fields_start: usize,
    /// The field lines in order.
    pub fields: &'a [Field],
    /// What the fields say together.
    pub facts: Facts,
}

impl<'a> ResponseHead<'a> {
    /// Reads a head from the start of `bytes`; `Ok(None)` when it is not complete yet.
    ///
    /// # Errors
    /// The first fault or passed limit.
    pub fn parse(
        bytes: &'a [u8],
        limits: Limits,
        fields: &'a mut Vec<Field>,
    ) -> Result<Option<Self>, HeadError> {
        let mut start = 0;
        while start < 2 * EMPTY_LINES_MAX && bytes[start..].starts_with(b"\r\n") {
            start += 2;
        }
        let Some(length) = memchr(b'\n', &bytes[start..]) else {
            let too_long = bytes.len() >= limits.head_bytes;
            return if too_long { Err(HeadError::TooLong) } else { Ok(None) };
        };
        let fields_start = start + length + 1;
        if length == 0 || bytes[fields_start - 2] != b'\r' {
            return Err(HeadError::LineEnding);
        }
        let (version, status) = status_line(&bytes[start..fields_start - 2])?;
        let Some((facts, end)) = fields::read(bytes, fields_start, version, limits, fields)? else {
            return Ok(None);
        };
        let bytes = &bytes[..end];
        Ok(Some(Self { bytes, status, version, start, fields_start, fields, facts }))
    }

    /// How the body that follows is framed, given the request's method (RFC 9112 §6.3).
    #[must_use]
    pub fn body(&self, to_head: bool) -> Body {
        if to_head || self.is_bodiless() {
            Body::length(0)
        } else if self.facts.chunked {
            Body::chunked()
        } else {
            self.facts.content_length.map_or(Body::until_close(), Body::length)
        }
    }

    /// Whether the status itself rules a body out.
    #[must_use]
    pub fn is_bodiless(&self) -> bool {
        self.status < 200 || matches!(self.status, 204 | 304)
    }

    /// Whether the body is a stream of events, whose end says nothing of the request.
    #[must_use]
    pub fn is_event_stream(&self) -> bool {
        self.fields.iter().any(|field| {
            field.name(self.bytes).eq_ignore_ascii_case(b"content-type")
                && field
                    .value(self.bytes)
                    .get(..17)
                    .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
        })
    }
}

fn status_line(line: &[u8]) -> Result<(Version, u16), HeadError> {
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::Http11,
        Some(b"HTTP/1.0 ") => Version::Http10,
        _ => return Err(HeadError::StartLine),
    };
    let (code, reason) = line[9..].split_at_checked(3).ok_or(HeadError::StartLine)?;
    if !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
        return Err(HeadError::StartLine);
    }
    if !reason.is_empty() && (reason[0] != b' ' || has_control(reason)) {
        return Err(HeadError::StartLine);
    }
    Ok((version, code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<(u16, Body), HeadError> {
        let mut fields = Vec::new();
        let head = ResponseHead::parse(head.as_bytes(), Limits::default(), &mut fields)?;
        Ok(head.map(|head| (head.status, head.body(false))).expect("the head is whole"))
    }

    #[test]
    fn status_lines_are_strict() {
        for line in
            ["HTTP/1.1 20 OK", "HTTP/1.1 2000", "HTTP/2 200 OK", "HTTP/1.1  200", "HTTP/1.1 099 x"]
        {
            assert_eq!(parse(&format!("{line}\r\n\r\n")), Err(HeadError::StartLine), "{line}");
        }
        assert_eq!(parse("HTTP/1.1 200\r\n\r\n"), Ok((200, Body::until_close())));
        assert_eq!(parse("HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\n"), Ok((200, Body::length(2))));
    }

    #[test]
    fn few_empty_lines_are_skipped() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
        for (lines, expected) in [
            ("", Ok((200, Body::length(2)))),
            ("\r\n", Ok((200, Body::length(2)))),
            ("\r\n\r\n", Ok((200, Body::length(2)))),
            ("\r\n\r\n\r\n", Err(HeadError::StartLine)),
            ("\n", Err(HeadError::LineEnding)),
            (" \r\n", Err(HeadError::StartLine)),
        ] {
            assert_eq!(parse(&format!("{lines}{head}")), expected, "{lines:?}");
        }
        let (whole, mut fields) = (format!("\r\n\r\n{head}"), Vec::new());
        for length in 0..whole.len() {
            let piece = &whole.as_bytes()[..length];
            let parsed = ResponseHead::parse(piece, Limits::default(), &mut fields);
            assert!(matches!(parsed, Ok(None)), "{piece:?}");
        }
    }

    #[test]
    fn statuses_without_a_body_have_none() {
        for status in [100, 204, 304] {
            let parsed = parse(&format!("HTTP/1.1 {status} x\r\ncontent-length: 9\r\n\r\n"));
            assert_eq!(parsed, Ok((status, Body::length(0))));
        }
    }

    #[test]
    fn two_framings_are_refused() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(parse(head), Err(HeadError::TwoFramings));
    }
}
