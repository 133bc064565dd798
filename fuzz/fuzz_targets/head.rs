//! What we read of a head is what we write, and no piece of a head is taken for a whole one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use splitway::http1::rewrite::{self, Forwarding, Returning};
use splitway::http1::{Limits, Owned, RequestHead, ResponseHead, Version};

/// What is written may be longer than what came, by what forwarding adds.
const WIDE: Limits = Limits { head_bytes: 1024 * 1024, header_count: 1_000 };

fuzz_target!(|bytes: &[u8]| {
    request(bytes);
    response(bytes);
});

fn request(bytes: &[u8]) {
    let (mut spans, mut other) = (Vec::new(), Vec::new());
    let Ok(Some(head)) = RequestHead::parse(bytes, Limits::default(), &mut spans) else { return };
    let most = head.bytes.len() - 1;
    let piece = RequestHead::parse(&bytes[..most], Limits::default(), &mut other);
    assert!(!matches!(piece, Ok(Some(_))), "a piece of a head is a head");
    for (trusted, upgrade) in [(false, false), (true, head.wants_upgrade())] {
        let forwarding = Forwarding {
            peer: "192.0.2.1",
            client: Some([192, 0, 2, 1].into()),
            trusted,
            scheme: "https",
            certificate: Some("x-client-certificate-subject: CN=client\r\n"),
            via: Some("splitway"),
            upgrade,
            target: None,
            owned: &Owned::default(),
            edits: &[],
            made: b"",
        };
        let mut out = Vec::new();
        rewrite::request(&mut out, &head, &forwarding);
        let mut spans = Vec::new();
        let written = RequestHead::parse(&out, WIDE, &mut spans)
            .expect("what we write we accept")
            .expect("it is whole");
        assert_eq!(written.bytes.len(), out.len(), "and nothing follows it");
        assert_eq!(written.method, head.method);
        assert_eq!(written.path_and_query, head.path_and_query);
        assert_eq!(written.host(), head.host().to_ascii_lowercase());
        assert_eq!(written.facts.chunked, head.facts.chunked);
        assert_eq!(written.facts.content_length, head.facts.content_length);
        assert_eq!(written.wants_upgrade(), upgrade);
    }
}

fn response(bytes: &[u8]) {
    let (mut spans, mut other) = (Vec::new(), Vec::new());
    let Ok(Some(head)) = ResponseHead::parse(bytes, Limits::default(), &mut spans) else { return };
    let most = head.bytes.len() - 1;
    let piece = ResponseHead::parse(&bytes[..most], Limits::default(), &mut other);
    assert!(!matches!(piece, Ok(Some(_))), "a piece of a head is a head");
    let returning = Returning {
        version: Version::Http11,
        keep_alive: true,
        upgrade: false,
        unchunk: false,
        cookie: Some("a=b"),
        edits: &[],
        added: b"x-added: 1\r\n",
        via: Some("splitway"),
    };
    let mut out = Vec::new();
    rewrite::response(&mut out, &head, &returning);
    let mut spans = Vec::new();
    let written = ResponseHead::parse(&out, WIDE, &mut spans)
        .expect("what we write we accept")
        .expect("it is whole");
    assert_eq!(written.bytes.len(), out.len(), "and nothing follows it");
    assert_eq!(written.status, head.status);
    for to_head in [false, true] {
        assert_eq!(written.body(to_head), head.body(to_head), "the body is framed as it was");
    }
}
