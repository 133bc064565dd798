//! Counts the frames of an HTTP/2 client that cost us work and bring nothing: floods of resets,
//! pings, settings, empty data and continuations are broken off.
//!
//! The library below bounds what such frames make it hold; this bounds what they make it do
//! (CVE-2023-44487, CVE-2019-9512, -9515, -9518, CVE-2024-27316). Resets are counted apart: users
//! who leave make many of them, and a proxy in front brings those of all its users on one connection.

use std::time::Instant;

/// Such frames that a connection may send at once: far more than any client at work.
const BURST: f64 = 2_000.0;
/// And per second from then on.
const PER_SECOND: f64 = 200.0;
/// The client's preface ahead of all frames.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// The type of a frame that cancels a request.
const RST_STREAM: u8 = 3;

/// Reads frame headers as they pass.
#[derive(Debug)]
pub struct Guard {
    /// Bytes to pass before the next frame header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_len: usize,
    overhead: Bucket,
    resets: Bucket,
}

/// How many there may be yet.
#[derive(Debug)]
pub struct Bucket {
    left: f64,
    most: f64,
    per_s: f64,
    filled_at: Instant,
}

impl Bucket {
    /// `most` at once, and `per_s` a second from then on.
    #[must_use]
    pub fn new(most: f64, per_s: f64) -> Self {
        Self { left: most, most, per_s, filled_at: Instant::now() }
    }

    /// Takes one; false when there is none.
    #[must_use]
    pub fn take(&mut self) -> bool {
        self.left -= 1.0;
        if self.left < 0.0 {
            let now = Instant::now();
            let refill = now.duration_since(self.filled_at).as_secs_f64() * self.per_s;
            self.filled_at = now;
            self.left = (self.left + refill).min(self.most);
        }
        self.left >= 0.0
    }
}

impl Guard {
    /// What a connection that is broken off dies of.
    pub const MESSAGE: &'static str = "flood of http2 control frames";

    /// A guard ahead of the client's preface, with so many resets a second let pass.
    #[must_use]
    pub fn new(resets_per_s: u32) -> Self {
        // What comes in a second may come at once: a stall on the way brings it so.
        let resets_per_s = f64::from(resets_per_s);
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_len: 0,
            overhead: Bucket::new(BURST, PER_SECOND),
            resets: Bucket::new(resets_per_s, resets_per_s),
        }
    }

    /// Takes what was read; false when it is too much.
    #[must_use]
    pub fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER_BYTES - self.header_len).min(bytes.len());
            self.header[self.header_len..self.header_len + taken].copy_from_slice(&bytes[..taken]);
            self.header_len += taken;
            bytes = &bytes[taken..];
            if self.header_len == HEADER_BYTES {
                self.header_len = 0;
                let [high, middle, low, kind, flags, ..] = self.header;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let is_borne = match kind {
                    RST_STREAM => self.resets.take(),
                    _ => !is_overhead(kind, flags, self.skip) || self.overhead.take(),
                };
                if !is_borne {
                    return false;
                }
            }
        }
        true
    }
}

/// Whether a frame makes work and brings nothing (types of RFC 9113 §6).
fn is_overhead(kind: u8, flags: u8, length: usize) -> bool {
    const END_STREAM: u8 = 1;
    match kind {
        // DATA
        0 => length == 0 && flags & END_STREAM == 0,
        // PRIORITY, SETTINGS, PING, CONTINUATION
        2 | 4 | 6 | 9 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn guard() -> Guard {
        let mut guard = Guard::new(2_000);
        assert!(guard.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        guard
    }

    #[test]
    fn floods_are_told_from_traffic_in_any_pieces() {
        for (kind, flags, payload) in [(3, 0, 4), (6, 0, 8), (4, 0, 0), (0, 0, 0), (9, 0, 5)] {
            let bytes = frame(kind, flags, &[7; 9][..payload]).repeat(3_000);
            for step in [1, 13, 4_096] {
                let mut guard = guard();
                assert!(!bytes.chunks(step).all(|piece| guard.read(piece)), "{kind} {step}");
            }
        }
    }

    #[test]
    fn users_who_leave_are_borne_as_far_as_is_set() {
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
        for per_s in [10, 500, 10_000] {
            let mut guard = Guard::new(per_s);
            assert!(guard.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
            let count = usize::try_from(per_s).unwrap();
            assert!(guard.read(&reset.repeat(count)), "{per_s}");
            assert!(!guard.read(&reset.repeat(count)), "{per_s}");
        }
        // And they leave other frames their due.
        let mut guard = guard();
        assert!(guard.read(&reset.repeat(1_900)));
        assert!(guard.read(&frame(6, 0, &[0; 8]).repeat(1_900)));
    }

    #[test]
    fn traffic_is_let_pass() {
        let mut guard = guard();
        // Requests, bodies, their ends, and window updates, with an occasional ping.
        let mut bytes = Vec::new();
        for _ in 0..100 {
            bytes.extend(frame(1, 4, &[1; 40]));
            bytes.extend(frame(0, 0, &[2; 200]));
            bytes.extend(frame(0, 1, &[]));
            bytes.extend(frame(8, 0, &[0, 0, 1, 0]));
        }
        bytes.extend(frame(6, 0, &[0; 8]));
        for _ in 0..1_000 {
            assert!(guard.read(&bytes));
        }
    }
}
