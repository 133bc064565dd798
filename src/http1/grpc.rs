//! What of gRPC shows in heads and trailers: its content type, deadline and status.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::io::Write;

use super::fields::Field;
use super::reply::{ERROR_FIELD, Terms};

/// Statuses from 0 (OK) to 16 (UNAUTHENTICATED).
pub const STATUSES: usize = 17;
/// The caller gave up.
pub const CANCELLED: u8 = 1;
/// What an answer without a status means.
pub const UNKNOWN: u8 = 2;
/// The time was over.
pub const DEADLINE_EXCEEDED: u8 = 4;
/// Too much was asked for.
pub const RESOURCE_EXHAUSTED: u8 = 8;
/// There is no such method.
pub const UNIMPLEMENTED: u8 = 12;
/// Something was malformed.
pub const INTERNAL: u8 = 13;
/// Nobody serves it at the moment.
pub const UNAVAILABLE: u8 = 14;

/// The names of the statuses, as the protocol spells them.
pub const NAMES: [&str; STATUSES] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Whether a content type is gRPC's; gRPC-Web has its status in the body, where nobody looks.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let start = content_type.get(..16);
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
        && matches!(content_type.get(16), None | Some(b'+' | b';' | b' '))
}

/// The value of a field of gRPC's among `fields` of `bytes`.
#[must_use]
pub fn field<'a>(bytes: &'a [u8], fields: &[Field], name: &str) -> Option<&'a [u8]> {
    let found = fields.iter().find(|field| field.name(bytes).eq_ignore_ascii_case(name.as_bytes()));
    found.map(|field| field.value(bytes))
}

/// The nanoseconds that a `grpc-timeout` allows: up to eight digits and a unit.
#[must_use]
pub fn timeout_ns(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let unit_ns = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(number.saturating_mul(unit_ns))
}

/// A `grpc-status`; what is none of the known is [`UNKNOWN`].
#[must_use]
pub fn status(value: &[u8]) -> u8 {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u8>().ok());
    number.filter(|number| usize::from(*number) < STATUSES).unwrap_or(UNKNOWN)
}

/// Appends a whole reply of our own, as a gRPC client reads it.
pub fn write_reply(out: &mut Vec<u8>, status: u8, error: &str, terms: &Terms<'_>) {
    write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\n\
         grpc-message: {error}\r\n{ERROR_FIELD}: {error}\r\ncontent-length: 0\r\n",
    )
    .expect("a Vec takes every write");
    terms.write(out);
}

/// Appends the end of a chunked body, with a call's end of our own.
pub fn write_end(out: &mut Vec<u8>, status: u8, error: &str) {
    write!(out, "0\r\ngrpc-status: {status}\r\ngrpc-message: {error}\r\n\r\n")
        .expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_told_apart() {
        for (text, expected) in [
            ("application/grpc", true),
            ("Application/GRPC+proto", true),
            ("application/grpc;x", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn timeouts_have_a_unit_and_at_most_eight_digits() {
        for (text, expected) in [
            ("1S", Some(1_000_000_000)),
            ("250m", Some(250_000_000)),
            ("99999999H", Some(u64::MAX)),
            ("7u", Some(7_000)),
            ("123456789n", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("", None),
        ] {
            assert_eq!(timeout_ns(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_status_that_is_none_is_unknown() {
        for (text, expected) in [("0", 0), ("14", 14), ("17", 2), ("x", 2), ("", 2)] {
            assert_eq!(status(text.as_bytes()), expected, "{text}");
        }
    }
}
