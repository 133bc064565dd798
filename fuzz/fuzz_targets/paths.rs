//! Paths: reading again changes nothing, what is forwarded is read like what came, and no server
//! that decodes it sees a page below one that the comparison did not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use splitway::route::path;

fuzz_target!(|bytes: &[u8]| {
    // What else a target could have is refused before it is read.
    let visible = bytes.iter().copied().filter(|byte| byte.is_ascii_graphic() && *byte != b'#');
    let target: Vec<u8> = std::iter::once(b'/').chain(visible).collect();
    // What stands behind a question mark is the query, and no part of any path.
    let path = path::split(&target).0;
    let reading = path::read(path);
    assert!(reading.compared.starts_with(b"/"));
    assert_eq!(path::read(&reading.compared).compared, reading.compared, "read once is read");
    for keep_slashes in [false, true] {
        let forwarded = path::forwarded(path, keep_slashes);
        assert_eq!(path::forwarded(&forwarded, keep_slashes), forwarded);
        assert_eq!(path::read(&forwarded).compared, reading.compared);
    }
    let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    assert!(!reading.compared.split(|&byte| byte == b'/').any(is_dots));
    if reading.ambiguity.is_some() {
        return;
    }
    let forwarded = path::forwarded(path, false);
    for takes_off in [&b""[..], b";", b";?#"] {
        let served = served(&forwarded, takes_off);
        let first = served.first().map_or(&b""[..], |first| first);
        let below = path::configured_start(&format!("/{}", escaped(first)));
        let guard = path::read(&below).compared;
        assert!(path::has_prefix(&reading.compared, &guard), "{}", forwarded.escape_ascii());
    }
});

/// The segments that a server sees which decodes, takes parameters off, and walks.
fn served(path: &[u8], takes_off: &[u8]) -> Vec<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let digits = path.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| path[at] == b'%' && !two.starts_with('+'));
        let value = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        decoded.push(value.unwrap_or(path[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in decoded.split(|byte| b"/\\".contains(byte)) {
        let end = segment.iter().position(|byte| takes_off.contains(byte));
        match &segment[..end.unwrap_or(segment.len())] {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment.to_vec()),
        }
    }
    segments
}

/// A name as a path can have it.
fn escaped(name: &[u8]) -> String {
    name.iter().map(|byte| format!("%{byte:02X}")).collect()
}
