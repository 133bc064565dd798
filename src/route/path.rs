//! Paths as routing compares them: dot segments resolved, prefixes by whole segments.

use std::borrow::Cow;

/// Splits a target into path and query.
#[must_use]
pub fn split(path_and_query: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', path_and_query) {
        Some(at) => (&path_and_query[..at], &path_and_query[at + 1..]),
        None => (path_and_query, b""),
    }
}

/// The path with its dot segments resolved, percent-encoded dots included (RFC 3986 §5.2.4).
///
/// Empty segments count as one slash, as every server behind reads them. The path that is
/// forwarded stays as it came.
#[must_use]
pub fn resolve(path: &[u8]) -> Cow<'_, [u8]> {
    let is_suspicious = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'.' | b'/' | b'%');
    if !path.windows(2).any(is_suspicious) {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_directory = false;
    for segment in path.split(|&byte| byte == b'/') {
        let dots = dot_segment(segment);
        is_directory = segment.is_empty() || dots > 0;
        match dots {
            2 => {
                segments.pop();
            }
            0 if !segment.is_empty() => segments.push(segment),
            _ => {}
        }
    }
    let mut resolved = Vec::with_capacity(path.len());
    for segment in &segments {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    if is_directory || resolved.is_empty() {
        resolved.push(b'/');
    }
    Cow::Owned(resolved)
}

/// 1 for `.`, 2 for `..`, each dot possibly percent-encoded; 0 for every other segment.
fn dot_segment(segment: &[u8]) -> u8 {
    let (mut rest, mut dots) = (segment, 0);
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return 0,
        };
        dots += 1;
        if dots > 2 {
            return 0;
        }
    }
    dots
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_resolved() {
        for (path, resolved) in [
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a//b/", "/a/b/"),
            ("/a/.../b", "/a/.../b"),
            ("/a/.hidden", "/a/.hidden"),
            ("/a/%20", "/a/%20"),
            ("//", "/"),
        ] {
            let found = resolve(path.as_bytes());
            assert_eq!(String::from_utf8_lossy(&found), resolved, "{path}");
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
}
