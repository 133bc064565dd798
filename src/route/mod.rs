//! Which service, which rule, which bucket: routing as pure functions of one view of a head.

pub mod path;
pub mod rate;
pub mod rules;
pub mod seal;
pub mod source;
pub mod sticky;
pub mod table;

pub use rules::{Match, PathRewrite, Rule, RuleEdits, Target, Text};
pub use source::Source;
pub use sticky::{Sticky, StickyKey};
pub use table::{Found, Table};

/// The header fields of a request, whichever protocol brought it.
pub trait Headers {
    /// Whether `test` holds for any value of the field `name` (lower case).
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// What routing reads of a request.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The method as written.
    pub method: &'a [u8],
    /// The path as it is compared, without the query.
    pub path: &'a [u8],
    /// The query without its question mark.
    pub query: &'a [u8],
    /// Where it comes from, as far as trusted proxies tell it.
    pub source: Source,
    /// The header fields.
    pub headers: &'a dyn Headers,
}
