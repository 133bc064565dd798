//! A YAML document as a tree in which everything keeps its place and its spelling.
//!
//! The tree is read once, in full, so that a file with five mistakes is told of five, and so that
//! `version: 1.10` stays `1.10`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::fault::Place;

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// Any scalar, as spelled.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in its order.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

impl Kind {
    /// What a person calls it.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Largest configuration file; a thousand services fit.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting; the schema needs eight levels.
const DEPTH_MAX: usize = 32;
/// Most nodes, aliases expanded.
const NODES_MAX: usize = 200_000;

/// Reads the one document in `text`.
///
/// # Errors
/// The place, if known, and the fault: syntax, a duplicate key, or a passed limit.
pub fn read(text: &str) -> Result<Node, (Option<Place>, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 2,
        },
        with_snippet: false,
    };
    let tree: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map(place_of);
            (place, remedy(&error.to_string()))
        })?;
    Ok(node(tree, text))
}

/// What the library found, in words that say what to do.
fn remedy(found: &str) -> String {
    // The place is shown in front; the library repeats it behind.
    let found = found.split(" at line ").next().unwrap_or(found).replace('\n', " ");
    if found.contains("multiple YAML documents") {
        "holds several documents; write one, without `---` in it".to_owned()
    } else if found.contains("Depth") || found.contains("recursion limit") {
        format!("is nested more than {DEPTH_MAX} levels deep; flatten it")
    } else if found.contains("budget breached") {
        "is too large once its aliases are expanded; split it, or use fewer aliases".to_owned()
    } else if let Some(key) = found.strip_prefix("duplicate mapping key: ") {
        let key = key.split(',').next().unwrap_or(key);
        format!("duplicate key `{key}`; keep one of them")
    } else {
        format!("is no YAML: {found}; check indentation, quotes and brackets")
    }
}

/// What serde hands over, before spelling is restored.
enum Raw {
    Null,
    Text(String),
    /// A number or truth value: its spelling is looked up in the text.
    Plain(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn place_of(location: serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let spelling = || {
        let span = raw.defined.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let end = start + usize::try_from(span.byte_len()?).ok()?;
        Some(text.get(start..end)?.trim().to_owned())
    };
    let place = place_of(raw.referenced);
    let kind = match raw.value {
        Raw::Null => Kind::Null,
        Raw::Text(text) => Kind::Scalar(text),
        Raw::Plain(ref canonical) => Kind::Scalar(spelling().unwrap_or_else(|| canonical.clone())),
        Raw::List(items) => Kind::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, Spanned<Raw>)| {
                let place = place_of(key.referenced);
                (Key { name: key.value, place }, node(value, text))
            };
            Kind::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { place, kind }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> String {
        match read(text).unwrap().kind {
            Kind::Map(entries) => match &entries[0].1.kind {
                Kind::Scalar(text) => text.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_keep_their_spelling() {
        for spelled in ["1.10", "010", "1e3", "true", "Yes", "0x1F", "v1", "1_000", "10s", "-0"] {
            assert_eq!(scalar(&format!("a: {spelled}\n")), spelled);
            assert_eq!(scalar(&format!("a: \"{spelled}\"\n")), spelled);
            assert_eq!(scalar(&format!("é: {spelled} # comment\n")), spelled);
        }
    }

    #[test]
    fn places_are_lines_and_columns() {
        let tree = read("a:\n  - b: c\n").unwrap();
        let Kind::Map(entries) = tree.kind else { panic!() };
        assert_eq!(entries[0].0.place, Place { line: 1, column: 1 });
        let Kind::List(items) = &entries[0].1.kind else { panic!() };
        let Kind::Map(inner) = &items[0].kind else { panic!() };
        assert_eq!(inner[0].0.place, Place { line: 2, column: 5 });
        assert_eq!(inner[0].1.place, Place { line: 2, column: 8 });
    }

    #[test]
    fn what_is_dangerous_is_refused_quickly() {
        let started = std::time::Instant::now();
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.extend([format!("a{level}: &a{level} [{aliases}]\n")]);
        }
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&"- ".repeat(100_000)).is_err());
        assert!(read("a: 1\na: 2\n").is_err(), "duplicate keys");
        assert!(read("a: [1\n").is_err());
        assert!(read("a: 1\n---\nb: 2\n").is_err(), "a second document");
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
    }
}
