//! A PROXY header is read alike however it comes in pieces, and never beyond its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use splitway::wire::proxied::parse;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(header)) = parse(bytes) else { return };
    assert!(header.length <= bytes.len());
    assert_eq!(parse(&bytes[..header.length]), Ok(Some(header)), "what follows does not matter");
    for end in 0..header.length {
        assert_eq!(parse(&bytes[..end]), Ok(None), "a piece of a header goes on");
    }
});
