//! Matches of an `HTTPRoute`, and which of them is asked first.

use crate::import::draft::{Yaml, map, plain, text};
use crate::import::istio::conditions::checked;
use crate::import::manifest::Field;

/// Everything that a match asks for.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) yaml: Yaml,
    /// The greater is asked first: the kind of path, its length, a method, the numbers of headers
    /// and of query parameters.
    pub(super) rank: (u8, usize, bool, usize, usize),
    /// The prefix that it asks for.
    pub(super) prefix: Option<String>,
    pub(super) is_everything: bool,
}

/// The matches of a rule; without any it takes everything. Those that cannot be tested are left out.
pub(super) fn conditions(rule: &Field<'_>) -> Vec<Condition> {
    let matches = rule.map().get("matches").map(|matches| matches.list()).unwrap_or_default();
    if matches.is_empty() {
        let yaml = map([("path", plain("/"))]);
        let rank = (0, 1, false, 0, 0);
        return vec![Condition { yaml, rank, prefix: Some("/".into()), is_everything: true }];
    }
    matches.iter().filter_map(condition).collect()
}

fn condition(field: &Field<'_>) -> Option<Condition> {
    let fields = field.map();
    let (kind, value, test) = match fields.get("path") {
        None => (0, "/".to_owned(), plain("/")),
        Some(field) => path(&field)?,
    };
    let headers = tests(fields.get("headers"))?;
    let query = tests(fields.get("queryParams"))?;
    let method = fields.text("method");
    fields.finish();
    let rank = (kind, value.len(), method.is_some(), headers.len(), query.len());
    let is_bare = method.is_none() && headers.is_empty() && query.is_empty();
    let mut entries = Vec::new();
    if is_bare || value != "/" || kind != 0 {
        entries.push(("path".to_owned(), test));
    }
    for (key, tests) in [("headers", headers), ("query", query)] {
        if !tests.is_empty() {
            entries.push((key.to_owned(), Yaml::Map(tests)));
        }
    }
    entries.extend(method.map(|method| ("method".to_owned(), text(method))));
    let is_everything = is_bare && kind == 0 && value == "/";
    let prefix = (kind == 0).then_some(value);
    Some(Condition { yaml: Yaml::Map(entries), rank, prefix, is_everything })
}

/// How early the kind is asked, the path, and the test on it.
fn path(field: &Field<'_>) -> Option<(u8, String, Yaml)> {
    let fields = field.map();
    let kind = fields.text("type").unwrap_or("PathPrefix");
    let value = fields.text("value").unwrap_or("/");
    fields.finish();
    match kind {
        "PathPrefix" => {
            let value = match value.trim_end_matches('/') {
                "" => "/",
                value => value,
            };
            Some((0, value.to_owned(), text(value)))
        }
        "Exact" => Some((2, value.to_owned(), map([("exact", text(value))]))),
        "RegularExpression" => {
            let value = checked(field, value)?;
            field.differs("is of each implementation's own kind; here the whole path must fit, and it is asked after exact paths and before prefixes");
            Some((1, value.to_owned(), map([("regex", text(value))])))
        }
        other => {
            field.unsupported(format!(
                "has the type `{other}`, which is not known here; the match is left out"
            ));
            None
        }
    }
}

/// Tests by name; `None` where one cannot be had. Of those for the same name the first counts.
fn tests(list: Option<Field<'_>>) -> Option<Vec<(String, Yaml)>> {
    let mut found: Vec<(String, Yaml)> = Vec::new();
    for field in list.map(|list| list.list()).unwrap_or_default() {
        let fields = field.map();
        let (name, value) = (fields.text("name")?, fields.text("value").unwrap_or_default());
        let test = match fields.text("type").unwrap_or("Exact") {
            "Exact" => text(value),
            "RegularExpression" => map([("regex", text(checked(&field, value)?))]),
            other => {
                field.unsupported(format!(
                    "has the type `{other}`, which is not known here; the match is left out"
                ));
                return None;
            }
        };
        fields.finish();
        if !found.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            found.push((name.to_owned(), test));
        }
    }
    Some(found)
}
