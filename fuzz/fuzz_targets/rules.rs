//! Matching: a test and its opposite never agree, and paths are compared resolved.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use regex::bytes::Regex;
use splitway::http1::{Limits, RequestHead};
use splitway::route::rules::PathText;
use splitway::route::{Match, Source, Text, View, path};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let (Some(kind), Some(text), Some(head)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let mut spans = Vec::new();
    let Ok(Some(head)) = RequestHead::parse(head, Limits::default(), &mut spans) else { return };
    let (raw, query) = path::split(head.path_and_query);
    let resolved = path::read(raw).compared;
    if raw.starts_with(b"/") {
        assert!(resolved.starts_with(b"/"));
        assert_eq!(path::read(&resolved).compared, resolved, "read once is read");
        assert!(!resolved.split(|byte| *byte == b'/').any(|segment| segment == b".."));
    }
    let source = Source::Known(Ipv4Addr::LOCALHOST.into());
    let view = View { method: head.method, path: &resolved, query, source, headers: &head };
    let test = match kind.first() {
        Some(b'p') => Text::Prefix(text.into()),
        Some(b'r') => {
            let Ok(pattern) = std::str::from_utf8(text) else { return };
            let Ok(regex) = Regex::new(&format!("^(?:{pattern})$")) else { return };
            Text::Regex(regex)
        }
        Some(b'a') => Text::Present,
        _ => Text::Exact(text.into()),
    };
    let of = |test: &Text| -> [Match; 4] {
        let named = || vec![("x".into(), test.clone())];
        [
            Match { headers: named(), ..Match::default() },
            Match { cookies: named(), ..Match::default() },
            Match { query: named(), ..Match::default() },
            Match { path: Some(PathText::Text(test.clone())), ..Match::default() },
        ]
    };
    for (one, opposite) in of(&test).iter().zip(of(&Text::Not(test.clone().into()))) {
        assert_ne!(one.holds(&view), opposite.holds(&view), "{one:?}");
    }
    let below = Match { path: Some(PathText::Prefix(text.into())), ..Match::default() };
    if below.holds(&view) && !text.ends_with(b"/") {
        let rest = resolved.strip_prefix(text).expect("it begins with its prefix");
        assert!(text.is_empty() || rest.is_empty() || rest[0] == b'/', "by whole segments");
    }
});
