//! Cookies: every one that is found stands in the field, and every plain one is found.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use splitway::route::rules::any_cookie;
use splitway::route::{Headers, Source, View};

struct Cookie<'a>(&'a [u8]);

impl Headers for Cookie<'_> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        name == "cookie" && test(self.0)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let found = |line: &[u8]| {
        let headers = Cookie(line);
        let source = Source::Known(Ipv4Addr::LOCALHOST.into());
        let view = View { method: b"GET", path: b"/", query: b"", source, headers: &headers };
        let mut values = Vec::new();
        any_cookie(&view, "split", &mut |value| {
            values.push(value.to_vec());
            false
        });
        values
    };
    let values = found(bytes);
    for value in &values {
        let pair = [b"split=", &value[..]].concat();
        assert!(bytes.windows(pair.len()).any(|window| window == pair));
        assert!(!value.contains(&b';'));
    }
    // One more behind whatever came is one more that is found.
    let more = found(&[bytes, b"; split=last"].concat());
    assert_eq!(more.len(), values.len() + 1);
    assert_eq!(more.last().map(Vec::as_slice), Some(&b"last"[..]));
});
