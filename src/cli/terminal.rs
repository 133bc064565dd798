//! What the commands write: the only place that touches standard output and error, so that no text
//! of a file, a gateway or whoever answers in its place acts on the terminal or forges a line.

use std::io::Write;

use serde_json::Value as Json;

use crate::plain;

use super::FAILED;

/// Writes lines of ours to standard output. What acts in them, beside the ends of lines, is
/// written out.
pub(crate) fn print(text: &str) {
    let must_go = |char: char| plain::acts(char) && !matches!(char, '\n' | '\t');
    if text.chars().any(must_go) {
        let mut out = String::with_capacity(text.len() + 64);
        for char in text.chars() {
            if must_go(char) { out.extend(char.escape_default()) } else { out.push(char) }
        }
        write(&out);
    } else {
        write(text);
    }
}

/// Writes a value to standard output, for machines.
pub(crate) fn print_json(value: &Json) {
    write(&plain::json(&format!("{value:#}\n")));
}

/// Writes lines that move and colour: what others say in them went through [`shown`].
pub(crate) fn draw(text: &str) {
    write(text);
}

/// Says what went wrong, a line each, to standard error.
pub(crate) fn complain(text: &str) {
    for line in text.lines() {
        eprintln!("{}", plain::line(line));
    }
}

/// `value` with every text in it on one line and plain, for people.
pub(crate) fn shown(value: &Json) -> Json {
    match value {
        Json::String(text) => plain::line(text).into(),
        Json::Array(list) => list.iter().map(shown).collect(),
        Json::Object(members) => members
            .iter()
            .map(|(key, value)| (plain::line(key).into_owned(), shown(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A reader that has gone (`| head`) ends the program quietly.
fn write(text: &str) {
    let mut output = std::io::stdout().lock();
    if output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_err() {
        std::process::exit(i32::from(FAILED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_at_any_depth_are_shown_plain() {
        let value = serde_json::json!({ "a\n": ["x\u{1b}[2J", { "b": "\u{202e}" }], "n": 1.5 });
        let expected =
            serde_json::json!({ "a\\n": ["x\\u{1b}[2J", { "b": "\\u{202e}" }], "n": 1.5 });
        assert_eq!(shown(&value), expected);
    }
}
