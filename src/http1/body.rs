//! Where a body ends: lengths, chunks and close, checked while the bytes pass by.
//!
//! Bytes are forwarded as they came, so the reader only has to say how many belong to the body;
//! it takes every byte of chunk framing strictly, because the other side will read the very same
//! bytes and must not read them differently. Trailers alone are set aside, to be looked at when they
//! are whole.

use super::fields::is_token;

/// Most bytes of one chunk's extensions. Nobody uses them; attackers do.
pub const CHUNK_EXTENSION_BYTES_MAX: u32 = 256;

/// Most bytes of all trailers together: generous for gRPC and checksums, little to hold.
pub const TRAILER_BYTES_MAX: u32 = 16 * 1024;

/// Most hex digits of a chunk size: 60 bits, so that it cannot overflow.
const CHUNK_SIZE_DIGITS_MAX: u8 = 15;

/// Chunk framing that is not exactly what RFC 9112 §7.1 writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk framing is malformed")]
pub struct BodyError;

/// What was taken from the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many bytes belong to the body.
    pub used: usize,
    /// How many of these can be forwarded as they are; behind them are trailers.
    pub passed: usize,
}

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body(Rest);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// The place within chunk framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64, seen: u32 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    LineStart { seen: u32 },
    Name { seen: u32 },
    Value { seen: u32 },
    LineLf { seen: u32 },
    EndLf,
    Done,
}

impl Body {
    /// A body of `bytes`.
    #[must_use]
    pub const fn length(bytes: u64) -> Self {
        Self(Rest::Length(bytes))
    }

    /// A body in the chunked coding.
    #[must_use]
    pub const fn chunked() -> Self {
        Self(Rest::Chunked(Chunk::Size { size: 0, digits: 0 }))
    }

    /// A body that ends with the connection.
    #[must_use]
    pub const fn until_close() -> Self {
        Self(Rest::UntilClose)
    }

    /// How many bytes are left, where that was said.
    #[must_use]
    pub const fn counted(&self) -> Option<u64> {
        match self.0 {
            Rest::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.0, Rest::Length(0) | Rest::Chunked(Chunk::Done))
    }

    /// Whether only the end of the connection ends it.
    #[must_use]
    pub const fn is_until_close(&self) -> bool {
        matches!(self.0, Rest::UntilClose)
    }

    /// Whether it is in the chunked coding.
    #[must_use]
    pub const fn is_chunked(&self) -> bool {
        matches!(self.0, Rest::Chunked(_))
    }

    /// Whether a chunk, the last one among them, could begin here.
    #[must_use]
    pub const fn is_between_chunks(&self) -> bool {
        matches!(self.0, Rest::Chunked(Chunk::Size { size: 0, digits: 0 }))
    }

    /// Takes what belongs to the body from the start of `bytes`, says how much that was, and drops
    /// its trailers.
    ///
    /// With `data` given, the content without its framing is appended there.
    ///
    /// # Errors
    /// Malformed chunk framing; the body cannot be continued.
    pub fn read(&mut self, bytes: &[u8], data: Option<&mut Vec<u8>>) -> Result<usize, BodyError> {
        let taken = self.read_parts(bytes, data, &mut Vec::new())?;
        Ok(taken.used)
    }

    /// Takes what belongs to the body from the start of `bytes`. If there are trailers, their field
    /// lines and the final empty line are appended to `trailers`, which is theirs until the body is
    /// done.
    ///
    /// With `data` given, the content without its framing is appended there.
    ///
    /// # Errors
    /// Malformed chunk framing; the body cannot be continued.
    pub fn read_parts(
        &mut self,
        bytes: &[u8],
        data: Option<&mut Vec<u8>>,
        trailers: &mut Vec<u8>,
    ) -> Result<Taken, BodyError> {
        match &mut self.0 {
            Rest::Length(left) => {
                let used = bounded(*left, bytes.len());
                *left -= used as u64;
                extend(data, &bytes[..used]);
                Ok(Taken { used, passed: used })
            }
            Rest::UntilClose => {
                extend(data, bytes);
                Ok(Taken { used: bytes.len(), passed: bytes.len() })
            }
            Rest::Chunked(chunk) => chunk.read(bytes, data, trailers),
        }
    }
}

fn bounded(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

fn extend(data: Option<&mut Vec<u8>>, bytes: &[u8]) {
    if let Some(data) = data {
        data.extend_from_slice(bytes);
    }
}

impl Chunk {
    fn read(
        &mut self,
        bytes: &[u8],
        mut data: Option<&mut Vec<u8>>,
        trailers: &mut Vec<u8>,
    ) -> Result<Taken, BodyError> {
        let mut at = 0;
        let mut passed = if trailers.is_empty() { usize::MAX } else { 0 };
        while at < bytes.len() && *self != Self::Done {
            if let Self::Data { left } = self {
                let taken = bounded(*left, bytes.len() - at);
                extend(data.as_deref_mut(), &bytes[at..at + taken]);
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                at += taken;
            } else {
                *self = self.step(bytes[at])?;
                if !trailers.is_empty() || matches!(self, Self::Name { .. }) {
                    passed = passed.min(at);
                    trailers.push(bytes[at]);
                }
                at += 1;
            }
        }
        Ok(Taken { used: at, passed: passed.min(at) })
    }

    /// The state after one byte of framing.
    fn step(self, byte: u8) -> Result<Self, BodyError> {
        Ok(match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == CHUNK_SIZE_DIGITS_MAX {
                    return Err(BodyError);
                }
                let digit = char::from(byte).to_digit(16).ok_or(BodyError)?;
                Self::Size { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { size, digits }, b'\r') if digits > 0 => Self::SizeLf { size },
            (Self::Size { size, digits }, b';') if digits > 0 => Self::Extension { size, seen: 0 },
            (Self::Extension { size, .. }, b'\r') => Self::SizeLf { size },
            (Self::Extension { size, seen }, _) if is_text(byte) => {
                Self::Extension { size, seen: counted(seen, CHUNK_EXTENSION_BYTES_MAX)? }
            }
            (Self::SizeLf { size: 0 }, b'\n') => Self::LineStart { seen: 0 },
            (Self::SizeLf { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::LineStart { .. }, b'\r') => Self::EndLf,
            (Self::LineStart { seen } | Self::Name { seen }, _) if is_token(byte) => {
                Self::Name { seen: counted(seen, TRAILER_BYTES_MAX)? }
            }
            (Self::Name { seen }, b':') => Self::Value { seen },
            (Self::Value { seen }, b'\r') => Self::LineLf { seen },
            (Self::Value { seen }, _) if is_text(byte) => {
                Self::Value { seen: counted(seen, TRAILER_BYTES_MAX)? }
            }
            (Self::LineLf { seen }, b'\n') => Self::LineStart { seen },
            (Self::EndLf, b'\n') => Self::Done,
            _ => return Err(BodyError),
        })
    }
}

fn counted(seen: u32, most: u32) -> Result<u32, BodyError> {
    if seen < most { Ok(seen + 1) } else { Err(BodyError) }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `bytes` in pieces of `step` and returns the content and what was left over.
    fn read_all(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let (mut body, mut data, mut used) = (Body::chunked(), Vec::new(), 0);
        for piece in bytes.chunks(step) {
            let taken = body.read(piece, Some(&mut data))?;
            used += taken;
            if taken < piece.len() {
                break;
            }
        }
        Ok((data, bytes.len() - used, body.is_done()))
    }

    #[test]
    fn chunks_are_read_in_any_pieces() {
        let bytes = b"3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nGET";
        for step in 1..bytes.len() {
            assert_eq!(read_all(bytes, step), Ok((b"abc0123456789".to_vec(), 3, true)), "{step}");
        }
    }

    #[test]
    fn trailers_are_told_from_content() {
        let bytes = b"1\r\na\r\n0\r\nx-sum: 1\r\ny: 2\r\n\r\nrest";
        let (mut body, mut data, mut trailers) = (Body::chunked(), Vec::new(), Vec::new());
        let taken = body.read_parts(bytes, Some(&mut data), &mut trailers).unwrap();
        assert_eq!((taken.used, taken.passed, &*data), (bytes.len() - 4, 9, &b"a"[..]));
        assert_eq!(trailers, b"x-sum: 1\r\ny: 2\r\n\r\n");
        for step in 1..bytes.len() {
            let (mut body, mut passed, mut pieces) = (Body::chunked(), Vec::new(), Vec::new());
            for piece in bytes.chunks(step) {
                let taken = body.read_parts(piece, None, &mut pieces).unwrap();
                passed.extend_from_slice(&piece[..taken.passed]);
            }
            assert_eq!((&*passed, &pieces), (&bytes[..9], &trailers), "{step}");
        }
    }

    #[test]
    fn the_end_of_a_body_without_trailers_is_passed_on() {
        let bytes = b"1\r\na\r\n0\r\n\r\nrest";
        let (mut body, mut trailers) = (Body::chunked(), Vec::new());
        let taken = body.read_parts(bytes, None, &mut trailers);
        assert_eq!(taken, Ok(Taken { used: 11, passed: 11 }));
        assert_eq!((body.is_done(), trailers.is_empty()), (true, true));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bytes in [
            "\r\n",
            ";\r\n",
            "g\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1;\x01\r\n",
            "1;a\nb\r\n",
            "fffffffffffffffff\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\na b: c\r\n\r\n",
            "0\r\na: \0\r\n\r\n",
            "0\r\nabc\r\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(read_all(bytes.as_bytes(), 1), Err(BodyError), "{bytes:?}");
            assert_eq!(read_all(bytes.as_bytes(), 64), Err(BodyError), "{bytes:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("1;{}\r\n", "a".repeat(300));
        assert_eq!(read_all(extension.as_bytes(), 64), Err(BodyError));
        let trailers = format!("0\r\na: {}\r\n\r\n", "b".repeat(20_000));
        assert_eq!(read_all(trailers.as_bytes(), 64), Err(BodyError));
    }

    #[test]
    fn a_length_takes_no_more_than_its_own() {
        let mut body = Body::length(5);
        assert_eq!(body.read(b"abc", None), Ok(3));
        assert!(!body.is_done());
        assert_eq!(body.read(b"defg", None), Ok(2));
        assert!(body.is_done());
    }

    proptest! {
        #[test]
        fn what_is_chunked_reads_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            step in 1_usize..50,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read_all(&wire, step), Ok((chunks.concat(), 0, true)));
        }
    }
}
