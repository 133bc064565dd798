//! The sections that change what passes: fields of heads, paths, and answers of our own.

use serde_json::{Value as Json, json};

use crate::http1::Edits;
use crate::http1::edits::Placeholder;
use crate::http1::fields::{Known, is_token};
use crate::route::{PathRewrite, RuleEdits, Target, path};

use super::node::Node;
use super::section::{Reader, Value, section};
use super::values::{At, Named, Size};

section! {
    /// What changes in the heads that pass.
    pub struct HeadEdits {
        /// On the way to the upstream.
        pub request: FieldEdits = or(FieldEdits::default()),
        /// On the way back.
        pub response: FieldEdits = or(FieldEdits::default()),
    }
}

section! {
    /// Fields by what happens to them.
    pub struct FieldEdits {
        /// Replaced, or added where they are missing. In requests `{client}`, `{host}` and `{scheme}`
        /// stand for what is known of the client.
        pub set: Named<At<String>> = or(Named(Vec::new())),
        /// Added beside those that are there.
        pub add: Named<At<String>> = or(Named(Vec::new())),
        /// Taken away.
        pub remove: Vec<At<String>> = or(Vec::new()),
    }
}

section! {
    /// What replaces a request's path. The query stays.
    pub struct Rewrite {
        /// A prefix by whole segments; other paths stay. Omitted: the whole path is replaced.
        pub prefix: Option<At<String>> = or(None),
        /// What stands in its place.
        pub to: At<String> = required,
    }
}

section! {
    /// A redirect.
    pub struct Redirect {
        /// The location: an absolute URL, or a path.
        pub to: At<String> = required,
        /// Append the request's path and query to it.
        pub keep_path: bool = or(false),
        /// 301, 302, 303, 307 or 308.
        pub status: RedirectStatus = or(RedirectStatus(308)),
    }
}

section! {
    /// An answer of the gateway's own.
    pub struct Respond {
        /// The status.
        pub status: super::values::Whole<200, 599> = required,
        /// The content.
        pub body: At<String> = or(At { value: String::new(), place: super::fault::Place::default() }),
        /// What kind of content.
        pub content_type: At<String> =
            or(At { value: "text/plain".into(), place: super::fault::Place::default() }),
        /// Further fields of its head, by name.
        pub headers: Named<At<String>> = or(Named(Vec::new())),
    }
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectStatus(pub u16);

impl Value for RedirectStatus {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a status like 308")?;
        let status = text.parse().ok().filter(|status| matches!(status, 301..=303 | 307 | 308));
        if status.is_none() {
            let message = format!("`{text}` is no redirect; write 301, 302, 303, 307 or 308");
            reader.fault(node.place, message);
        }
        status.map(Self)
    }

    fn schema() -> Json {
        json!({ "enum": [301, 302, 303, 307, 308] })
    }
}

impl Default for FieldEdits {
    fn default() -> Self {
        Self { set: Named(Vec::new()), add: Named(Vec::new()), remove: Vec::new() }
    }
}

/// Largest content of an answer of our own.
const BODY_BYTES_MAX: Size = Size(64 * 1024);

/// Names and values can stand in a head, and carry neither framing nor what only we say.
pub(super) fn check_edits(edits: &HeadEdits, check: &mut Reader) {
    for (way, fields) in [("request", &edits.request), ("response", &edits.response)] {
        let fills = way == "request";
        check.below(way, |check| {
            check.below("set", |check| named(&fields.set, fills, check));
            check.below("add", |check| named(&fields.add, fills, check));
            check.below("remove", |check| {
                fields.remove.iter().for_each(|field| check_name(field, check));
            });
        });
    }
}

/// Names and values, in which placeholders are filled in or are not.
fn named(fields: &Named<At<String>>, fills: bool, check: &mut Reader) {
    for (name, value) in &fields.0 {
        check_name(name, check);
        check.below(&name.value, |check| check_placeholders(value, fills, check));
        if value.bytes().any(|byte| byte != b'\t' && (byte < 0x20 || byte == 0x7f)) {
            let message = "has a control character, which no field may have";
            check.below(&name.value, |check| check.fault(value.place, message));
        }
    }
}

/// A value that is nothing but one word in braces was meant to be filled in. What stands in braces
/// within a longer one may be anybody's template and stays as it is.
fn check_placeholders(value: &At<String>, fills: bool, check: &mut Reader) {
    let found = pieces(value);
    if !fills && found.iter().any(|(_, placeholder)| placeholder.is_some()) {
        let message = "has a placeholder, which is filled in for requests only; write the value";
        check.fault(value.place, message);
    }
    let word = value.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let is_word = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    if fills
        && let Some(word) = word.filter(|word| is_word(word) && Placeholder::named(word).is_none())
    {
        let known = Placeholder::ALL.map(|(name, _)| format!("{{{name}}}")).join(", ");
        let message = format!("`{{{word}}}` is no placeholder; known: {known}");
        check.fault(value.place, message);
    }
}

/// The texts of a value, each with the placeholder behind it.
fn pieces(value: &str) -> Vec<(&str, Option<Placeholder>)> {
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(open) = value[at..].find('{').map(|open| at + open) {
        at = open + 1;
        let name = value[at..].find('}').map(|length| &value[at..at + length]);
        if let Some((name, placeholder)) =
            name.and_then(|name| Placeholder::named(name).map(|placeholder| (name, placeholder)))
        {
            found.push((&value[start..open], Some(placeholder)));
            at += name.len() + 1;
            start = at;
        }
    }
    found.push((&value[start..], None));
    found
}

fn check_name(name: &At<String>, check: &mut Reader) {
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    let is_ours = matches!(
        Known::named(name.as_bytes()),
        Known::Connection
            | Known::ContentLength
            | Known::Expect
            | Known::Http2Settings
            | Known::KeepAlive
            | Known::Ours
            | Known::ProxyConnection
            | Known::Te
            | Known::TransferEncoding
            | Known::Upgrade
    );
    if !is_name {
        let message = format!("`{}` is no name of a header field", name.value);
        check.fault(name.place, message);
    } else if is_ours {
        let message = format!(
            "`{}` belongs to the connection or the gateway and cannot be changed",
            name.value
        );
        check.fault(name.place, message);
    }
}

pub(super) fn check_rewrite(rewrite: &Rewrite, check: &mut Reader) {
    let paths = rewrite.prefix.iter().map(|prefix| ("prefix", prefix));
    for (key, path) in paths.chain([("to", &rewrite.to)]) {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(plain) {
            let message = format!("`{}` is no path; write it like /api", path.value);
            check.below(key, |check| check.fault(path.place, message));
        }
    }
}

pub(super) fn check_redirect(redirect: &Redirect, check: &mut Reader) {
    let to = &redirect.to;
    let is_place = ["https://", "http://", "/"].iter().any(|start| to.starts_with(start));
    if !is_place || !to.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("`{}` is no location; write https://host/path, or a path", to.value);
        check.below("to", |check| check.fault(to.place, message));
    }
}

pub(super) fn check_respond(respond: &Respond, check: &mut Reader) {
    if respond.body.len() as u64 > BODY_BYTES_MAX.0 {
        let message = "is larger than 64KiB; serve it from a track";
        check.below("body", |check| check.fault(respond.body.place, message));
    }
    if !respond.content_type.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        let message = "is no content type; write it like text/html";
        check.below("content_type", |check| check.fault(respond.content_type.place, message));
    }
    check.below("headers", |check| named(&respond.headers, false, check));
}

fn compile_fields(fields: &FieldEdits) -> Edits {
    let lower = |name: &At<String>| name.to_ascii_lowercase().into();
    let set = fields.set.0.iter().map(|(name, _)| lower(name));
    let removed = set.chain(fields.remove.iter().map(lower)).collect();
    let (mut filled, mut lines) = (Vec::new(), Vec::new());
    for (name, value) in fields.set.0.iter().chain(&fields.add.0) {
        lines.extend_from_slice(format!("{}: ", name.to_ascii_lowercase()).as_bytes());
        for (text, placeholder) in pieces(value.value.trim()) {
            lines.extend_from_slice(text.as_bytes());
            if let Some(placeholder) = placeholder {
                filled.push((std::mem::take(&mut lines).into(), placeholder));
            }
        }
        lines.extend_from_slice(b"\r\n");
    }
    Edits { removed, filled, lines: lines.into() }
}

pub(super) fn compile_edits(edits: &HeadEdits) -> RuleEdits {
    let (request, response) = (compile_fields(&edits.request), compile_fields(&edits.response));
    RuleEdits { request, response }
}

pub(super) fn compile_rewrite(rewrite: &Rewrite) -> PathRewrite {
    let to = rewrite.to.as_bytes().into();
    match &rewrite.prefix {
        Some(prefix) => PathRewrite::Prefix(path::configured(prefix), to),
        None => PathRewrite::Path(to),
    }
}

pub(super) fn compile_redirect(redirect: &Redirect) -> Target {
    let to = if redirect.keep_path { redirect.to.trim_end_matches('/') } else { &redirect.to };
    Target::Redirect(redirect.status.0, to.as_bytes().into(), redirect.keep_path)
}

pub(super) fn compile_respond(respond: &Respond) -> Target {
    let status = u16::try_from(respond.status.0).unwrap_or(500);
    let mut lines = String::new();
    if !respond.body.is_empty() {
        lines = format!("content-type: {}\r\n", respond.content_type.value);
    }
    for (name, value) in &respond.headers.0 {
        for part in [&*name.to_ascii_lowercase(), ": ", value.value.trim(), "\r\n"] {
            lines.push_str(part);
        }
    }
    Target::Respond(status, lines.into(), respond.body.as_bytes().into())
}
