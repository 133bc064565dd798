//! What goes on of trailers: nothing that means something where a head is read.
//!
//! Trailers come when routing, guards and sanitising are over, and servers that merge them with the
//! head (RFC 9110 §6.5.1) would believe what its sender was not allowed to say there.

use super::body::BodyError;
use super::fields::{self, Known, Limits};
use super::owned::folded;

/// Most trailers of one message: as many as a head has by default.
const COUNT_MAX: usize = 128;

/// Longest name that goes on.
const NAME_BYTES_MAX: usize = 128;

/// Appends what goes on of `raw`, field lines with their final empty line, and that line. `removed`
/// says which further names, as they are written, do not.
///
/// # Errors
/// Lines that are no fields, or too many; nothing is appended then.
pub fn write(
    out: &mut Vec<u8>,
    raw: &[u8],
    removed: impl Fn(&[u8]) -> bool,
) -> Result<(), BodyError> {
    let mut found = Vec::new();
    let limits = Limits { head_bytes: raw.len() + 1, header_count: COUNT_MAX };
    let lines = fields::lines(raw, limits, &mut found).map_err(|_| BodyError)?;
    if lines != Some(raw.len()) {
        return Err(BodyError);
    }
    for field in &found {
        let name = field.name(raw);
        if !is_of_heads(name) && !removed(name) {
            for part in [name, b": ", field.value(raw), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether a field, however it is spelled, belongs into heads only: it frames, routes, modifies,
/// authenticates, controls or describes the message (RFC 9110 §6.5.1), belongs to the connection, or
/// tells who the client is.
#[must_use]
pub fn is_of_heads(name: &[u8]) -> bool {
    // Whatever family it is of, nobody sends such a name in earnest.
    if name.len() > NAME_BYTES_MAX {
        return true;
    }
    let name = folded(name);
    Known::named(&name) != Known::Other
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
        || NAMES.iter().any(|one| one.as_bytes() == name)
}

/// The beginnings of such names beside those of [`Known`]: families that grow.
const PREFIXES: [&str; 4] = ["if-", "proxy-", "sec-", "splitway-"];

/// Such names beside those of [`Known`].
const NAMES: [&str; 28] = [
    "accept",
    "accept-encoding",
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-location",
    "content-range",
    "content-type",
    "cookie2",
    "date",
    "expires",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "retry-after",
    "set-cookie",
    "set-cookie2",
    "trailer",
    "vary",
    "warning",
    "www-authenticate",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Owned;
    use proptest::prelude::*;

    fn written(raw: &str, removed: &[&str]) -> Result<String, BodyError> {
        let mut out = Vec::new();
        let owned = Owned::new(removed.iter().copied());
        write(&mut out, raw.as_bytes(), |name| owned.has(name))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_means_something_in_a_head_does_not_go_on_in_any_spelling() {
        for name in [
            "Host",
            "content-length",
            "Content_Length",
            "TRANSFER-ENCODING",
            "transfer_encoding",
            "trailer",
            "te",
            "Connection",
            "Upgrade",
            "Expect",
            "Authorization",
            "Cookie",
            "Set-Cookie",
            "Cache-Control",
            "If-Match",
            "Range",
            "Content-Type",
            "Content-Encoding",
            "Forwarded",
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded_Whatever",
            "X-Client-Certificate-Subject",
            "x_client_certificate_sans",
            "X-Splitway-Mirror",
            "splitway-error",
            "X-Real-IP",
            "x_real_ip",
            "Proxy",
            "Proxy-Authorization",
            "Via",
            "guarded",
            "Guarded",
            "x-guarded-one",
            "X_Guarded-One",
        ] {
            let raw = format!("{name}: 1\r\nx-sum:\t2 \r\n\r\n");
            let kept = written(&raw, &["guarded", "x-guarded-one"]);
            assert_eq!(kept.unwrap(), "x-sum: 2\r\n\r\n", "{name}");
        }
    }

    #[test]
    fn what_trailers_are_for_goes_on() {
        let raw = "grpc-status: 0\r\ngrpc-message: \r\ngrpc-status-details-bin: AA\r\n\
            Server-Timing: a;dur=1\r\nContent-Digest: sha-256=:x:\r\nETag: \"x\"\r\n\r\n";
        assert_eq!(written(raw, &[]).unwrap(), raw);
        assert_eq!(written("\r\n", &[]).unwrap(), "\r\n");
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for raw in ["", "a: b", "a: b\r\n", "a: b\r\n\r\nc", "a b: c\r\n\r\n", "a: \x01\r\n\r\n"] {
            assert_eq!(written(raw, &[]), Err(BodyError), "{raw:?}");
        }
        let many = "a: b\r\n".repeat(COUNT_MAX);
        assert!(written(&format!("{many}\r\n"), &[]).is_ok());
        assert_eq!(written(&format!("{many}a: b\r\n\r\n"), &[]), Err(BodyError));
    }

    proptest! {
        #[test]
        fn what_is_written_is_written_again_as_it_is(raw in "([a-zA-Z_-]{1,20}: ?[ -~]{0,9}\r\n){0,9}\r\n") {
            let once = written(&raw, &[]).unwrap();
            prop_assert_eq!(written(&once, &[]).unwrap(), once);
        }
    }
}
