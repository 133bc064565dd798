//! Chunk framing is read alike however it comes in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use splitway::http1::{Body, BodyError};

#[derive(Debug, PartialEq)]
struct Reading {
    used: usize,
    content: Vec<u8>,
    trailers: Vec<u8>,
    is_done: bool,
}

fn read(mut body: Body, bytes: &[u8], piece: usize) -> Result<Reading, BodyError> {
    let (mut content, mut trailers, mut used) = (Vec::new(), Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        if body.is_done() {
            break;
        }
        let taken = body.read_parts(piece, Some(&mut content), &mut trailers)?;
        assert!(taken.passed == taken.used || !trailers.is_empty(), "only trailers are set aside");
        let taken = taken.used;
        assert!(taken == piece.len() || body.is_done(), "only the end leaves something");
        used += taken;
    }
    Ok(Reading { used, content, trailers, is_done: body.is_done() })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let piece = usize::from(*first % 16) + 1;
    let length = Body::length(u64::from(*first) * 7);
    for body in [Body::chunked(), length, Body::until_close()] {
        let whole = read(body, bytes, usize::MAX);
        assert_eq!(whole, read(body, bytes, piece));
        if let Ok(whole) = whole {
            assert!(whole.content.len() <= whole.used && whole.used <= bytes.len());
        }
    }
});
