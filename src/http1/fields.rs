//! Field lines of a head: spans into the bytes read, and what they say about framing.

use memchr::memchr;

pub use super::known::Known;

/// The largest heads and the most fields that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a head, start line and final empty line included.
    pub head_bytes: usize,
    /// Most field lines of a head.
    pub header_count: usize,
}

impl Default for Limits {
    /// 64 KiB and 128 fields: what Envoy and HAProxy accept in their defaults, rounded up.
    fn default() -> Self {
        Self { head_bytes: 64 * 1024, header_count: 128 }
    }
}

/// The protocol version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, closes unless told otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Why a head is refused. The text is also the label of the refusal's metric and log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadError {
    /// The start line is no request line or status line.
    #[error("start line is malformed")]
    StartLine,
    /// The version is not HTTP/1.0 or HTTP/1.1.
    #[error("version is not supported")]
    Version,
    /// The request target is none of the four forms or has forbidden bytes.
    #[error("request target is malformed")]
    Target,
    /// A line ends in LF without CR, or has a CR within.
    #[error("line ending is not CR LF")]
    LineEnding,
    /// A field name is empty, has a forbidden byte, or is followed by a space.
    #[error("field name is malformed")]
    FieldName,
    /// A field value has a control byte.
    #[error("field value has a control byte")]
    FieldValue,
    /// A field line begins with a space: the folding that RFC 9112 retired.
    #[error("field line is folded")]
    Folded,
    /// Host is missing, given twice, or malformed.
    #[error("host is missing, doubled or malformed")]
    Host,
    /// Content-Length is doubled, signed, empty, or too large.
    #[error("content-length is doubled or malformed")]
    ContentLength,
    /// Transfer-Encoding is not exactly `chunked`, doubled, or used with HTTP/1.0.
    #[error("transfer-encoding is not exactly chunked")]
    TransferEncoding,
    /// Both Content-Length and Transfer-Encoding are present.
    #[error("content-length together with transfer-encoding")]
    TwoFramings,
    /// The head is longer than [`Limits::head_bytes`].
    #[error("head is too long")]
    TooLong,
    /// There are more fields than [`Limits::header_count`].
    #[error("too many fields")]
    TooManyFields,
}

/// One field line as spans into the head's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which of the fields that matter it is.
    pub known: Known,
    name_len: u16,
    start: u32,
    value_start: u32,
    value_end: u32,
    end: u32,
}

impl Field {
    /// The name as written.
    #[must_use]
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start as usize..self.start as usize + usize::from(self.name_len)]
    }

    /// The value without the white space around it.
    #[must_use]
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.value_start as usize..self.value_end as usize]
    }

    /// Where the line starts.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Where the next line starts.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end as usize
    }
}

/// What the fields of a head say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The value of the one Content-Length.
    pub content_length: Option<u64>,
    /// Transfer-Encoding is `chunked`.
    pub chunked: bool,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// `Connection: upgrade`.
    pub connection_upgrade: bool,
    /// Connection names further fields, which must not be forwarded.
    pub nominates: bool,
    /// An Upgrade field is there.
    pub upgrade: bool,
    /// `TE` has the member `trailers`.
    pub te_trailers: bool,
    /// An Expect field is there: the client may wait for a 100 before it sends its body.
    pub expects: bool,
    /// Position of the one Host in the fields.
    pub host: Option<usize>,
}

/// Reads the field lines from `at` on into `fields`.
///
/// `Ok(None)` when the head is not complete yet, else what they say and where the body starts.
///
/// # Errors
/// The first line that is refused, or a limit that is passed.
pub fn read(
    bytes: &[u8],
    at: usize,
    version: Version,
    limits: Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<(Facts, usize)>, HeadError> {
    let mut facts = Facts::default();
    let end =
        each(bytes, at, limits, fields, |field, position| facts.note(field, bytes, position))?;
    let Some(end) = end else { return Ok(None) };
    facts.check(version)?;
    Ok(Some((facts, end)))
}

/// Reads field lines that say nothing of framing, whatever their names are, into `fields`: trailers.
///
/// `Ok(None)` when the final empty line is not there, else where it ends.
///
/// # Errors
/// The first line that is refused, or a limit that is passed.
pub fn lines(
    bytes: &[u8],
    limits: Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<usize>, HeadError> {
    each(bytes, 0, limits, fields, |_, _| Ok(()))
}

/// Reads field lines into `fields`, each of them, with its position, shown to `note`.
#[inline]
fn each(
    bytes: &[u8],
    mut at: usize,
    limits: Limits,
    fields: &mut Vec<Field>,
    mut note: impl FnMut(Field, usize) -> Result<(), HeadError>,
) -> Result<Option<usize>, HeadError> {
    fields.clear();
    loop {
        let Some(length) = memchr(b'\n', &bytes[at..]) else {
            // A fault in a half-read line is seen when the line is whole: one place decides.
            return if bytes.len() >= limits.head_bytes {
                Err(HeadError::TooLong)
            } else {
                Ok(None)
            };
        };
        let end = at + length + 1;
        if end > limits.head_bytes {
            return Err(HeadError::TooLong);
        }
        if length == 0 || bytes[end - 2] != b'\r' {
            return Err(HeadError::LineEnding);
        }
        if length == 1 {
            return Ok(Some(end));
        }
        if fields.len() == limits.header_count {
            return Err(HeadError::TooManyFields);
        }
        let field = line(bytes, at, end)?;
        note(field, fields.len())?;
        fields.push(field);
        at = end;
    }
}

/// Reads the field line `bytes[start..end]`, which ends in CR LF.
#[expect(clippy::cast_possible_truncation, reason = "limits keep heads far below 4 GiB")]
fn line(bytes: &[u8], start: usize, end: usize) -> Result<Field, HeadError> {
    let content = &bytes[start..end - 2];
    let (name_len, is_odd) = name(content);
    match content.get(name_len) {
        Some(b':') if name_len > 0 => {}
        _ if matches!(content[0], b' ' | b'\t') => return Err(HeadError::Folded),
        _ => return Err(HeadError::FieldName),
    }
    let name_len_short = u16::try_from(name_len).map_err(|_| HeadError::FieldName)?;
    let value = &content[name_len + 1..];
    if has_control(value) {
        let carriage_return = memchr(b'\r', value).is_some();
        return Err(if carriage_return { HeadError::LineEnding } else { HeadError::FieldValue });
    }
    let lead = value.iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
    let trail =
        value[lead..].iter().rev().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
    Ok(Field {
        known: if is_odd { Known::Odd } else { Known::of(&content[..name_len]) },
        name_len: name_len_short,
        start: start as u32,
        value_start: (start + name_len + 1 + lead) as u32,
        value_end: (end - 2 - trail) as u32,
        end: end as u32,
    })
}

/// How much of `content` is a token, and whether more than letters, digits and `-` is in it.
fn name(content: &[u8]) -> (usize, bool) {
    let mut kinds = 0;
    let is_of_name = |&&byte: &&u8| {
        let kind = TOKEN[usize::from(byte)];
        kinds |= kind;
        kind != 0
    };
    let length = content.iter().take_while(is_of_name).count();
    (length, kinds & ODD != 0)
}

impl Facts {
    fn note(&mut self, field: Field, bytes: &[u8], position: usize) -> Result<(), HeadError> {
        let value = || field.value(bytes);
        match field.known {
            Known::Host if self.host.is_some() => return Err(HeadError::Host),
            Known::Host => self.host = Some(position),
            Known::ContentLength if self.content_length.is_some() => {
                return Err(HeadError::ContentLength);
            }
            Known::ContentLength => self.content_length = Some(content_length(value())?),
            Known::TransferEncoding => {
                if self.chunked || !value().eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferEncoding);
                }
                self.chunked = true;
            }
            Known::Connection => self.note_connection(value()),
            Known::Upgrade => self.upgrade = true,
            Known::Expect => self.expects = true,
            Known::Te => {
                self.te_trailers |=
                    members(value()).any(|member| member.eq_ignore_ascii_case(b"trailers"));
            }
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        for member in members(value) {
            if member.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if member.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if member.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else {
                self.nominates = true;
            }
        }
    }

    fn check(&self, version: Version) -> Result<(), HeadError> {
        if self.chunked && version == Version::Http10 {
            return Err(HeadError::TransferEncoding);
        }
        if self.chunked && self.content_length.is_some() {
            return Err(HeadError::TwoFramings);
        }
        Ok(())
    }

    /// Whether the connection may carry another message after this one (RFC 9112 §9.3).
    #[must_use]
    pub fn persists(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

/// The non-empty members of a comma-separated list.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Digits only, at most 19 of them (so that it fits in 64 bits): RFC 9112 §6.3.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::ContentLength);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Whether a value has a byte that is neither visible, a space, a tab nor above ASCII.
#[must_use]
pub fn has_control(value: &[u8]) -> bool {
    // Without an early exit the compiler makes this a handful of vector instructions.
    value
        .iter()
        .fold(false, |found, &byte| found | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// Whether `byte` may stand in a method or field name (RFC 9110 §5.6.2).
#[must_use]
pub const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize] != 0
}

/// The bytes of a token: what names are made of, and what servers fold to `-`.
const TOKEN: [u8; 256] = {
    let plain = bytes_of(b"-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    let odd = bytes_of(b"!#$%&'*+.^_`|~");
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        table[index] = if plain[index] {
            PLAIN
        } else if odd[index] {
            ODD
        } else {
            0
        };
        index += 1;
    }
    table
};
const PLAIN: u8 = 1;
const ODD: u8 = 2;

/// A table that is true for the bytes in `allowed`.
pub(super) const fn bytes_of(allowed: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut index = 0;
    while index < allowed.len() {
        table[allowed[index] as usize] = true;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(lines: &str) -> Result<Facts, HeadError> {
        let head = format!("{lines}\r\n");
        let read = read(head.as_bytes(), 0, Version::Http11, Limits::default(), &mut Vec::new());
        read.map(|complete| complete.expect("the head is whole").0)
    }

    #[test]
    fn framing_fields_are_strict() {
        for (lines, error) in [
            ("content-length: 1\r\ncontent-length: 1\r\n", HeadError::ContentLength),
            ("content-length: 1, 1\r\n", HeadError::ContentLength),
            ("content-length: +1\r\n", HeadError::ContentLength),
            ("content-length: -1\r\n", HeadError::ContentLength),
            ("content-length: 1 1\r\n", HeadError::ContentLength),
            ("content-length: 0x1\r\n", HeadError::ContentLength),
            ("content-length:\r\n", HeadError::ContentLength),
            ("content-length: 18446744073709551616\r\n", HeadError::ContentLength),
            ("transfer-encoding: gzip, chunked\r\n", HeadError::TransferEncoding),
            ("transfer-encoding: chunked, chunked\r\n", HeadError::TransferEncoding),
            ("transfer-encoding: xchunked\r\n", HeadError::TransferEncoding),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                HeadError::TransferEncoding,
            ),
            ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", HeadError::TwoFramings),
            ("host: a\r\nhost: a\r\n", HeadError::Host),
        ] {
            assert_eq!(facts(lines), Err(error), "{lines:?}");
        }
    }

    #[test]
    fn lines_are_strict() {
        for (lines, error) in [
            ("a: b\n", HeadError::LineEnding),
            ("a: b\rc\r\n", HeadError::LineEnding),
            ("a : b\r\n", HeadError::FieldName),
            (": b\r\n", HeadError::FieldName),
            ("a\r\n", HeadError::FieldName),
            ("a: b\r\n c\r\n", HeadError::Folded),
            ("\ta: b\r\n", HeadError::Folded),
            ("a: \0\r\n", HeadError::FieldValue),
            ("a: \x7f\r\n", HeadError::FieldValue),
            ("a(b: c\r\n", HeadError::FieldName),
        ] {
            assert_eq!(facts(lines), Err(error), "{lines:?}");
        }
    }

    #[test]
    fn values_lose_only_the_white_space_around_them() {
        let head = b"a: \t b c \t\r\nempty:\r\n\r\n";
        let mut fields = Vec::new();
        read(head, 0, Version::Http11, Limits::default(), &mut fields).unwrap().unwrap();
        assert_eq!(fields[0].value(head), b"b c");
        assert_eq!(fields[0].name(head), b"a");
        assert_eq!(fields[1].value(head), b"");
    }

    #[test]
    fn limits_hold() {
        let limits = Limits { head_bytes: 20, header_count: 2 };
        let read_with = |head: &[u8]| read(head, 0, Version::Http11, limits, &mut Vec::new());
        assert_eq!(read_with(b"a: 1\r\nb: 2\r\nc:\r\n\r\n"), Err(HeadError::TooManyFields));
        assert_eq!(read_with(b"a: 123456789012345678"), Err(HeadError::TooLong));
        assert_eq!(read_with(b"a: 12345678901234567\r\n"), Err(HeadError::TooLong));
        assert_eq!(read_with(b"a: 1\r\n"), Ok(None));
    }

    #[test]
    fn connection_members_are_told_apart() {
        let facts = facts("connection: Close, upgrade , x-secret\r\n").unwrap();
        assert!(facts.close && facts.connection_upgrade && facts.nominates && !facts.keep_alive);
    }
}
