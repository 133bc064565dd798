//! Text of others made plain, before it stands in a log line, on a terminal or in the journal: on
//! one line, with nothing that a terminal obeys, and no longer than a reader bears.
//!
//! What is written out is what acts instead of showing itself: control characters (C0, DEL, C1),
//! the separators of lines and paragraphs, and what changes or hides the order of a text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest line, in characters: every message of ours is shorter, and it fits a terminal's page.
pub const LINE_CHARS_MAX: usize = 2_000;
/// Longest text of another program that is quoted in a line of ours, in characters: some sentences.
pub const QUOTE_CHARS_MAX: usize = 300;
/// What stands where a text was cut.
const CUT: char = '…';

/// Whether `char` acts on what shows it, rather than being shown.
#[must_use]
pub const fn acts(char: char) -> bool {
    matches!(
        char,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            // The soft hyphen, and marks of direction; then separators, embeddings and overrides.
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            // Tags, which no font shows.
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `text` on one line, cut at [`LINE_CHARS_MAX`].
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    short(text, LINE_CHARS_MAX)
}

/// `text` as a part of a line of ours, cut at [`QUOTE_CHARS_MAX`].
#[must_use]
pub fn quote(text: &str) -> Cow<'_, str> {
    short(text, QUOTE_CHARS_MAX)
}

/// A value among others on a line: as it is where nothing in it could be taken for the next one,
/// else in quotation marks.
#[must_use]
pub fn value(text: &str) -> Cow<'_, str> {
    let is_bare = |char: char| !acts(char) && !matches!(char, ' ' | '"' | '=' | '\\');
    if !text.is_empty() && text.len() <= LINE_CHARS_MAX && text.chars().all(is_bare) {
        return Cow::Borrowed(text);
    }
    let marked = text.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(format!("\"{}\"", line(&marked)))
}

/// `text`, which is whole JSON, with what acts written as JSON writes it. A serializer does that for
/// C0 alone; what else acts can stand only inside strings.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    let must_go = |char: char| acts(char) && !matches!(char, '\n' | '\t' | '\r');
    if !text.chars().any(must_go) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for char in text.chars() {
        if must_go(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // A String takes every write.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}

/// The beginning of `text`, at most `bytes` long and a mark where something is missing.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let mut kept = text[..text.floor_char_boundary(bytes)].to_owned();
    kept.push(CUT);
    Cow::Owned(kept)
}

fn short(text: &str, chars_max: usize) -> Cow<'_, str> {
    // No text has more characters than bytes.
    if text.len() <= chars_max && !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut left = chars_max;
    for char in text.chars() {
        if left == 0 {
            out.push(CUT);
            break;
        }
        left -= 1;
        if acts(char) {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_written_out_and_the_rest_is_not() {
        for (given, shown) in [
            ("plain, with ümläuts, 日本語 and 🦀", "plain, with ümläuts, 日本語 and 🦀"),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{1b}[2J\u{7}\u{8}", r"\u{1b}[2J\u{7}\u{8}"),
            ("\u{9b}31m\u{85}\u{7f}", r"\u{9b}31m\u{85}\u{7f}"),
            ("abc\u{202e}cba\u{2066}x\u{200f}", r"abc\u{202e}cba\u{2066}x\u{200f}"),
            ("one\u{2028}two\u{feff}\u{e0041}", r"one\u{2028}two\u{feff}\u{e0041}"),
        ] {
            assert_eq!(line(given), shown);
        }
    }

    #[test]
    fn lines_and_quotes_are_bounded() {
        for (shown, most) in [
            (line(&"\n".repeat(100_000)).into_owned(), LINE_CHARS_MAX),
            (quote(&"é".repeat(100_000)).into_owned(), QUOTE_CHARS_MAX),
        ] {
            // Two characters for a written-out one, and the mark.
            assert!(shown.chars().count() <= 2 * most + 1 && shown.ends_with('…'));
        }
        assert_eq!(line(&"x".repeat(LINE_CHARS_MAX)), "x".repeat(LINE_CHARS_MAX));
        assert_eq!(cut("aé", 2), "a…");
        assert_eq!(cut("aé", 3), "aé");
    }

    #[test]
    fn a_value_is_not_taken_for_two() {
        assert_eq!(value("10.0.0.1:80"), "10.0.0.1:80");
        assert_eq!(value(""), "\"\"");
        assert_eq!(value("no route to host"), "\"no route to host\"");
        assert_eq!(value("x\" service=\"api"), r#""x\" service=\"api""#);
        assert_eq!(value("a\nb"), r#""a\nb""#);
        assert_eq!(value(r"a\"), r#""a\\""#);
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "a\u{9b}": "x\n\u{1b}\u{2028}\u{e0041}é" });
        let text = format!("{value:#}\n");
        let plain = json(&text);
        assert!(!plain.chars().any(|char| acts(char) && char != '\n'), "{plain}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
    }
}
