//! Sections: typed structs read from the tree, and their JSON Schema, from one definition.
//!
//! serde stops at the first fault of a file; people want all of them, each with its place. So a
//! section reads itself from a [`Node`], and what it cannot read is noted, not returned.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::fault::{Fault, Place};
use super::node::{Kind, Node};

/// Collects faults while the tree is walked, and knows the path to the node at hand.
#[derive(Debug, Default)]
pub struct Reader {
    path: Vec<Step>,
    /// What was found wrong so far.
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// What can stand in a configuration.
pub trait Value: Sized {
    /// Reads it from `node`; `None` when faults were noted instead.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;

    /// Its JSON Schema.
    fn schema() -> Json;
}

impl Reader {
    /// Notes a fault at `place` of the field at hand.
    pub fn fault(&mut self, place: Place, message: impl Into<String>) {
        let field = self.field();
        self.faults.push(Fault { place: Some(place), field, message: message.into() });
    }

    /// The path of the field at hand.
    #[must_use]
    pub fn field(&self) -> String {
        let mut field = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if field.is_empty() => field.push_str(key),
                Step::Key(key) => {
                    field.push('.');
                    field.push_str(key);
                }
                Step::Index(index) => {
                    let _ = write!(field, "[{index}]");
                }
            }
        }
        field
    }

    /// Reads below the key `name`.
    pub fn below<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Key(name.to_owned()));
        let result = read(self);
        self.path.pop();
        result
    }

    /// Reads below the list index `index`.
    pub fn below_index<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Index(index));
        let result = read(self);
        self.path.pop();
        result
    }

    /// The text of a scalar; notes a fault for anything else.
    pub fn scalar<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar(text) => Some(text),
            other => {
                self.fault(node.place, format!("is {}; write {wanted}", other.describe()));
                None
            }
        }
    }

    /// The entries of a mapping whose keys are all in `known`; notes a fault for every other.
    pub fn entries<'n>(&mut self, node: &'n Node, known: &[&str]) -> Option<Entries<'n>> {
        let Kind::Map(entries) = &node.kind else {
            let keys = known.join(", ");
            let is = node.kind.describe();
            self.fault(node.place, format!("is {is}; write a mapping with the keys {keys}"));
            return None;
        };
        for (key, _) in entries {
            if !known.contains(&key.name.as_str()) {
                let message = unknown(&key.name, known);
                self.below(&key.name, |reader| reader.fault(key.place, message));
            }
        }
        Some(Entries { place: node.place, entries })
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
    match nearest {
        Some(nearest) if distance(name, nearest) <= 1 + name.len() / 4 => {
            format!("unknown key; did you mean `{nearest}`?")
        }
        _ => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}

/// The entries of a mapping.
pub struct Entries<'n> {
    place: Place,
    entries: &'n [(super::node::Key, Node)],
}

impl Entries<'_> {
    /// Reads the value of `name`. When it is absent or null, takes `default`, or notes a fault
    /// when there is none.
    pub fn take<T: Value>(
        &self,
        name: &str,
        default: Option<fn() -> T>,
        reader: &mut Reader,
    ) -> Option<T> {
        let node = self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node);
        match (node, default) {
            (Some(node), None) => reader.below(name, |reader| T::read(node, reader)),
            (Some(node), Some(_)) if node.kind != Kind::Null => {
                reader.below(name, |reader| T::read(node, reader))
            }
            (_, Some(default)) => Some(default()),
            (None, None) => {
                reader.fault(self.place, format!("`{name}` is missing; it is required"));
                None
            }
        }
    }
}

/// The JSON Schema of a section: closed, every property described by its documentation.
#[must_use]
pub fn section_schema(doc: &[&str], properties: &[(&str, &[&str], bool, Json)]) -> Json {
    let mut fields = serde_json::Map::new();
    for (name, doc, _, schema) in properties {
        let mut schema = schema.clone();
        schema["description"] = join(doc).into();
        fields.insert((*name).to_owned(), schema);
    }
    let required: Vec<&str> =
        properties.iter().filter(|(_, _, required, _)| *required).map(|(name, ..)| *name).collect();
    let mut schema = json!({
        "type": "object",
        "description": join(doc),
        "properties": fields,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn join(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// The key of a field; one that is a word of Rust is spelled `r#word` there.
#[must_use]
pub fn key(field: &str) -> &str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Defines a section: a struct whose fields are `required` or have a default with `or(…)`.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])*
                pub $field:ident: $type:ty = $presence:ident $(($default:expr))?,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl $crate::config::section::Value for $name {
            fn read(
                node: &$crate::config::node::Node,
                reader: &mut $crate::config::section::Reader,
            ) -> Option<Self> {
                let entries = reader.entries(node, &[$($crate::config::section::key(stringify!($field))),*])?;
                // Everything is read before anything is missed, so that all faults are found.
                $(let $field = entries.take::<$type>(
                    $crate::config::section::key(stringify!($field)),
                    section!(@default $presence $(($default))?),
                    reader,
                );)*
                Some(Self { $($field: $field?,)* })
            }

            fn schema() -> serde_json::Value {
                $crate::config::section::section_schema(
                    &[$($doc),*],
                    &[$((
                        $crate::config::section::key(stringify!($field)),
                        &[$($field_doc),*],
                        section!(@is_required $presence),
                        <$type as $crate::config::section::Value>::schema(),
                    )),*],
                )
            }
        }
    };
    (@default required) => { None };
    (@default or ($default:expr)) => { Some(|| $default) };
    (@is_required required) => { true };
    (@is_required or) => { false };
}

pub(crate) use section;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised() {
        assert_eq!(distance("weights", "wieghts"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert!(unknown("canary_wieght", &["canary_weight", "x"]).contains("`canary_weight`"));
        assert!(unknown("zzz", &["alpha", "beta"]).contains("known here: alpha, beta"));
    }
}
