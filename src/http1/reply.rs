//! Replies of our own, for what never reaches an upstream or fails there.

use std::io::Write;

/// The field that says, on a reply of our own, what went wrong.
pub const ERROR_FIELD: &str = "splitway-error";

/// Appends a whole reply with a status, and an error as its short text body. `more` are further
/// field lines.
pub fn write(
    out: &mut Vec<u8>,
    (status, error): (u16, &str),
    more: &str,
    keep_alive: bool,
    to_head: bool,
) {
    let reason = reason(status);
    let body = format!("{status} {reason}: {error}\n");
    let connection = if keep_alive { "" } else { "connection: close\r\n" };
    write!(
        out,
        "HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         {ERROR_FIELD}: {error}\r\n{more}{connection}\r\n{}",
        body.len(),
        if to_head { "" } else { &body },
    )
    .expect("a Vec takes every write");
}

/// Appends a whole reply that sends the client elsewhere. 308 keeps method and body.
pub fn redirect(out: &mut Vec<u8>, status: u16, location: &[u8], keep_alive: bool) {
    let connection = if keep_alive { "" } else { "connection: close\r\n" };
    let reason = reason(status);
    write!(out, "HTTP/1.1 {status} {reason}\r\nlocation: ").expect("a Vec takes every write");
    out.extend_from_slice(location);
    write!(out, "\r\ncontent-length: 0\r\n{connection}\r\n").expect("a Vec takes every write");
}

/// Appends a whole reply with field lines and content of the configuration's. 204, 205 and 304 have no
/// content, and 204 must not name its length (RFC 9110, 8.6).
pub fn content(
    out: &mut Vec<u8>,
    status: u16,
    (lines, body): (&str, &[u8]),
    keep_alive: bool,
    to_head: bool,
) {
    let connection = if keep_alive { "" } else { "connection: close\r\n" };
    let body = if matches!(status, 204 | 205 | 304) { &b""[..] } else { body };
    let length = match status {
        204 | 304 => String::new(),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    let reason = reason(status);
    write!(out, "HTTP/1.1 {status} {reason}\r\n{lines}{length}{connection}\r\n")
        .expect("a Vec takes every write");
    if !to_head {
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
