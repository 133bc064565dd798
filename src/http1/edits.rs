//! What a configuration changes in the heads that pass.

use std::io::Write;
use std::net::IpAddr;

/// Fields that a configuration takes away and adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names that are removed, those that are set anew among them, in lower case.
    pub removed: Vec<Box<str>>,
    /// What is added up to the last placeholder: bytes, and what follows them.
    pub filled: Vec<(Box<[u8]>, Placeholder)>,
    /// What is added behind that: field lines, each with its line ending.
    pub lines: Box<[u8]>,
}

/// What stands in a value for something of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{client}`: the client's address, or `unknown`.
    Client,
    /// `{host}`: the host as the request means it, with its port if it has one.
    Host,
    /// `{scheme}`: `http` or `https`, as the client used it.
    Scheme,
}

/// What placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// The client's address; `None`: unknown.
    pub client: Option<IpAddr>,
    /// The host as the request means it.
    pub host: &'a [u8],
    /// The scheme that the client used.
    pub scheme: &'a str,
}

impl Edits {
    /// Whether they change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Behind a placeholder there is at least the end of its line.
        self.removed.is_empty() && self.lines.is_empty()
    }

    /// Whether a field of this name does not go on.
    #[must_use]
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Appends what is added; in answers there is nothing to fill in.
    pub(super) fn add(&self, out: &mut Vec<u8>, filling: Option<&Filling<'_>>) {
        for (text, placeholder) in &self.filled {
            out.extend_from_slice(text);
            if let Some(filling) = filling {
                placeholder.fill(out, filling);
            }
        }
        out.extend_from_slice(&self.lines);
    }
}

impl Placeholder {
    /// All of them, by their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("client", Self::Client), ("host", Self::Host), ("scheme", Self::Scheme)];

    /// The one called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, placeholder)| placeholder)
    }

    fn fill(self, out: &mut Vec<u8>, filling: &Filling<'_>) {
        match (self, filling.client) {
            (Self::Client, Some(address)) => {
                write!(out, "{address}").expect("a Vec takes every write");
            }
            // As RFC 7239 calls it: a server that parses it knows that it knows nothing.
            (Self::Client, None) => out.extend_from_slice(b"unknown"),
            (Self::Host, _) => out.extend_from_slice(filling.host),
            (Self::Scheme, _) => out.extend_from_slice(filling.scheme.as_bytes()),
        }
    }
}
