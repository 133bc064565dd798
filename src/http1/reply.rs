//! Replies of our own, for what never reaches an upstream or fails there.

use std::io::Write;

/// The field that says, on a reply of our own, what went wrong.
pub const ERROR_FIELD: &str = "splitway-error";

/// What the head of a reply says beside its status and fields, and whether content follows it.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The field line that says when it is sent, with its line ending.
    pub date: &'a str,
    /// Another request may follow.
    pub keep_alive: bool,
    /// It answers a HEAD request.
    pub to_head: bool,
}

impl Terms<'_> {
    /// The lines that every reply of ours ends with.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.date.as_bytes());
        if !self.keep_alive {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a whole reply with a status, and an error as its short text body. `more` are further
/// field lines.
pub fn write(out: &mut Vec<u8>, (status, error): (u16, &str), more: &str, terms: &Terms<'_>) {
    let reason = reason(status);
    let body = format!("{status} {reason}: {error}\n");
    write!(
        out,
        "HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         {ERROR_FIELD}: {error}\r\n{more}",
        body.len(),
    )
    .expect("a Vec takes every write");
    terms.write(out);
    if !terms.to_head {
        out.extend_from_slice(body.as_bytes());
    }
}

/// Appends a whole reply that sends the client elsewhere. 308 keeps method and body.
pub fn redirect(out: &mut Vec<u8>, status: u16, location: &[u8], terms: &Terms<'_>) {
    let reason = reason(status);
    write!(out, "HTTP/1.1 {status} {reason}\r\nlocation: ").expect("a Vec takes every write");
    out.extend_from_slice(location);
    out.extend_from_slice(b"\r\ncontent-length: 0\r\n");
    terms.write(out);
}

/// Appends a whole reply with field lines and content of the configuration's. 204, 205 and 304 have no
/// content, and 204 must not name its length (RFC 9110, 8.6).
pub fn content(out: &mut Vec<u8>, status: u16, (lines, body): (&str, &[u8]), terms: &Terms<'_>) {
    let body = if matches!(status, 204 | 205 | 304) { &b""[..] } else { body };
    let length = match status {
        204 | 304 => String::new(),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    let reason = reason(status);
    write!(out, "HTTP/1.1 {status} {reason}\r\n{lines}{length}").expect("a Vec takes every write");
    // One of the configuration's stays the only one.
    let is_dated = lines.starts_with("date: ") || lines.contains("\ndate: ");
    Terms { date: if is_dated { "" } else { terms.date }, ..*terms }.write(out);
    if !terms.to_head {
        out.extend_from_slice(body);
    }
}

/// The reason phrase of the statuses we answer ourselves.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        205 => "Reset Content",
        304 => "Not Modified",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        401 => "Unauthorized",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        410 => "Gone",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms<'_> = Terms { date: "date: now\r\n", keep_alive: true, to_head: false };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_reply_says_when_it_was_sent_once() {
        for (reply, dates) in [
            (written(|out| write(out, (400, "no"), "allow: GET\r\n", &TERMS)), 1),
            (written(|out| redirect(out, 308, b"/x", &TERMS)), 1),
            (written(|out| content(out, 200, ("x: y\r\n", b"z"), &TERMS)), 1),
            (written(|out| content(out, 200, ("x: y\r\ndate: then\r\n", b"z"), &TERMS)), 0),
            (written(|out| content(out, 200, ("date: then\r\n", b"z"), &TERMS)), 0),
        ] {
            assert_eq!(reply.matches("date: now\r\n").count(), dates, "{reply}");
            assert!(reply.contains("\r\n\r\n") && !reply.contains("connection"), "{reply}");
        }
    }

    #[test]
    fn a_head_has_no_content() {
        let terms = Terms { to_head: true, keep_alive: false, ..TERMS };
        for reply in [
            written(|out| write(out, (404, "no"), "", &terms)),
            written(|out| content(out, 200, ("", b"z"), &terms)),
        ] {
            assert!(reply.ends_with("connection: close\r\n\r\n"), "{reply}");
        }
    }
}
