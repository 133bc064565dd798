//! Conditions of Istio's routes. What cannot be tested here is left out with its whole alternative:
//! a route is never made wider than it was.

use crate::import::draft::{Yaml, map, plain, text};
use crate::import::manifest::{Field, Fields};

/// The conditions of a list of matches, of which any suffices; `None` when none can be tested.
pub(in crate::import) fn matches(list: &Field<'_>) -> Option<Yaml> {
    let mut found: Vec<Yaml> = list.list().iter().filter_map(one).collect();
    match found.len() {
        0 => None,
        1 => found.pop(),
        _ => Some(Yaml::List(found)),
    }
}

/// Something cannot be tested here.
struct Untestable;

/// One alternative: everything in it must hold.
fn one(field: &Field<'_>) -> Option<Yaml> {
    let fields = field.map();
    fields.skip(&["name", "statPrefix"]);
    let mut is_whole = true;
    for (key, why) in [
        ("sourceLabels", "is known to a sidecar alone"),
        ("sourceNamespace", "is known to a sidecar alone"),
        ("gateways", "names a gateway; here one listener takes all"),
        ("port", "tests the port that was called; name the service by `hosts` and `paths`"),
        ("scheme", "is decided by the listener"),
    ] {
        if let Some(field) = fields.get(key) {
            field.unsupported(format!("{why}; the alternative is left out"));
            is_whole = false;
        }
    }
    let mut entries: Vec<(String, Yaml)> = Vec::new();
    let ignores_case = fields.text("ignoreUriCase") == Some("true");
    match fields.get("uri").map_or(Ok(None), |uri| path(&uri, ignores_case)) {
        Ok(test) => entries.extend(test.map(|test| ("path".to_owned(), test))),
        Err(Untestable) => is_whole = false,
    }
    let mut headers = Vec::new();
    if let Some(authority) = fields.get("authority") {
        match test(&authority) {
            Some(test) => headers.push(("host".to_owned(), test)),
            None => is_whole = false,
        }
    }
    for (key, is_not) in [("headers", false), ("withoutHeaders", true)] {
        is_whole &= tests(&fields, key, is_not, &mut headers);
    }
    let mut query = Vec::new();
    is_whole &= tests(&fields, "queryParams", false, &mut query);
    for (key, tests) in [("headers", headers), ("query", query)] {
        if !tests.is_empty() {
            entries.push((key.to_owned(), Yaml::Map(tests)));
        }
    }
    if let Some(method) = fields.get("method") {
        if let Some(exact) = method.map().text("exact") {
            entries.push(("method".to_owned(), text(exact)));
        } else {
            method.unsupported("is no exact name; write the methods; the alternative is left out");
            is_whole = false;
        }
    }
    fields.finish();
    if entries.is_empty() && is_whole {
        entries.push(("path".to_owned(), plain("/")));
    }
    is_whole.then_some(Yaml::Map(entries))
}

/// Tests by name; false where one cannot be had.
fn tests(fields: &Fields<'_>, key: &str, is_not: bool, found: &mut Vec<(String, Yaml)>) -> bool {
    let mut is_whole = true;
    for (name, field) in fields.get(key).map(|field| field.map().all()).unwrap_or_default() {
        match test(&field) {
            Some(test) if is_not => found.push((name.to_owned(), map([("not", test)]))),
            Some(test) => found.push((name.to_owned(), test)),
            None => is_whole = false,
        }
    }
    is_whole
}

/// A test on a field: exact text is plain, as people write it.
pub(in crate::import) fn test(field: &Field<'_>) -> Option<Yaml> {
    let fields = field.map();
    let kinds = [
        ("exact", fields.text("exact")),
        ("prefix", fields.text("prefix")),
        ("regex", fields.text("regex")),
    ];
    let mut present = kinds.iter().filter_map(|(kind, value)| Some((*kind, (*value)?)));
    let first = present.next();
    fields.finish();
    Some(match first {
        // Every value begins with nothing.
        None | Some(("prefix", "")) => map([("present", plain(true))]),
        Some(("exact", value)) => text(value),
        Some(("regex", value)) => map([("regex", text(checked(field, value)?))]),
        Some((kind, value)) => map([(kind, text(value))]),
    })
}

/// A test on the path; `None`: any path.
fn path(field: &Field<'_>, ignores_case: bool) -> Result<Option<Yaml>, Untestable> {
    let fields = field.map();
    let (exact, prefix, regex) =
        (fields.text("exact"), fields.text("prefix"), fields.text("regex"));
    fields.finish();
    let case = if ignores_case { "(?i)" } else { "" };
    let pattern = match (exact, prefix, regex) {
        (Some(value), _, _) if !ignores_case => {
            return Ok(Some(map([("exact", text(value))])));
        }
        (Some(value), _, _) => regex::escape(value),
        // Every path begins with a slash.
        (_, Some("/" | ""), _) => return Ok(None),
        // Istio's prefix is of text: `/api` fits `/apix`. A prefix here is of whole segments.
        (_, Some(value), _) => format!("{}.*", regex::escape(value)),
        (_, _, Some(value)) => checked(field, value).ok_or(Untestable)?.to_owned(),
        _ => {
            field.unsupported("tests nothing that is known; the alternative is left out");
            return Err(Untestable);
        }
    };
    Ok(Some(map([("regex", text(format!("{case}{pattern}")))])))
}

/// A pattern, unless it is none.
pub(in crate::import) fn checked<'t>(field: &Field<'_>, pattern: &'t str) -> Option<&'t str> {
    if regex::Regex::new(pattern).is_err() {
        field.unsupported(
            "is no regular expression that runs in linear time; the alternative is left out",
        );
        return None;
    }
    Some(pattern)
}
