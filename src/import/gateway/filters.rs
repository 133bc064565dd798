//! Filters of an `HTTPRoute`: what changes on the way, and redirects.

use super::conditions::Condition;
use crate::import::draft::{Yaml, map, plain, text};
use crate::import::manifest::Field;

/// Entries with the same key as one.
pub(super) fn merge(entries: Vec<(String, Yaml)>) -> Vec<(String, Yaml)> {
    let mut merged: Vec<(String, Yaml)> = Vec::new();
    for (key, value) in entries {
        match (merged.iter_mut().find(|(known, _)| *known == key), value) {
            (Some((_, Yaml::Map(known))), Yaml::Map(more)) => known.extend(more),
            (Some((_, Yaml::List(known))), Yaml::List(more)) => known.extend(more),
            (_, value) => merged.push((key, value)),
        }
    }
    merged
}

/// `set`, `add` and `remove` of a header modifier.
pub(super) fn edits(field: &Field<'_>) -> Vec<(String, Yaml)> {
    let fields = field.map();
    let mut found = Vec::new();
    for key in ["set", "add"] {
        let Some(list) = fields.get(key) else { continue };
        let mut pairs = Vec::new();
        for one in list.list() {
            let one = one.map();
            if let (Some(name), Some(value)) = (one.text("name"), one.text("value")) {
                pairs.push((name.to_owned(), text(value)));
            }
            one.finish();
        }
        found.push((key.to_owned(), Yaml::Map(pairs)));
    }
    if let Some(list) = fields.get("remove") {
        let names = list.list().iter().filter_map(Field::text).map(text).collect();
        found.push(("remove".to_owned(), Yaml::List(names)));
    }
    fields.finish();
    found
}

/// Another path: the whole, or in place of the prefix that was matched.
pub(super) fn replacement(field: &Field<'_>, condition: &Condition) -> Option<Yaml> {
    let fields = field.map();
    fields.skip(&["type"]);
    let whole = fields.text("replaceFullPath");
    let prefix = fields.text("replacePrefixMatch");
    fields.finish();
    if let Some(to) = whole {
        return Some(map([("to", text(to))]));
    }
    let to = match prefix?.trim_end_matches('/') {
        "" => "/",
        to => to,
    };
    let Some(prefix) = &condition.prefix else {
        field.unsupported("replaces a prefix where the rule matches none");
        return None;
    };
    Some(map([("prefix", text(&**prefix)), ("to", text(to))]))
}

/// A redirect, unless it needs what only the request knows. `hosts` are the route's.
pub(super) fn redirect(field: &Field<'_>, hosts: &[String]) -> Option<Yaml> {
    let fields = field.map();
    let (scheme, host) = (fields.text("scheme"), fields.text("hostname"));
    let port = fields.get("port").and_then(|port| port.number());
    let status = fields.get("statusCode").and_then(|code| code.number()).unwrap_or(302);
    let path = fields.get("path");
    let whole = path.as_ref().and_then(|path| path.map().text("replaceFullPath"));
    fields.finish();
    if path.is_some() && whole.is_none() {
        field.unsupported("replaces a prefix; write a `redirect` rule for each path");
        return None;
    }
    let own = match hosts {
        [only] if !only.is_empty() && !only.starts_with('*') => Some(&**only),
        _ => None,
    };
    let to = match (host.or(own.filter(|_| scheme.is_some() || port.is_some())), whole) {
        (Some(host), whole) => {
            if scheme.is_none() {
                field.differs("keeps the scheme of the request; https is written");
            }
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let scheme = scheme.unwrap_or("https");
            format!("{scheme}://{host}{port}{}", whole.unwrap_or_default())
        }
        (None, Some(whole)) if scheme.is_none() && port.is_none() => whole.to_owned(),
        _ => {
            field.unsupported("keeps the host of several; write a route for each host");
            return None;
        }
    };
    let keeps_path = plain(whole.is_none());
    Some(map([("to", text(to)), ("keep_path", keeps_path), ("status", plain(status))]))
}
