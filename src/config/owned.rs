//! Names of fields that a service's configuration sets, removes, guards or goes by.

use ipnet::IpNet;

use crate::http1::{Edits, Known, Owned};
use crate::state::OwnedNames;

use super::heads::{FieldEdits, HeadEdits};
use super::section::Reader;
use super::types::{Match, Rule, Service};

/// Those that the other side has no say in.
pub(super) fn names(service: &Service) -> OwnedNames {
    let response = Owned::new(edits(service).flat_map(|edits| edited(&edits.response)));
    OwnedNames { request: on_requests(service), response }
}

fn on_requests(service: &Service) -> Owned {
    let excluded = service.rollout.iter().flat_map(|rollout| rollout.evidence.exclude.iter());
    let tested = matches(service).chain(excluded.map(|one| &one.value));
    let tested = tested.flat_map(|one| one.headers.0.iter().map(|(name, _)| name.as_str()));
    let edited = edits(service).flat_map(|edits| edited(&edits.request));
    let sticky = service.sticky.as_ref().and_then(|sticky| sticky.header.as_ref());
    let limit = service.rate_limit.as_ref().and_then(|limit| limit.header.as_ref());
    let keys = [sticky, limit, service.balance.header.as_ref()].into_iter().flatten();
    let keys = keys.map(|name| name.value.as_str());
    let made = service.request_id.then_some("x-request-id");
    Owned::new(tested.chain(edited).chain(keys).chain(made))
}

fn matches(service: &Service) -> impl Iterator<Item = &Match> {
    service.rules.iter().flat_map(|rule| rule.r#match.0.iter().map(|one| &one.value))
}

fn edits(service: &Service) -> impl Iterator<Item = &HeadEdits> {
    std::iter::once(&service.headers).chain(service.rules.iter().map(|rule| &rule.headers))
}

fn edited(fields: &FieldEdits) -> impl Iterator<Item = &str> {
    let written = fields.set.0.iter().chain(&fields.add.0).map(|(name, _)| name);
    written.chain(&fields.remove).map(|name| name.value.as_str())
}

/// Fields that rules with `from` test, taken from everybody whom these are not for.
pub(super) fn guarded(service: &Service) -> Vec<(Vec<IpNet>, Edits)> {
    let mut guards: Vec<(Vec<IpNet>, Edits)> = Vec::new();
    for rule in service.rules.iter().filter(|rule| !rule.from.is_empty()) {
        let tests = rule.r#match.0.iter().flat_map(|one| &one.headers.0);
        // What is told of the client is ours or a trusted proxy's already.
        let tests = tests.filter(|(name, _)| !is_ours(name));
        let names = tests.map(|(name, _)| name.to_ascii_lowercase().into_boxed_str());
        // Rules for the same clients are the usual case: one look at the source serves them all.
        let known = guards.iter().position(|(from, _)| *from == rule.from);
        let guard = known.unwrap_or_else(|| {
            guards.push((rule.from.clone(), Edits::default()));
            guards.len() - 1
        });
        let removed = &mut guards[guard].1.removed;
        removed.extend(names);
        removed.sort_unstable();
        removed.dedup();
    }
    guards
}

/// Whether the gateway writes this field anew.
fn is_ours(name: &str) -> bool {
    let known = Known::named(name.as_bytes());
    matches!(
        known,
        Known::XForwardedFor | Known::XForwardedHost | Known::XForwardedProto | Known::Ours
    )
}

/// Fields that everybody's requests are understood by; of some the beginning.
const EVERYBODYS: [&str; 20] = [
    "accept",
    "accept-",
    "access-control-request-",
    "authorization",
    "cache-control",
    "content-",
    "cookie",
    "date",
    "if-",
    "idempotency-key",
    "last-event-id",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "range",
    "referer",
    "sec-",
    "traceparent",
    "user-agent",
];

/// Fields that a rule with `from` tests are taken from everybody else's requests, which must be able
/// to do without them.
pub(super) fn check_guard(rule: &Rule, check: &mut Reader) {
    if rule.from.is_empty() {
        return;
    }
    check.below("match", |check| {
        for (index, one) in rule.r#match.0.iter().enumerate() {
            for (name, _) in one.headers.0.iter().filter(|(name, _)| is_everybodys(name)) {
                check.below_index(index, |check| {
                    check.below("headers", |check| check.fault(name.place, refusal(name)));
                });
            }
        }
    });
}

fn is_everybodys(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_known =
        !matches!(Known::named(name.as_bytes()), Known::Other | Known::Told) && !is_ours(&name);
    is_known
        || EVERYBODYS
            .iter()
            .any(|one| name == *one || (one.ends_with('-') && name.starts_with(one)))
}

fn refusal(name: &str) -> String {
    let instead = if name.eq_ignore_ascii_case("cookie") {
        "test one cookie by its name under `cookies`, or "
    } else {
        ""
    };
    format!(
        "`{name}` would be taken from everybody whom the rule is not `from`, and their requests need it; \
         {instead}name the networks as `source` in the match instead of `from`, which takes nothing"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_needs_is_told_from_what_only_some_send() {
        for name in
            ["cookie", "Host", "authorization", "Content-Length", "content-type", "te", "Expect"]
        {
            assert!(is_everybodys(name), "{name}");
        }
        for name in
            ["canary", "x-user-group", "x-real-ip", "X-Forwarded-For", "x-cookie", "originator"]
        {
            assert!(!is_everybodys(name), "{name}");
        }
    }
}
