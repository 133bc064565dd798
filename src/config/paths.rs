//! What a file says of paths, made comparable with the paths of requests.

use serde_json::{Value as Json, json};

use crate::route::rules::PathText;
use crate::route::{Text, path};
use crate::state::PathPolicy;

use super::choices::choice;
use super::compile::compile_text;
use super::node::Node;
use super::section::{Reader, Value};
use super::types::{Match, Service};
use super::values::{At, TextTest};

/// What becomes of paths that servers read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmbiguousPaths {
    /// They are answered with 400 where a path decides.
    Refuse,
    /// They go on.
    Allow,
}

choice!(AmbiguousPaths, "refuse" => AmbiguousPaths::Refuse, "allow" => AmbiguousPaths::Allow);

/// A test on the path, in the spelling in which paths are compared.
pub(super) fn compile(test: &TextTest) -> PathText {
    match test {
        // Plain means what `paths` means: a prefix by whole segments.
        TextTest::Plain(prefix) => PathText::Prefix(path::configured(prefix)),
        test => PathText::Text(text(test)),
    }
}

fn text(test: &TextTest) -> Text {
    match test {
        TextTest::Plain(text) | TextTest::Exact(text) => Text::Exact(path::configured(text)),
        TextTest::Prefix(start) => Text::Prefix(path::configured_start(start)),
        TextTest::Not(inner) => Text::Not(Box::new(text(inner))),
        TextTest::Regex(_) | TextTest::Present => compile_text(test),
    }
}

/// What paths are for in a service.
pub(super) fn policy(service: &Service) -> PathPolicy {
    let tests = |one: &At<Match>| one.path.as_ref().is_some_and(|test| !is_everything(test));
    let by_rule = service.rules.iter().any(|rule| {
        let rewrites = rule.rewrite.as_ref().is_some_and(|rewrite| rewrite.prefix.is_some());
        rewrites || rule.r#match.0.iter().any(tests)
    });
    PathPolicy { by_rule, allows_ambiguous: service.ambiguous_paths == AmbiguousPaths::Allow }
}

/// What is to be said of a test that can never hold, or not as it was meant.
pub(super) fn remark(test: &TextTest, service: &Service) -> Option<String> {
    let text = match test {
        TextTest::Plain(text) | TextTest::Exact(text) | TextTest::Prefix(text) => text,
        TextTest::Regex(regex) => return pattern_remark(regex.as_str()),
        TextTest::Not(inner) => return remark(inner, service),
        TextTest::Present => return None,
    };
    if let Some(begins) = text.chars().find(|char| "?#".contains(*char)) {
        let what = if begins == '?' { "the query; test that by `query`" } else { "a fragment" };
        return Some(format!("`{text}` fits no path: `{begins}` begins {what}"));
    }
    let is_pattern =
        text.ends_with('$') || text.contains(['|', '^', '[', '{']) || text.contains(".*");
    if is_pattern {
        return Some(format!(
            "`{text}` is no regular expression here and compared as it is written; write a path, \
             or a rule with `path: {{ regex: … }}`"
        ));
    }
    if text.contains('*') {
        let before = text[..text.find('*').unwrap_or(0)].trim_end_matches('/');
        let before = if before.is_empty() { "/" } else { before };
        return Some(format!(
            "`{text}` is compared star and all; what is below a path goes with it: write {before}"
        ));
    }
    if let (Some(ambiguity), AmbiguousPaths::Refuse) =
        (path::read(text.as_bytes()).ambiguity, service.ambiguous_paths)
    {
        return Some(format!(
            "`{text}` has {ambiguity}, and such requests are refused; write another path, or \
             `ambiguous_paths: allow`"
        ));
    }
    let compared = match test {
        TextTest::Prefix(text) => path::configured_start(text),
        _ => path::configured(text),
    };
    // What no request can have as it is, is escaped for the comparison: nothing to be said of that.
    let is_other =
        text.bytes().all(|byte| byte.is_ascii_graphic()) && *compared != *text.as_bytes();
    let compared = String::from_utf8_lossy(&compared);
    is_other.then(|| format!("`{text}` is compared as {compared}; write that"))
}

/// The same of a regular expression, as far as its text shows it.
fn pattern_remark(whole: &str) -> Option<String> {
    let text = whole.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$"));
    let text = text.unwrap_or(whole);
    let no_path = |why: &str| Some(format!("`{text}` fits no path: {why}"));
    if text.starts_with(|char: char| char.is_ascii_alphanumeric()) {
        return no_path("a path begins with a slash");
    }
    if text.contains("//") {
        return no_path("slashes in a row are compared as one");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return no_path("other characters than ASCII's are compared escaped, like %C3%A9");
    }
    let escapes = text.match_indices('%').filter_map(|(at, _)| text.get(at..at + 3));
    let is_other = |escape: &&str| {
        let byte = u8::from_str_radix(&escape[1..], 16);
        byte.is_ok()
            && *path::configured_start(&format!("/{escape}")) != *format!("/{escape}").as_bytes()
    };
    if escapes.into_iter().any(|escape| is_other(&escape)) {
        return no_path(
            "escapes are compared in upper case, and those of plain characters decoded",
        );
    }
    None
}

/// Whether some path below `base` may pass the test.
pub(super) fn may_meet(test: &TextTest, base: &str) -> bool {
    let base = path::configured(base);
    match test {
        TextTest::Plain(text) => {
            let text = path::configured(text);
            path::has_prefix(&text, &base) || path::has_prefix(&base, &text)
        }
        TextTest::Exact(text) => path::has_prefix(&path::configured(text), &base),
        TextTest::Prefix(start) => {
            let start = path::configured_start(start);
            start.starts_with(&base) || base.starts_with(&start)
        }
        TextTest::Regex(_) | TextTest::Present | TextTest::Not(_) => true,
    }
}

/// Whether every path that passes `inner` passes `outer`.
pub(super) fn covers(outer: &TextTest, inner: &TextTest) -> bool {
    let start = match inner {
        TextTest::Plain(text) | TextTest::Exact(text) => path::configured(text),
        TextTest::Prefix(start) => path::configured_start(start),
        _ => return outer == inner || is_everything(outer),
    };
    match outer {
        TextTest::Plain(_) if is_everything(outer) => true,
        TextTest::Plain(base) => {
            let base = path::configured(base);
            let base = base.strip_suffix(b"/").unwrap_or(&base);
            // A prefix of text may go on within its last segment.
            let is_whole = !matches!(inner, TextTest::Prefix(_)) || start.len() > base.len();
            is_whole && path::has_prefix(&start, base)
        }
        TextTest::Prefix(text) => start.starts_with(&path::configured_start(text)),
        TextTest::Present => true,
        TextTest::Exact(_) | TextTest::Regex(_) | TextTest::Not(_) => outer == inner,
    }
}

fn is_everything(test: &TextTest) -> bool {
    matches!(test, TextTest::Plain(text) if *path::configured(text) == *b"/")
}
