//! Where a request comes from, as far as trusted proxies tell it in X-Forwarded-For.
//!
//! The list is read from the right, because only its end was written by whom we trust. What a
//! client itself put there stands behind the address that the first proxy saw, and is never read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This address.
    Known(IpAddr),
    /// A trusted proxy says what is no address. Such a client is in no network, so it is nobody whom
    /// a list of networks lets in.
    Unknown {
        /// The proxy that was spoken to, by which such clients are counted.
        peer: IpAddr,
    },
}

impl Source {
    /// The source of a request from `peer`, where `forwarded_for` are the values of its
    /// X-Forwarded-For fields in the order of the head: the last member that is not in `trusted`.
    ///
    /// `peer` itself, if it is not trusted or nothing but trusted proxies is told of.
    #[must_use]
    pub fn of<'a>(
        peer: IpAddr,
        trusted: &[IpNet],
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Self {
        let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
        if !is_trusted(&peer) {
            return Self::Known(peer);
        }
        // Several fields are one list (RFC 9110 §5.3).
        for member in forwarded_for.rev().flat_map(|line| line.rsplit(|&byte| byte == b',')) {
            match address(member) {
                Some(address) if is_trusted(&address) => {}
                Some(address) => return Self::Known(address),
                None => return Self::Unknown { peer },
            }
        }
        Self::Known(peer)
    }

    /// Whether it is in one of `networks`.
    #[must_use]
    pub fn is_in(&self, networks: &[IpNet]) -> bool {
        self.address().is_some_and(|address| networks.iter().any(|net| net.contains(&address)))
    }

    /// The address, where it is known.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Known(address) => Some(*address),
            Self::Unknown { .. } => None,
        }
    }

    /// The address that it is counted by: its own, else its peer's.
    #[must_use]
    pub fn counted_by(&self) -> IpAddr {
        let (Self::Known(address) | Self::Unknown { peer: address }) = self;
        *address
    }
}

impl fmt::Display for Source {
    /// The address, or `unknown`, as RFC 7239 calls it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(address) => address.fmt(formatter),
            Self::Unknown { .. } => formatter.write_str("unknown"),
        }
    }
}

/// The address that a member of X-Forwarded-For names, as proxies and clouds write it: alone, or
/// with a port, IPv6 in brackets then. `None` for all else: zones, which mean something on one
/// machine only, names, words such as `unknown` and `_hidden`, and nothing at all.
fn address(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?.trim_matches([' ', '\t']);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port): (IpAddr, &str) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (address.parse::<Ipv6Addr>().ok()?.into(), port)
    } else {
        let (address, port) = text.split_at(text.find(':')?);
        (address.parse::<Ipv4Addr>().ok()?.into(), port)
    };
    is_port(port).then(|| address.to_canonical())
}

/// Whether `text` is nothing, or a colon and a port.
fn is_port(text: &str) -> bool {
    let is_number = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
    };
    text.is_empty() || text.strip_prefix(':').is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|network| network.parse().unwrap()).collect()
    }

    fn read(peer: &str, lines: &[&[u8]]) -> String {
        let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
        Source::of(peer.parse().unwrap(), &trusted, lines.iter().copied()).to_string()
    }

    #[test]
    fn the_list_is_read_from_the_right_to_the_first_who_is_not_trusted() {
        for (list, expected) in [
            ("203.0.113.5", "203.0.113.5"),
            ("10.9.9.9, 203.0.113.5", "203.0.113.5"),
            ("x, 203.0.113.5", "203.0.113.5"),
            ("unknown, 203.0.113.5, 10.1.1.1", "203.0.113.5"),
            ("1.2.3.4:99, 203.0.113.5", "203.0.113.5"),
            ("_hidden,203.0.113.5 ,\t10.2.2.2", "203.0.113.5"),
            ("203.0.113.5:4711", "203.0.113.5"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
            ("[::ffff:203.0.113.5]:1", "203.0.113.5"),
            ("203.0.113.5, ::ffff:10.0.0.2, [::ffff:10.0.0.3]:5, 10.0.0.4:6", "203.0.113.5"),
            ("203.0.113.5, fd00::1", "203.0.113.5"),
            ("10.0.0.7", PROXY),
            ("10.0.0.7, 10.0.0.8", PROXY),
        ] {
            assert_eq!(read(PROXY, &[list.as_bytes()]), expected, "{list}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for list in [
            "unknown",
            "_hidden",
            "x",
            "-",
            "localhost",
            "client.example",
            "",
            " ",
            ",",
            "203.0.113.5,",
            "203.0.113.5, , 10.0.0.2",
            "203.0.113.5,\t",
            "fe80::1%eth0",
            "fe80::1%1",
            "[fe80::1%1]:80",
            "[fe80::1%25eth0]",
            "203.0.113.5:",
            "203.0.113.5:http",
            "203.0.113.5:+80",
            "203.0.113.5:65536",
            "203.0.113.5:80:80",
            "[2001:db8::1]80",
            "[2001:db8::1]:",
            "[2001:db8::1",
            "2001:db8::1]",
            "[203.0.113.5]",
            "[]",
            "[]:80",
            ":80",
            "[[2001:db8::1]]",
            "2001:db8::1:80:1:2:3:4:5",
            "203.0.113.05",
            "203.0.113",
            "3405803781",
            "0xcb007105",
            "203.0.113.5/32",
            "203.0.113.5 10.0.0.2",
            "\"203.0.113.5\"",
            "for=203.0.113.5",
            "203.0.113.5;x",
            "\u{ff11}.2.3.4",
            "1.2.3.\u{660}",
            "\u{a0}1.2.3.4",
            "x, 10.0.0.7",
            "1.2.3.4, unknown, 10.0.0.7, 10.0.0.8:80",
        ] {
            assert_eq!(read(PROXY, &[list.as_bytes()]), "unknown", "{list}");
        }
        assert_eq!(read(PROXY, &[b"\xff"]), "unknown");
        assert_eq!(read(PROXY, &[b"1.2.3.4\xff"]), "unknown");
        assert_eq!(read(PROXY, &[b"\xff, 1.2.3.4"]), "1.2.3.4");
    }

    #[test]
    fn several_fields_are_one_list_and_none_is_the_peer() {
        assert_eq!(read(PROXY, &[]), PROXY);
        assert_eq!(read(PROXY, &[b"10.9.9.9", b"203.0.113.5"]), "203.0.113.5");
        assert_eq!(read(PROXY, &[b"203.0.113.5", b"10.0.0.2"]), "203.0.113.5");
        assert_eq!(read(PROXY, &[b"203.0.113.5", b"x"]), "unknown");
        assert_eq!(read(PROXY, &[b"203.0.113.5", b""]), "unknown");
        assert_eq!(read("192.0.2.1", &[b"10.9.9.9", b"x"]), "192.0.2.1", "strangers tell nothing");
    }

    #[test]
    fn an_unknown_source_is_in_no_network_and_counted_by_its_peer() {
        let peer: IpAddr = PROXY.parse().unwrap();
        let everywhere = networks(&["0.0.0.0/0", "::/0"]);
        let unknown = Source::Unknown { peer };
        assert!(!unknown.is_in(&everywhere) && Source::Known(peer).is_in(&everywhere));
        assert_eq!((unknown.address(), unknown.counted_by()), (None, peer));
    }

    proptest! {
        /// Whatever a client sends, the proxies append behind it, and there it is seen.
        #[test]
        fn what_a_client_writes_moves_nothing(
            lines in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..40),
                    "[0-9a-f:.,\\[\\] ]{0,40}".prop_map(String::into_bytes),
                ],
                0..4,
            ),
            client in any::<[u8; 4]>().prop_filter("a stranger", |octets| octets[0] != 10),
            port in proptest::option::of(any::<u16>()),
            hops in proptest::collection::vec("10\\.[0-9]\\.[0-9]\\.[0-9](:[1-9])?", 0..3),
            is_own_line in any::<bool>(),
        ) {
            let client = IpAddr::from(client);
            let seen = port.map_or_else(|| client.to_string(), |port| format!("{client}:{port}"));
            let told = [vec![seen], hops].concat().join(", ");
            let mut lines = lines;
            match lines.last_mut() {
                Some(last) if !is_own_line => last.extend_from_slice(format!(", {told}").as_bytes()),
                _ => lines.push(told.into_bytes()),
            }
            let lines = lines.iter().map(Vec::as_slice);
            let source = Source::of(PROXY.parse().unwrap(), &networks(&["10.0.0.0/8"]), lines);
            prop_assert_eq!(source, Source::Known(client));
        }
    }
}
