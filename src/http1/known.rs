//! Names of fields that the gateway acts on, and who may say them.
//!
//! One table for all that proxies tell of a client: a server believes these fields, so from a
//! stranger none of them goes on.

/// Fields that the gateway itself acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Anything else: copied.
    Other,
    /// Anything else with a byte that servers fold to `-`: copied, unless it folds to a name that is
    /// not the client's to say (`X_Forwarded_For`).
    Odd,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Cookie`
    Cookie,
    /// `Expect`
    Expect,
    /// `Host`
    Host,
    /// `HTTP2-Settings`
    Http2Settings,
    /// `Keep-Alive`
    KeepAlive,
    /// What nobody but us says: `X-Client-Certificate-*`; and `Proxy`, which CGI makes a setting of.
    Ours,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `TE`
    Te,
    /// What proxies tell of a client: kept from trusted ones, and dropped from everybody else.
    Told,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `Via`
    Via,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// `X-Forwarded-Proto`
    XForwardedProto,
}

/// Who the client is and how it came, in the words of proxies, balancers and networks that deliver
/// content, by length. What servers go by is collected from the documentation of Nginx, Apache,
/// Envoy, `HAProxy`, Traefik, IIS, Cloudflare, Akamai, Fastly, AWS, Azure, Google, Fly and Netlify,
/// and from the settings of Rails, Django, Spring, Symfony, Express and `WebLogic`.
const TOLD: [&[u8]; 39] = [
    b"x-host",
    b"x-scheme",
    b"client-ip",
    b"forwarded",
    b"x-real-ip",
    b"cf-visitor",
    b"client-cert",
    b"x-client-dn",
    b"x-client-ip",
    b"x-forwarded",
    b"x-remote-ip",
    b"x-url-scheme",
    b"fly-client-ip",
    b"x-client-cert",
    b"x-remote-addr",
    b"x-rewrite-url",
    b"true-client-ip",
    b"x-original-uri",
    b"x-original-url",
    b"x-proxyuser-ip",
    b"front-end-https",
    b"proxy-client-ip",
    b"x-client-verify",
    b"x-original-host",
    b"cf-connecting-ip",
    b"do-connecting-ip",
    b"fastly-client-ip",
    b"x-azure-clientip",
    b"x-azure-socketip",
    b"x-original-proto",
    b"x-originating-ip",
    b"client-cert-chain",
    b"cf-connecting-ipv6",
    b"wl-proxy-client-ip",
    b"x-appengine-user-ip",
    b"x-cluster-client-ip",
    b"x-http-host-override",
    b"x-original-forwarded-for",
    b"x-nf-client-connection-ip",
];

/// The beginnings of further ones.
const TOLD_FAMILIES: [&[u8]; 7] = [
    b"ssl-client-",
    b"x-envoy-",
    b"x-forwarded-",
    b"x-splitway-",
    b"x-amzn-mtls-",
    b"x-client-cert-",
    b"x-ssl-client-",
];

/// The beginning of what is told of a client's certificate.
const CERTIFICATE: &[u8] = b"x-client-certificate-";

/// Lengths from here on count as one; no name of the table is as long.
const LENGTH_MAX: usize = 31;

/// By first letter, a bit for each length that a name of the table has, so that nearly every other
/// name costs one look.
const LENGTHS: [u32; 32] = {
    let mut lengths = [0; 32];
    let mut index = 0;
    while index < TOLD.len() {
        assert!(TOLD[index].len() < LENGTH_MAX, "is told by its length");
        assert!(index == 0 || TOLD[index - 1].len() <= TOLD[index].len(), "sorted by length");
        lengths[(TOLD[index][0] & 31) as usize] |= 1 << TOLD[index].len();
        index += 1;
    }
    index = 0;
    while index < TOLD_FAMILIES.len() {
        // A member is longer than its family's beginning.
        lengths[(TOLD_FAMILIES[index][0] & 31) as usize] |= !0 << (TOLD_FAMILIES[index].len() + 1);
        index += 1;
    }
    lengths
};

/// By first letter, a bit for each fifth one that such a name has: `x-request-id` is of no family.
const FIFTHS: [u32; 32] = {
    let mut fifths = [0; 32];
    let mut index = 0;
    while index < TOLD.len() {
        fifths[(TOLD[index][0] & 31) as usize] |= 1 << (TOLD[index][4] & 31);
        index += 1;
    }
    index = 0;
    while index < TOLD_FAMILIES.len() {
        fifths[(TOLD_FAMILIES[index][0] & 31) as usize] |= 1 << (TOLD_FAMILIES[index][4] & 31);
        index += 1;
    }
    fifths[(CERTIFICATE[0] & 31) as usize] |= 1 << (CERTIFICATE[4] & 31);
    fifths
};

/// Where the names of each length begin in the table.
const STARTS: [usize; LENGTH_MAX + 2] = {
    let mut starts = [TOLD.len(); LENGTH_MAX + 2];
    let mut length = 0;
    while length < starts.len() {
        let mut index = 0;
        while index < TOLD.len() && TOLD[index].len() < length {
            index += 1;
        }
        starts[length] = index;
        length += 1;
    }
    starts
};

impl Known {
    /// What a name is, however its letters are spelled; [`Known::Odd`] is not told apart.
    #[must_use]
    pub fn named(name: &[u8]) -> Self {
        if name.is_empty() { Self::Other } else { Self::of(name) }
    }

    /// Names are told apart by length and first letter first: most fields cost two compares.
    pub(super) fn of(name: &[u8]) -> Self {
        let (known, spelled): (Self, &[u8]) = match (name.len(), name[0] | 0x20) {
            (2, b't') => (Self::Te, b"te"),
            (3, b'v') => (Self::Via, b"via"),
            (4, b'h') => (Self::Host, b"host"),
            (5, b'p') => (Self::Ours, b"proxy"),
            (6, b'c') => (Self::Cookie, b"cookie"),
            (6, b'e') => (Self::Expect, b"expect"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::KeepAlive, b"keep-alive"),
            (14, b'c') => (Self::ContentLength, b"content-length"),
            (14, b'h') => (Self::Http2Settings, b"http2-settings"),
            (15, b'x') => (Self::XForwardedFor, b"x-forwarded-for"),
            (16, b'p') => (Self::ProxyConnection, b"proxy-connection"),
            (16, b'x') => (Self::XForwardedHost, b"x-forwarded-host"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (17, b'x') => (Self::XForwardedProto, b"x-forwarded-proto"),
            _ => return Self::of_table(name),
        };
        if name.eq_ignore_ascii_case(spelled) { known } else { Self::of_table(name) }
    }

    fn of_table(name: &[u8]) -> Self {
        let (length, first) = (name.len().min(LENGTH_MAX), usize::from(name[0] & 31));
        // The table has no name of less than six bytes.
        if LENGTHS[first] >> length & 1 == 0 || FIFTHS[first] >> (name[4] & 31) & 1 == 0 {
            return Self::Other;
        }
        let begins = |start: &[u8]| {
            name.get(..start.len()).is_some_and(|name| name.eq_ignore_ascii_case(start))
        };
        if begins(CERTIFICATE) {
            Self::Ours
        } else if TOLD[STARTS[length]..STARTS[length + 1]]
            .iter()
            .any(|told| name.eq_ignore_ascii_case(told))
            || TOLD_FAMILIES.iter().any(|start| begins(start))
        {
            Self::Told
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_by_the_table_in_any_case() {
        let table = TOLD.iter().map(|name| String::from_utf8(name.to_vec()).unwrap());
        for name in table.chain(["X-Forwarded-Port", "X-Forwarded-Z", "x-envoy-r"].map(Into::into))
        {
            for name in [name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(Known::named(name.as_bytes()), Known::Told, "{name}");
                let more = format!("a{name}");
                assert_eq!(Known::named(more.as_bytes()), Known::Other, "{more}");
            }
        }
        // A family's member may be as long as a name that is told apart first.
        for (name, known) in [
            ("x-envoy-peer-id", Known::Told),
            ("X-Forwarded-Port", Known::Told),
            ("x-forwarded-for", Known::XForwardedFor),
            ("X-Client-Certificate-Subject", Known::Ours),
            ("x-client-certificate-san-dns", Known::Ours),
            ("X-Client-Cert-Chain", Known::Told),
            ("Proxy", Known::Ours),
            ("x-request-id", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(Known::named(name.as_bytes()), known, "{name}");
        }
        let long = format!("x-forwarded-{}", "a".repeat(10_000));
        assert_eq!(Known::named(long.as_bytes()), Known::Told);
    }
}
