//! X-Forwarded-For: what a client writes moves nothing, and what cannot be read is in no network.
#![no_main]

use std::net::IpAddr;

use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use splitway::route::Source;

fuzz_target!(|bytes: &[u8]| {
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).into();
    let everywhere: Vec<IpNet> = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).into();
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let (proxy, stranger) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let read = |peer: IpAddr, lines: &[&[u8]]| Source::of(peer, &trusted, lines.iter().copied());

    let source = read(proxy, &lines);
    match source {
        Source::Known(address) => {
            assert!(address == proxy || !is_trusted(address));
            assert_eq!(address, address.to_canonical());
        }
        Source::Unknown { peer } => assert_eq!(peer, proxy),
    }
    assert_eq!(source.is_in(&everywhere), source.address().is_some());
    assert_eq!(read(proxy, &[&lines.join(&b", "[..])]), source, "several lines are one list");
    assert_eq!(read(stranger, &lines), Source::Known(stranger), "strangers tell nothing");

    // What proxies append decides, alone or with a port, on a line of its own or behind the rest.
    for told in ["203.0.113.5", "203.0.113.5:4711, 10.0.0.2", "::ffff:203.0.113.5,[fd00::1]:443"] {
        let client = Source::Known([203, 0, 113, 5].into());
        assert_eq!(read(proxy, &[&lines[..], &[told.as_bytes()]].concat()), client);
        let behind = [bytes, b", ", told.as_bytes()].concat();
        let behind: Vec<&[u8]> = behind.split(|byte| *byte == b'\n').collect();
        assert_eq!(read(proxy, &behind), client);
    }
    let garbled = read(proxy, &[&lines[..], &[&b"unknown"[..]]].concat());
    assert_eq!(garbled, Source::Unknown { peer: proxy });
});
