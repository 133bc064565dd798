//! Paths as routing compares them, and as the servers behind get them.
//!
//! A guard is worth what it compares: a server that decodes `/%61dmin` must not show what a rule
//! for `/admin` keeps. So every path is compared in one spelling that folds together whatever some
//! server takes for the same, and where a path decided, that reading is also what is forwarded.
//! What servers read in ways that cannot be settled so is named, to be refused.

use std::borrow::Cow;

/// A request's path as routing reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The path as it is compared: escapes decoded where a plain character says the same and in
    /// upper case elsewhere, dot segments resolved, slashes merged, and each segment without its
    /// parameters (from `;`, or an escaped `;`, `?` or `#`) and without dots and spaces at its end.
    pub compared: Cow<'a, [u8]>,
    /// What servers do not agree on.
    pub ambiguity: Option<Ambiguity>,
}

/// What servers read differently in a path, so that nobody can say which page it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguity {
    /// `%2f`: a slash for some, a character of a name for others.
    #[error("an escaped slash")]
    Slash,
    /// `\` or `%5c`: a slash for some.
    #[error("a backslash")]
    Backslash,
    /// `%00` to `%1f`, `%7f`: the end of the path for some, left out by others.
    #[error("an escaped control character")]
    Control,
    /// A `%` without two digits: refused, taken literally, or read in dialects (`%u0061`).
    #[error("an incomplete escape")]
    Escape,
    /// `%2561`: an escape of an escape, which some decode twice.
    #[error("an escaped escape")]
    Twice,
    /// Escapes that are no UTF-8: overlong forms of `/` and `.`, or another character set.
    #[error("escapes that are no UTF-8")]
    Charset,
    /// `..;` and the like: a step up for those who take parameters and spaces off first.
    #[error("dots with parameters or spaces")]
    Dots,
}

/// Splits a target into path and query.
#[must_use]
pub fn split(path_and_query: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', path_and_query) {
        Some(at) => (&path_and_query[..at], &path_and_query[at + 1..]),
        None => (path_and_query, b""),
    }
}

/// Reads a request's path for comparison.
#[must_use]
pub fn read(path: &[u8]) -> Reading<'_> {
    if is_plain(path) {
        return Reading { compared: Cow::Borrowed(path), ambiguity: None };
    }
    let (spelled, ambiguity) = spell(path);
    let are_dots = |segment: &[u8]| fold(segment).1;
    let has_dots = spelled.split(|&byte| byte == b'/').any(are_dots);
    let ambiguity = ambiguity.or(has_dots.then_some(Ambiguity::Dots));
    Reading { compared: Cow::Owned(Resolved::of(&spelled).compared()), ambiguity }
}

/// The path as the servers behind get it where it decided something: escapes of plain characters
/// decoded, the others in upper case, dot segments resolved (RFC 3986 §6.2.2), and slashes merged
/// unless `keep_slashes`. It is compared like the path itself.
#[must_use]
pub fn forwarded(path: &[u8], keep_slashes: bool) -> Cow<'_, [u8]> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let spelled = spell(path).0;
    Cow::Owned(Resolved::of(&spelled).forwarded(keep_slashes))
}

/// A path of the configuration as requests are compared with it.
#[must_use]
pub fn configured(path: &str) -> Box<[u8]> {
    // What begins a query in a request ends no path here: such a text fits nothing, and the check
    // of the configuration says so.
    let is_none = path.bytes().any(|byte| matches!(byte, b'?' | b'#'));
    if is_none { path.as_bytes().into() } else { read(path.as_bytes()).compared.into() }
}

/// The text that paths of the configuration begin with, as requests are compared with it: its last
/// segment may go on, so nothing is folded there.
#[must_use]
pub fn configured_start(start: &str) -> Box<[u8]> {
    let Some(slash) = start.rfind('/').filter(|_| start.starts_with('/')) else {
        return start.as_bytes().into();
    };
    let mut folded = configured(&start[..=slash]).into_vec();
    push_canonical(&mut folded, &spell(&start.as_bytes()[slash + 1..]).0);
    folded.into()
}

/// What is behind the first segments of a forwarded path, as many as `prefix` has: begins with a
/// slash, or is empty.
#[must_use]
pub fn behind<'a>(forwarded: &'a [u8], prefix: &[u8]) -> &'a [u8] {
    let is_some = |segment: &&[u8]| !segment.is_empty();
    let mut left = prefix.split(|&byte| byte == b'/').filter(is_some).count();
    let mut at = 0;
    while left > 0 && at < forwarded.len() {
        let rest = &forwarded[at + 1..];
        let segment = &rest[..memchr::memchr(b'/', rest).unwrap_or(rest.len())];
        left -= usize::from(!fold(segment).0.is_empty());
        at += 1 + segment.len();
    }
    &forwarded[at..]
}

/// Whether `path` is `prefix` or lies below it: `/api` has `/api/x` and not `/apix`.
#[must_use]
pub fn has_prefix(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    if prefix.is_empty() {
        return true;
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A byte that needs a closer look wherever it stands.
const ODD: u8 = 1 << 0;
/// A slash or a dot: two of them in a row need a closer look.
const EDGE: u8 = 1 << 1;
/// Says the same as its escape, for everybody (RFC 3986 §2.3).
const UNRESERVED: u8 = 1 << 2;
/// Stands for itself in a segment, and its escape is compared like it.
const SAME: u8 = 1 << 3;

const CLASS: [u8; 256] = {
    let mut classes = [ODD; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        classes[byte as usize] = match byte {
            b'/' => EDGE,
            b'.' => EDGE | UNRESERVED,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => UNRESERVED,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => {
                SAME
            }
            _ => ODD,
        };
        byte += 1;
    }
    classes
};

fn is(byte: u8, class: u8) -> bool {
    CLASS[usize::from(byte)] & class != 0
}

/// Whether there is nothing to decode, resolve, merge or fold: one pass without a branch.
fn is_plain(path: &[u8]) -> bool {
    let (mut odd, mut last) = (0, 0);
    for &byte in path {
        let class = CLASS[usize::from(byte)];
        odd |= class & (last | ODD);
        last = class & EDGE;
    }
    // `OPTIONS *` has no segments at all.
    (odd == 0 && path.last() != Some(&b'.')) || path.first() != Some(&b'/')
}

/// Every escape in its one spelling, and what is ambiguous in that.
fn spell(path: &[u8]) -> (Vec<u8>, Option<Ambiguity>) {
    let mut spelled = Vec::with_capacity(path.len() + 8);
    let mut decoded = Vec::with_capacity(path.len());
    let (mut ambiguity, mut at) = (None, 0);
    while let Some(&byte) = path.get(at) {
        let escaped = escaped(&path[at..]);
        at += if escaped.is_some() { 3 } else { 1 };
        let value = escaped.unwrap_or(byte);
        decoded.push(value);
        match escaped {
            Some(value) if !is(value, UNRESERVED) => push_escape(&mut spelled, value),
            // Or what follows would complete it once that is decoded. And what no request can have
            // stands in the configuration only.
            None if byte == b'%' || !byte.is_ascii_graphic() => push_escape(&mut spelled, byte),
            _ => spelled.push(value),
        }
        ambiguity = ambiguity.or(match (value, escaped) {
            (b'/', Some(_)) => Some(Ambiguity::Slash),
            (b'\\', _) => Some(Ambiguity::Backslash),
            (0..0x20 | 0x7f, _) => Some(Ambiguity::Control),
            (b'%', None) => Some(Ambiguity::Escape),
            _ => None,
        });
    }
    let is_twice = || (0..decoded.len()).any(|at| self::escaped(&decoded[at..]).is_some());
    let further = || match () {
        () if is_twice() => Some(Ambiguity::Twice),
        () if std::str::from_utf8(&decoded).is_err() => Some(Ambiguity::Charset),
        () => None,
    };
    let ambiguity = ambiguity.or_else(further);
    (spelled, ambiguity)
}

/// The byte that the escape at the start of `text` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
    out.extend([b'%', high, low]);
}

/// Appends a spelled segment so that every byte it can stand for has one way to be written.
fn push_canonical(out: &mut Vec<u8>, segment: &[u8]) {
    let mut at = 0;
    while let Some(&byte) = segment.get(at) {
        let escaped = escaped(&segment[at..]);
        at += if escaped.is_some() { 3 } else { 1 };
        match escaped {
            Some(value) if is(value, SAME) => out.push(value),
            Some(value) => push_escape(out, value),
            None if is(byte, SAME | UNRESERVED) || byte == b';' => out.push(byte),
            None => push_escape(out, byte),
        }
    }
}

/// A spelled path in segments, without any that is a dot or two.
struct Resolved<'a> {
    segments: Vec<&'a [u8]>,
    /// It ends behind a slash.
    is_directory: bool,
}

impl<'a> Resolved<'a> {
    fn of(spelled: &'a [u8]) -> Self {
        let mut segments: Vec<&[u8]> = Vec::new();
        let mut is_directory = false;
        for segment in spelled[1..].split(|&byte| byte == b'/') {
            is_directory = matches!(segment, b"" | b"." | b"..");
            match segment {
                b"." => {}
                b".." => {
                    // Slashes in a row are one, so a step up passes them all.
                    while segments.pop().is_some_and(<[u8]>::is_empty) {}
                }
                _ => segments.push(segment),
            }
        }
        Self { segments, is_directory }
    }

    fn compared(&self) -> Vec<u8> {
        let mut compared = Vec::new();
        let mut is_directory = self.is_directory;
        for (position, segment) in self.segments.iter().enumerate() {
            let folded = fold(segment).0;
            if folded.is_empty() {
                is_directory |= position + 1 == self.segments.len();
            } else {
                compared.push(b'/');
                push_canonical(&mut compared, folded);
            }
        }
        if is_directory || compared.is_empty() {
            compared.push(b'/');
        }
        compared
    }

    fn forwarded(&self, keep_slashes: bool) -> Vec<u8> {
        let mut forwarded = Vec::new();
        for segment in self.segments.iter().filter(|one| keep_slashes || !one.is_empty()) {
            forwarded.push(b'/');
            forwarded.extend_from_slice(segment);
        }
        let ends_so = forwarded.last() == Some(&b'/');
        if forwarded.is_empty() || (self.is_directory && !ends_so) {
            forwarded.push(b'/');
        }
        forwarded
    }
}

/// A segment without its parameters, and without dots and spaces at its end; and whether what is
/// left of it is dots, though it is more than that. Such a segment stays whole.
fn fold(segment: &[u8]) -> (&[u8], bool) {
    let is_end = |at: usize| {
        let rest = &segment[at..];
        rest[0] == b';' || [b"%3B", b"%3F", b"%23"].iter().any(|end| rest.starts_with(*end))
    };
    let end = (0..segment.len()).find(|&at| is_end(at)).unwrap_or(segment.len());
    let mut text = &segment[..end];
    let (mut has_dot, mut has_space) = (false, false);
    loop {
        if let Some(rest) = text.strip_suffix(b".") {
            (text, has_dot) = (rest, true);
        } else if let Some(rest) = text.strip_suffix(b"%20") {
            (text, has_space) = (rest, true);
        } else {
            break;
        }
    }
    match (text.is_empty(), has_dot || has_space) {
        (true, true) if has_dot && (has_space || end < segment.len()) => (segment, true),
        (true, true) => (&segment[..end], false),
        _ => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compared(path: &str) -> String {
        String::from_utf8(read(path.as_bytes()).compared.into()).unwrap()
    }

    #[test]
    fn paths_are_compared_in_one_spelling() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a//b/", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a/.../b", "/a/.../b"),
            ("/a/.hidden", "/a/.hidden"),
            ("/a/%20", "/a/%20"),
            ("/a/%20;x", "/a/%20"),
            ("//", "/"),
            ("/%61dmin", "/admin"),
            ("/%61%64%6D%69%6e", "/admin"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%40b%2bc", "/a@b+c"),
            ("/a%7cb|c", "/a%7Cb%7Cc"),
            ("/admin;a=b", "/admin"),
            ("/admin;/x;y", "/admin/x"),
            ("/admin/;a", "/admin/"),
            ("/;/admin", "/admin"),
            ("/admin%3ba", "/admin"),
            ("/admin%3fa", "/admin"),
            ("/admin%23", "/admin"),
            ("/admin.", "/admin"),
            ("/admin%20.%20/x", "/admin/x"),
            ("/a.b/c", "/a.b/c"),
            ("/x/..%2Fadmin", "/x/..%2Fadmin"),
            ("/100%", "/100%25"),
            ("/%%36%31", "/%2561"),
            ("*", "*"),
        ] {
            assert_eq!(compared(path), expected, "{path}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_named() {
        for (path, expected) in [
            ("/x/..%2fadmin", Some(Ambiguity::Slash)),
            ("/%2Fadmin", Some(Ambiguity::Slash)),
            ("/x\\..\\admin", Some(Ambiguity::Backslash)),
            ("/x%5c..%5Cadmin", Some(Ambiguity::Backslash)),
            ("/admin%00", Some(Ambiguity::Control)),
            ("/admin%0a", Some(Ambiguity::Control)),
            ("/admin%7f", Some(Ambiguity::Control)),
            ("/admin%", Some(Ambiguity::Escape)),
            ("/admin%4", Some(Ambiguity::Escape)),
            ("/%zz", Some(Ambiguity::Escape)),
            ("/%u0061dmin", Some(Ambiguity::Escape)),
            ("/%2561dmin", Some(Ambiguity::Twice)),
            ("/%25%36%31dmin", Some(Ambiguity::Twice)),
            ("/%c0%ae%c0%ae/admin", Some(Ambiguity::Charset)),
            ("/x%c0%afadmin", Some(Ambiguity::Charset)),
            ("/caf%e9", Some(Ambiguity::Charset)),
            ("/x/..;/admin", Some(Ambiguity::Dots)),
            ("/x/.;a=b/admin", Some(Ambiguity::Dots)),
            ("/x/.;/../admin", Some(Ambiguity::Dots)),
            ("/x/%2e%2e;/admin", Some(Ambiguity::Dots)),
            ("/x/..%3b/admin", Some(Ambiguity::Dots)),
            ("/x/..%20/admin", Some(Ambiguity::Dots)),
            ("/x/..%3f/admin", Some(Ambiguity::Dots)),
            ("/x/../admin", None),
            ("/admin;a=b", None),
            ("/caf%C3%A9/100%25", None),
            ("/a/...", None),
            ("/%20", None),
        ] {
            assert_eq!(read(path.as_bytes()).ambiguity, expected, "{path}");
        }
    }

    #[test]
    fn what_is_forwarded_keeps_what_only_the_server_knows() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/%61/%2b;x=%2F/..", "/a/"),
            ("/%61%2b;x=%3d", "/a%2B;x=%3D"),
            ("//a//b//", "/a/b/"),
            ("/a/.", "/a/"),
            ("/a\"<>|", "/a\"<>|"),
            ("/a.", "/a."),
        ] {
            assert_eq!(
                String::from_utf8_lossy(&forwarded(path.as_bytes(), false)),
                expected,
                "{path}"
            );
        }
        assert_eq!(&*forwarded(b"/go/https://%61/x//../y", true), b"/go/https://a/y");
    }

    #[test]
    fn what_is_behind_a_prefix_is_found_in_the_spelling_of_the_client() {
        for (path, prefix, expected) in [
            ("/v1/x", "/v1", "/x"),
            ("/v1", "/v1", ""),
            ("/v1/", "/v1/", "/"),
            ("/a%40b;c/x%2B", "/a@b", "/x%2B"),
            ("/;/v1/x", "/v1", "/x"),
            ("/x", "/", "/x"),
        ] {
            assert_eq!(behind(path.as_bytes(), prefix.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn paths_of_the_configuration_are_read_alike() {
        for (text, expected) in [
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café x", "/caf%C3%A9%20x"),
            ("/a/../b", "/b"),
            ("//x", "/x"),
            ("/x?y", "/x?y"),
        ] {
            assert_eq!(&*configured(text), expected.as_bytes(), "{text}");
        }
        for (text, expected) in
            [("/.", "/."), ("/a//v1.", "/a/v1."), ("/%61", "/a"), ("", ""), ("/a/..", "/a/..")]
        {
            assert_eq!(&*configured_start(text), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        for (path, prefix, expected) in [
            ("/api", "/api", true),
            ("/api/", "/api", true),
            ("/api/x", "/api/", true),
            ("/api", "/api/", true),
            ("/apix", "/api", false),
            ("/", "/", true),
            ("/x", "/", true),
            ("*", "/", true),
            ("/ap", "/api", false),
        ] {
            assert_eq!(has_prefix(path.as_bytes(), prefix.as_bytes()), expected, "{path} {prefix}");
        }
    }

    /// Paths of few kinds of pieces, so that they meet in every order.
    fn paths() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "/", "/", ".", "..", "a", "admin", "x", "%61", "%2e", "%2F", "%5c", "\\", ";", "%3B",
            "=", "%3d", "%20", "%25", "%", "4", "1", "%c3%a9", "%C0%AE", "%3F", "%23", "\"", "@",
            "%40", "%00",
        ];
        let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..12);
        pieces.prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    /// As servers do that decode once and then look: what some of them take off, slashes and dots.
    fn served(path: &[u8], takes_off: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < path.len() {
            let value = escaped(&path[at..]);
            at += if value.is_some() { 3 } else { 1 };
            decoded.push(value.unwrap_or(path[at - 1]));
        }
        let mut segments: Vec<&[u8]> = Vec::new();
        for segment in decoded.split(|byte| b"/\\".contains(byte)) {
            let end = segment.iter().position(|byte| takes_off.contains(byte));
            match &segment[..end.unwrap_or(segment.len())] {
                b"" | b"." => {}
                b".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        segments.join(&b'/')
    }

    proptest! {
        #[test]
        fn reading_again_changes_nothing(path in paths(), keep_slashes: bool) {
            let reading = read(path.as_bytes());
            prop_assert_eq!(&read(&reading.compared).compared, &reading.compared);
            let forwarded = forwarded(path.as_bytes(), keep_slashes);
            prop_assert_eq!(&super::forwarded(&forwarded, keep_slashes), &forwarded);
            prop_assert_eq!(&read(&forwarded).compared, &reading.compared);
            prop_assert!(!reading.compared.split(|&byte| byte == b'/').any(|one| one == b".."));
        }

        #[test]
        fn no_server_sees_below_what_the_guard_did_not(path in paths()) {
            let reading = read(path.as_bytes());
            if reading.ambiguity.is_none() && !has_prefix(&reading.compared, b"/admin") {
                let forwarded = forwarded(path.as_bytes(), false);
                for takes_off in [&b""[..], b";", b";?#", b"?#"] {
                    let served = served(&forwarded, takes_off);
                    prop_assert!(!has_prefix(&served, b"admin"), "{}", forwarded.escape_ascii());
                }
            }
        }
    }
}
