//! From a request's target to its service, and to what the upstream is asked for.

use std::borrow::Cow;
use std::rc::Rc;

use crate::http1::RequestHead;
use crate::route::{PathRewrite, path};

use super::failure::Failure;
use super::local::{LocalService, LocalState};

/// Where a request goes by its host and path.
pub(super) struct Place<'a> {
    /// The service.
    pub(super) service: &'a Rc<LocalService>,
    /// The path as it is compared.
    pub(super) path: Cow<'a, [u8]>,
    /// The query without its question mark.
    pub(super) query: &'a [u8],
    /// The path has a say in what becomes of it.
    by_path: bool,
    /// Path and query as they came.
    came: &'a [u8],
}

impl<'a> Place<'a> {
    /// The place of a request on the listener of this number; none for a path that servers read differently where it matters.
    pub(super) fn find(
        state: &'a LocalState,
        listener: usize,
        head: &RequestHead<'a>,
    ) -> Result<Self, Failure> {
        let came = head.path_and_query;
        let (raw_path, query) = path::split(came);
        let path::Reading { compared: path, ambiguity } = path::read(raw_path);
        let found = state.shared.find(listener, head.host(), &path).ok_or(Failure::NoService)?;
        let service = &state.services[found.service];
        let policy = service.shared.paths;
        let by_path = found.by_path || policy.by_rule;
        match ambiguity.filter(|_| by_path && !policy.allows_ambiguous) {
            Some(ambiguity) => Err(Failure::AmbiguousPath(ambiguity)),
            None => Ok(Self { service, path, query, by_path, came }),
        }
    }

    /// Path and query for the upstream where they are not the client's: rewritten, or as they were
    /// compared, so that what a path decided holds for whoever serves it.
    pub(super) fn target(&self, rewrite: Option<&PathRewrite>) -> Option<Vec<u8>> {
        if !self.by_path && rewrite.is_none() {
            return None;
        }
        let raw_path = path::split(self.came).0;
        let forwarded = path::forwarded(raw_path, self.service.shared.paths.allows_ambiguous);
        let rewritten =
            rewrite.and_then(|rewrite| rewrite.apply(&self.path, &forwarded, self.query));
        rewritten.or_else(|| match &forwarded {
            Cow::Owned(path) if self.by_path => Some([path, &self.came[raw_path.len()..]].concat()),
            _ => None,
        })
    }
}
