//! Paths of ingress-nginx: as nginx's locations have them, and as conditions here.

use std::cmp::Ordering;

use super::notes::Notes;
use crate::import::draft::{Yaml, map, plain, text};
use crate::import::istio::conditions::checked;
use crate::import::manifest::Field;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exact,
    /// By whole segments.
    Prefix,
    /// `ImplementationSpecific`: nginx's own prefix, of text.
    Text,
}

/// A path of an Ingress.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path {
    kind: Kind,
    pub(super) text: String,
}

/// How a path is written here.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The prefix by whole segments that it is, if it is one.
    pub(super) prefix: Option<String>,
    /// The test on the path.
    pub(super) test: Yaml,
    /// `rewrite` and what it does.
    pub(super) rewrite: Option<(String, Yaml)>,
    /// It would have to be rewritten otherwise than can be done; nobody may get it as it is.
    pub(super) is_closed: bool,
}

impl Way {
    fn of(prefix: Option<&str>, test: Yaml) -> Self {
        Self { prefix: prefix.map(str::to_owned), test, rewrite: None, is_closed: false }
    }
}

impl Path {
    pub(super) fn root() -> Self {
        Self { kind: Kind::Prefix, text: "/".to_owned() }
    }

    /// `None`: it is none, which is a fault.
    pub(super) fn read(text: &str, kind: Option<&str>, field: &Field<'_>) -> Option<Self> {
        let kind = match kind {
            Some("Exact") => Kind::Exact,
            Some("Prefix") => Kind::Prefix,
            Some("ImplementationSpecific") | None => Kind::Text,
            Some(other) => {
                field.fault(format!(
                    "has the pathType `{other}`; write Exact, Prefix or ImplementationSpecific"
                ));
                return None;
            }
        };
        if !text.starts_with('/') {
            field.fault(format!("has the path `{text}`; a path begins with a slash"));
            return None;
        }
        let text = match kind {
            Kind::Prefix if text.len() > 1 => text.trim_end_matches('/'),
            _ => text,
        };
        Some(Self { kind, text: if text.is_empty() { "/" } else { text }.to_owned() })
    }

    /// Who is asked first: an exact path, then the longest; of regular expressions the longest text.
    pub(super) fn order(&self, is_regex: bool, other: &Self) -> Ordering {
        let is_later = |path: &Self| !is_regex && path.kind != Kind::Exact;
        (is_later(self), other.text.len(), &other.text).cmp(&(
            is_later(other),
            self.text.len(),
            &self.text,
        ))
    }

    /// How it is written here; `None` where that cannot be done.
    pub(super) fn way(&self, is_regex: bool, notes: &Notes<'_>, field: &Field<'_>) -> Option<Way> {
        let to = notes.text("rewrite-target").filter(|to| *to != self.text);
        if is_regex {
            return self.pattern(to, field, notes);
        }
        if self.text.contains(';') {
            field.differs("is compared without what follows `;` in a segment, the parameters");
        }
        let spelled = spelled(&self.text);
        let prefix = |path: &str| Way::of(Some(path), text(path));
        Some(match self.kind {
            Kind::Prefix => prefix(&spelled),
            // Every path begins with a slash.
            Kind::Text if self.text == "/" => prefix("/"),
            Kind::Text => {
                let pattern = format!("{}.*", regex::escape(&spelled));
                Way::of(None, map([("regex", text(pattern))]))
            }
            Kind::Exact => Way::of(None, map([("exact", text(spelled))])),
        })
    }

    /// As a regular expression in any case, which each path of a host is as soon as one is.
    fn pattern(&self, to: Option<&str>, field: &Field<'_>, notes: &Notes<'_>) -> Option<Way> {
        let pattern = checked(field, &self.text)?;
        if !pattern.bytes().all(|byte| byte.is_ascii_graphic()) || pattern.contains(['%', ';']) {
            field.differs(
                "is held against decoded paths by nginx; here what is no plain character is \
                 compared escaped (%C3%A9), and without what follows `;` in a segment",
            );
        }
        let (base, tail) = base(pattern);
        let rewrite = to.map(|to| rewrite(base, tail, to));
        let is_closed = rewrite == Some(None);
        if let (true, Some(field)) = (is_closed, notes.get("rewrite-target")) {
            field.unsupported(format!("rewrites {pattern} by capture groups, and `rewrite` can a prefix alone; its requests are answered 503"));
        }
        let is_identity = |yaml: &Yaml| *yaml == replaced("/", "/");
        let rewrite = rewrite.flatten().filter(|(_, yaml)| !is_identity(yaml));
        let way = if pattern == "/" || pattern == "/(.*)" || pattern == "/.*" {
            Way::of(Some("/"), plain("/"))
        } else if tail == Tail::Segments {
            field.differs("fits in upper and lower case for nginx; here as it is written");
            Way::of(Some(base), text(base))
        } else {
            if rewrite.is_some() && tail == Tail::Rest {
                field.differs(
                    "is rewritten in upper and lower case by nginx; here as it is written",
                );
            }
            Way::of(None, map([("regex", text(format!("(?i)(?:{pattern}).*")))]))
        };
        Some(Way { rewrite, is_closed, ..way })
    }
}

/// A path as nginx compares it, which is decoded, in the spelling of requests.
fn spelled(path: &str) -> String {
    let one = |byte: u8| match byte {
        b'%' | b'?' | b'#' | b'\\' => format!("%{byte:02X}"),
        _ if byte.is_ascii_graphic() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(one).collect()
}

/// How a pattern that begins with a literal path goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// `(/|$)(.*)`, the second group being the rest.
    Segments,
    /// `/(.*)`, the only group being the rest.
    Rest,
    Other,
}

fn base(pattern: &str) -> (&str, Tail) {
    let is_literal = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_~%".contains(&byte))
    };
    for (end, tail) in [("(/|$)(.*)", Tail::Segments), ("/(.*)", Tail::Rest)] {
        if let Some(base) = pattern.strip_suffix(end)
            && is_literal(base)
            && (!base.is_empty() || tail == Tail::Rest)
        {
            return (base, tail);
        }
    }
    (pattern, Tail::Other)
}

/// The rewrite of a path to `to`; `None` where that needs groups.
fn rewrite(base: &str, tail: Tail, to: &str) -> Option<(String, Yaml)> {
    if !to.contains('$') {
        return Some(("rewrite".to_owned(), map([("to", text(to))])));
    }
    let group = match tail {
        Tail::Segments => "$2",
        Tail::Rest => "$1",
        Tail::Other => return None,
    };
    let ahead = to.strip_suffix(group)?.strip_suffix('/')?;
    if ahead.contains('$') || !(ahead.is_empty() || ahead.starts_with('/')) {
        return None;
    }
    let slash = |path: &str| if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    Some(("rewrite".to_owned(), replaced(&slash(base), &slash(ahead))))
}

fn replaced(prefix: &str, to: &str) -> Yaml {
    map([("prefix", text(prefix)), ("to", text(to))])
}
