//! What goes on of trailers are fields, none of which belongs into a head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use splitway::http1::{Body, Limits, fields, trailers};

/// What is written may be longer than what came: every colon gets a space.
const WIDE: Limits = Limits { head_bytes: 64 * 1024, header_count: 1_000 };

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let (mut body, mut raw) = (Body::chunked(), Vec::new());
    for piece in bytes.chunks(usize::from(*first % 16) + 1) {
        let Ok(taken) = body.read_parts(piece, None, &mut raw) else { return };
        assert!(taken.passed == taken.used || !raw.is_empty(), "only trailers are set aside");
    }
    if !body.is_done() || raw.is_empty() {
        return;
    }
    let guarded = |name: &[u8]| name.eq_ignore_ascii_case(b"x-guarded");
    let mut out = Vec::new();
    if trailers::write(&mut out, &raw, guarded).is_err() {
        return;
    }
    let mut found = Vec::new();
    let end = fields::lines(&out, WIDE, &mut found).expect("what we write we accept");
    assert_eq!(end, Some(out.len()), "and it is whole");
    for field in &found {
        let name = field.name(&out);
        assert!(!trailers::is_of_heads(name));
        assert!(
            !name.eq_ignore_ascii_case(b"x-guarded") && !name.eq_ignore_ascii_case(b"x_guarded")
        );
    }
    let mut again = Vec::new();
    trailers::write(&mut again, &out, guarded).expect("and again");
    assert_eq!(again, out);
});
