//! Rules: matches on a request that override the weights; the first that matches wins.

use ipnet::IpNet;
use regex::bytes::Regex;

use crate::http1::Edits;
use crate::track::{TrackIndex, Weight};

use super::{View, path};

/// A test on one text.
#[derive(Clone, Debug)]
pub enum Text {
    /// Equal, byte for byte.
    Exact(Box<[u8]>),
    /// Starts with.
    Prefix(Box<[u8]>),
    /// Matches as a whole; linear in the text's length.
    Regex(Regex),
    /// Is there, whatever it is.
    Present,
    /// No value passes the inner test; what is absent passes.
    Not(Box<Self>),
}

/// Walks values and says whether a test holds for any of them.
type AnyValue<'a> = dyn FnMut(&mut dyn FnMut(&[u8]) -> bool) -> bool + 'a;

impl Text {
    /// Whether the values that `any` walks pass: at least one does, or none for [`Text::Not`].
    fn test(&self, any: &mut AnyValue<'_>) -> bool {
        match self {
            Self::Not(inner) => !inner.test(any),
            _ => any(&mut |value| self.holds(value)),
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => value == &**expected,
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Regex(regex) => regex.is_match(value),
            Self::Present => true,
            Self::Not(inner) => !inner.holds(value),
        }
    }
}

/// A test on the path.
#[derive(Clone, Debug)]
pub enum PathText {
    /// By whole segments.
    Prefix(Box<[u8]>),
    /// Any other test.
    Text(Text),
}

/// One match: everything in it must hold.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Header fields by name (lower case).
    pub headers: Vec<(Box<str>, Text)>,
    /// Cookies by name.
    pub cookies: Vec<(Box<str>, Text)>,
    /// Query parameters by name, percent-decoded.
    pub query: Vec<(Box<str>, Text)>,
    /// Any of these methods; empty: every method.
    pub methods: Vec<Box<[u8]>>,
    /// The path as it is compared.
    pub path: Option<PathText>,
    /// The client's address lies in one of these; empty: every address.
    pub sources: Vec<IpNet>,
    /// And in none of these.
    pub not_sources: Vec<IpNet>,
}

/// Where a rule sends its requests.
#[derive(Clone, Debug)]
pub enum Target {
    /// To one track.
    Track(TrackIndex),
    /// By weights of its own.
    Weights(Vec<(TrackIndex, Weight)>),
    /// To the service's own draw: the rule changes something else.
    Service,
    /// To another place: its status and location, and whether path and query are appended.
    Redirect(u16, Box<[u8]>, bool),
    /// To an answer of the gateway's own: status, the lines of its fields, and content.
    Respond(u16, Box<str>, Box<[u8]>),
}

/// One rule: any of its matches leads to its target.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The alternatives.
    pub any: Vec<Match>,
    /// Whom it is for: clients in one of these networks; empty: everybody.
    pub from: Vec<IpNet>,
    /// Where to.
    pub target: Target,
    /// What replaces the path.
    pub rewrite: Option<PathRewrite>,
    /// What changes in the heads of its requests and their answers.
    pub edits: RuleEdits,
}

/// What changes in the heads of requests and of their answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleEdits {
    /// On the way to the upstream.
    pub request: Edits,
    /// On the way back.
    pub response: Edits,
}

/// What replaces a request's path; its query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// A prefix by whole segments, and what stands in its place.
    Prefix(Box<[u8]>, Box<[u8]>),
    /// All of it.
    Path(Box<[u8]>),
}

impl PathRewrite {
    /// Path and query for the upstream, for a path as it is compared and as it would be forwarded;
    /// `None` when they stay.
    #[must_use]
    pub fn apply(&self, path: &[u8], forwarded: &[u8], query: &[u8]) -> Option<Vec<u8>> {
        let mut target = match self {
            Self::Path(to) => to.to_vec(),
            Self::Prefix(prefix, to) => {
                let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
                if !path::has_prefix(path, prefix) {
                    return None;
                }
                let to = to.strip_suffix(b"/").unwrap_or(to);
                [to, path::behind(forwarded, prefix)].concat()
            }
        };
        if target.is_empty() {
            target.push(b'/');
        }
        if !query.is_empty() {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        Some(target)
    }
}

impl Rule {
    /// Whether the request is this rule's.
    #[must_use]
    pub fn matches(&self, view: &View<'_>) -> bool {
        let is_for = self.from.is_empty() || view.source.is_in(&self.from);
        is_for && self.any.iter().any(|one| one.holds(view))
    }
}

impl Target {
    /// The track for a draw of `bucket`, 0 to 9,999; `None` when that is not the rule's to say.
    ///
    /// # Panics
    /// Without any share, which validation rules out.
    #[must_use]
    pub fn pick(&self, bucket: u16) -> Option<TrackIndex> {
        match self {
            Self::Service | Self::Redirect(..) | Self::Respond(..) => None,
            Self::Track(track) => Some(*track),
            Self::Weights(shares) => {
                let mut end = 0;
                let owner = shares.iter().find(|(_, weight)| {
                    end += weight.basis_points();
                    bucket < end
                });
                Some(owner.or(shares.last()).expect("validated to sum to 100 percent").0)
            }
        }
    }
}

impl Match {
    /// Whether everything in it holds for the request.
    #[must_use]
    pub fn holds(&self, view: &View<'_>) -> bool {
        let any_of = |list: &[Box<[u8]>], value: &[u8]| {
            list.is_empty() || list.iter().any(|item| &**item == value)
        };
        any_of(&self.methods, view.method)
            && self.path.as_ref().is_none_or(|test| test.holds(view.path))
            && (self.sources.is_empty() || view.source.is_in(&self.sources))
            && !view.source.is_in(&self.not_sources)
            && self.headers.iter().all(|(name, text)| text.test(&mut |f| view.headers.any(name, f)))
            && self.cookies.iter().all(|(name, text)| text.test(&mut |f| any_cookie(view, name, f)))
            && self.query.iter().all(|(name, text)| text.test(&mut |f| any_query(view, name, f)))
    }
}

impl PathText {
    fn holds(&self, path: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => path::has_prefix(path, prefix),
            Self::Text(text) => text.holds(path),
        }
    }
}

/// Whether `test` holds for any cookie called `name`.
pub fn any_cookie(view: &View<'_>, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    view.headers.any("cookie", &mut |line| {
        line.split(|&byte| byte == b';').any(|pair| {
            let pair = pair.trim_ascii();
            pair.strip_prefix(name.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
                .is_some_and(&mut *test)
        })
    })
}

fn any_query(view: &View<'_>, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    view.query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).any(|pair| {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        percent_decoded(&pair[..equals]) == name.as_bytes()
            && test(&percent_decoded(pair.get(equals + 1..).unwrap_or_default()))
    })
}

/// Query text as forms write it: `%41` and `+` decoded, what is malformed left as it is.
fn percent_decoded(text: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return text.into();
    }
    let hex = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        decoded.push(match (byte, hex(text.get(at)), hex(text.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                u8::try_from(high * 16 + low).expect("two hex digits fit a byte")
            }
            (b'+', ..) => b' ',
            _ => byte,
        });
    }
    decoded.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Headers, Source};

    struct Fields(&'static [(&'static str, &'static str)]);

    impl Headers for Fields {
        fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.0.iter().any(|(known, value)| *known == name && test(value.as_bytes()))
        }
    }

    const FIELDS: Fields = Fields(&[
        ("canary", "true"),
        ("x-region", "us-west-1"),
        ("x-tag", "one"),
        ("x-tag", "two"),
        ("cookie", "a=1; group=beta"),
        ("cookie", "b=x=y"),
    ]);

    fn holds(one: &Match) -> bool {
        one.holds(&View {
            method: b"GET",
            path: b"/api/users",
            query: b"debug&name=J%c3%b6rg+B&pct=100%",
            source: Source::Known("10.1.2.3".parse().unwrap()),
            headers: &FIELDS,
        })
    }

    fn exact(text: &str) -> Text {
        Text::Exact(text.as_bytes().into())
    }

    fn regex(text: &str) -> Text {
        Text::Regex(Regex::new(&format!("^(?:{text})$")).unwrap())
    }

    fn not(text: Text) -> Text {
        Text::Not(Box::new(text))
    }

    #[test]
    fn header_tests() {
        for (name, text, expected) in [
            ("canary", exact("true"), true),
            ("canary", exact("TRUE"), false),
            ("x-tag", exact("two"), true),
            ("x-region", Text::Prefix(b"us-"[..].into()), true),
            ("x-region", regex("us-(west|east)-[0-9]"), true),
            ("x-region", regex("west"), false),
            ("x-none", Text::Present, false),
            ("x-none", not(Text::Present), true),
            ("x-tag", not(exact("two")), false),
            ("x-none", not(exact("two")), true),
        ] {
            let one = Match { headers: vec![(name.into(), text.clone())], ..Match::default() };
            assert_eq!(holds(&one), expected, "{name} {text:?}");
        }
    }

    #[test]
    fn cookie_and_query_tests() {
        for (name, text, expected) in [
            ("group", exact("beta"), true),
            ("b", exact("x=y"), true),
            ("roup", Text::Present, false),
        ] {
            let one = Match { cookies: vec![(name.into(), text)], ..Match::default() };
            assert_eq!(holds(&one), expected, "{name}");
        }
        for (name, text, expected) in [
            ("debug", Text::Present, true),
            ("debug", exact(""), true),
            ("name", exact("Jörg B"), true),
            ("pct", exact("100%"), true),
            ("none", Text::Present, false),
        ] {
            let one = Match { query: vec![(name.into(), text)], ..Match::default() };
            assert_eq!(holds(&one), expected, "{name}");
        }
    }

    #[test]
    fn everything_in_a_match_must_hold() {
        let mut one = Match {
            headers: vec![("canary".into(), exact("true"))],
            methods: vec![b"POST"[..].into(), b"GET"[..].into()],
            path: Some(PathText::Prefix(b"/api"[..].into())),
            sources: vec!["10.0.0.0/8".parse().unwrap()],
            ..Match::default()
        };
        assert!(holds(&one));
        one.sources = vec!["192.168.0.0/16".parse().unwrap()];
        assert!(!holds(&one));
        one.sources = Vec::new();
        one.not_sources = vec!["192.168.0.0/16".parse().unwrap()];
        assert!(holds(&one));
        one.not_sources.push("10.1.0.0/16".parse().unwrap());
        assert!(!holds(&one));
        assert!([one, Match::default()].iter().any(holds), "a list of matches is an or");
    }

    #[test]
    fn weighted_targets_own_exact_shares() {
        let track = |position| TrackIndex::new(position).unwrap();
        let weight = |basis_points| Weight::from_basis_points(basis_points).unwrap();
        let target = Target::Weights(vec![(track(1), weight(2_500)), (track(0), weight(7_500))]);
        let first = (0..10_000).filter(|bucket| target.pick(*bucket) == Some(track(1))).count();
        assert_eq!(first, 2_500);
    }

    #[test]
    fn paths_are_rewritten_by_whole_segments_and_keep_their_query() {
        let prefix = |from: &str, to: &str| {
            PathRewrite::Prefix(from.as_bytes().into(), to.as_bytes().into())
        };
        for (rewrite, path, query, expected) in [
            (prefix("/api", "/v2"), "/api/x", "q=/api", Some("/v2/x?q=/api")),
            (prefix("/api/", "/v2/"), "/api", "", Some("/v2")),
            (prefix("/api", "/"), "/api/x", "", Some("/x")),
            (prefix("/api", "/"), "/api", "q", Some("/?q")),
            (prefix("/", "/v2"), "/x", "", Some("/v2/x")),
            (prefix("/api", "/v2"), "/apix", "", None),
            (PathRewrite::Path((*b"/fixed").into()), "/a/b", "c", Some("/fixed?c")),
        ] {
            let path = path.as_bytes();
            let found = rewrite.apply(path, path, query.as_bytes());
            let found = found.map(|found| String::from_utf8(found).unwrap());
            assert_eq!(found.as_deref(), expected, "{rewrite:?} {}", path.escape_ascii());
        }
    }
}
