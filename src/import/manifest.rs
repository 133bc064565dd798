//! Manifests: the documents of a file, each an object with kind and name, read field by field so that
//! none is passed over in silence.

use std::cell::RefCell;

use crate::config::fault::Place;
use crate::config::node::{self, Key, Kind, Node};

use super::finding::{Grade, Origin, Report};

/// Largest file that is read.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most objects of all files.
const OBJECTS_MAX: usize = 5_000;

/// A file by its name.
#[derive(Clone, Debug)]
pub struct Source {
    /// As it is shown.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// One object.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) file: String,
    /// `apps/v1`.
    pub(super) api: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    node: Node,
}

impl Manifest {
    /// The object as a field that can be read.
    pub(super) fn whole<'m>(&'m self, report: &'m Report) -> Field<'m> {
        Field { manifest: self, path: String::new(), node: &self.node, report }
    }

    /// The object and its `spec`, which every object that routes has.
    pub(super) fn spec<'m>(&'m self, report: &'m Report) -> Option<(Field<'m>, Fields<'m>)> {
        let whole = self.whole(report);
        let root = whole.map();
        root.skip(&["apiVersion", "kind", "metadata", "status"]);
        let spec = root.get("spec");
        root.finish();
        if spec.is_none() {
            whole.fault("has no `spec`");
        }
        Some((whole, spec?.map()))
    }

    /// Where the object begins.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            file: self.file.clone(),
            place: self.node.place,
            object: format!("{}/{}", self.kind, self.name),
            path: String::new(),
        }
    }
}

/// The objects of all files in their order; what is none is noted as a fault.
pub(super) fn read(sources: &[Source], report: &Report) -> Vec<Manifest> {
    let mut objects = Vec::new();
    for source in sources {
        let at = |place: Option<Place>| Origin {
            file: source.name.clone(),
            place: place.unwrap_or(Place { line: 1, column: 1 }),
            object: String::new(),
            path: String::new(),
        };
        if source.text.len() > FILE_BYTES_MAX {
            report.fault(at(None), "is larger than 4 MiB; import the manifests of one service");
            continue;
        }
        for document in documents(&source.text) {
            match node::read(&document) {
                Ok(node) => take(node, &source.name, report, &mut objects),
                Err((place, message)) => report.fault(at(place), message),
            }
        }
    }
    objects
}

/// The documents of a text, each with as many empty lines ahead as put it where it stands.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    let mut has_content = false;
    for (index, line) in text.lines().enumerate() {
        // Within a document `---` at the start of a line can only stand in a block that is not
        // indented, which a mapping cannot hold.
        if line == "---" || line.starts_with("--- ") || line == "..." {
            if has_content {
                documents.push(String::new());
            }
            has_content = false;
            if let Some(last) = documents.last_mut() {
                *last = "\n".repeat(index + 1);
            }
            continue;
        }
        has_content |= !line.trim().is_empty() && !line.trim_start().starts_with('#');
        if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    if !has_content {
        documents.pop();
    }
    documents
}

fn take(node: Node, file: &str, report: &Report, objects: &mut Vec<Manifest>) {
    let origin =
        |place| Origin { file: file.to_owned(), place, object: String::new(), path: String::new() };
    if node.kind == Kind::Null {
        return;
    }
    let text = |node: &Node, key: &str| match find(node, key).map(|node| &node.kind) {
        Some(Kind::Scalar(text)) => Some(text.clone()),
        _ => None,
    };
    let Some(kind) = text(&node, "kind") else {
        let message = "is no manifest: `kind` is missing; give the YAML that kubectl applies";
        return report.fault(origin(node.place), message);
    };
    if kind == "List" || kind.ends_with("List") && find(&node, "items").is_some() {
        let Kind::Map(entries) = node.kind else { return };
        for (key, items) in entries {
            if let (true, Kind::List(items)) = (key.name == "items", items.kind) {
                for item in items {
                    take(item, file, report, objects);
                }
            }
        }
        return;
    }
    let metadata = find(&node, "metadata");
    let named = metadata.and_then(|metadata| text(metadata, "name"));
    // The one kind that usually has no name.
    let usual = (kind == "Kustomization").then(|| "kustomization".to_owned());
    let Some(name) = named.or(usual) else {
        let message = format!("{kind} has no `metadata.name`; every manifest has one");
        return report.fault(origin(node.place), message);
    };
    if objects.len() == OBJECTS_MAX {
        return report.fault(origin(node.place), "is one object too many; import 5,000 at once");
    }
    let namespace = metadata.and_then(|metadata| text(metadata, "namespace"));
    let api = text(&node, "apiVersion").unwrap_or_default();
    objects.push(Manifest { file: file.to_owned(), api, kind, name, namespace, node });
}

fn find<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(known, _)| known.name == key).map(|(_, node)| node)
}

/// One field of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Field<'m> {
    manifest: &'m Manifest,
    path: String,
    node: &'m Node,
    report: &'m Report,
}

impl<'m> Field<'m> {
    pub(super) fn origin(&self) -> Origin {
        Origin { place: self.node.place, path: self.path.clone(), ..self.manifest.origin() }
    }

    pub(super) fn exact(&self, message: impl Into<String>) {
        self.report.find(Grade::Exact, self.origin(), message);
    }

    pub(super) fn differs(&self, message: impl Into<String>) {
        self.report.find(Grade::Differs, self.origin(), message);
    }

    pub(super) fn unsupported(&self, message: impl Into<String>) {
        self.report.find(Grade::Unsupported, self.origin(), message);
    }

    pub(super) fn fault(&self, message: impl Into<String>) {
        self.report.fault(self.origin(), message);
    }

    /// The same, whose findings go elsewhere.
    pub(super) fn told(&self, report: &'m Report) -> Self {
        Self { report, ..self.clone() }
    }

    fn wrong(&self, wanted: &str) {
        self.fault(format!("is {}; write {wanted}", self.node.kind.describe()));
    }

    /// A single value.
    pub(super) fn text(&self) -> Option<&'m str> {
        if let Kind::Scalar(text) = &self.node.kind {
            return Some(text);
        }
        self.wrong("a single value");
        None
    }

    /// A whole number from 0.
    pub(super) fn number(&self) -> Option<u64> {
        let text = self.text()?;
        let number = text.parse().ok();
        if number.is_none() {
            self.fault(format!("`{text}` is no number; write one from 0"));
        }
        number
    }

    /// A duration as Go and Kubernetes write it, in milliseconds.
    pub(super) fn duration_ms(&self) -> Option<u64> {
        let text = self.text()?;
        let found = duration_ms(text);
        if found.is_none() {
            self.fault(format!("`{text}` is no duration; write one like 30s or 1h30m"));
        }
        found
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.kind == Kind::Null
    }

    /// The members of a list.
    pub(super) fn list(&self) -> Vec<Self> {
        let Kind::List(items) = &self.node.kind else {
            if !self.is_null() {
                self.wrong("a list");
            }
            return Vec::new();
        };
        let member =
            |(index, node)| Self { path: format!("{}[{index}]", self.path), node, ..self.clone() };
        items.iter().enumerate().map(member).collect()
    }

    /// The members of a mapping.
    pub(super) fn map(&self) -> Fields<'m> {
        let entries: &'m [(Key, Node)] = match &self.node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => &[],
            _ => {
                self.wrong("a mapping");
                &[]
            }
        };
        Fields { of: self.clone(), entries, read: RefCell::new(vec![false; entries.len()]) }
    }
}

/// The fields of a mapping. What nobody asked for is a finding.
#[derive(Debug)]
pub(super) struct Fields<'m> {
    of: Field<'m>,
    entries: &'m [(Key, Node)],
    read: RefCell<Vec<bool>>,
}

impl<'m> Fields<'m> {
    pub(super) fn get(&self, key: &str) -> Option<Field<'m>> {
        let index = self.entries.iter().position(|(known, _)| known.name == key)?;
        self.read.borrow_mut()[index] = true;
        Some(self.at(index))
    }

    fn at(&self, index: usize) -> Field<'m> {
        let (key, node) = &self.entries[index];
        let path = &self.of.path;
        let path = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
        // A mapping's own place is its first key's; the reader looks for the key.
        Field { path, node, ..self.of.clone() }
    }

    /// Whether it is there, without asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, _)| known.name == key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&'m str> {
        self.get(key)?.text()
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<(&'m str, Field<'m>)> {
        self.read.borrow_mut().fill(true);
        (0..self.entries.len())
            .map(|index| (&*self.entries[index].0.name, self.at(index)))
            .collect()
    }

    /// Those that nobody asked for yet.
    pub(super) fn rest(&self) -> Vec<(&'m str, Field<'m>)> {
        let unread: Vec<usize> =
            (0..self.entries.len()).filter(|&index| !self.read.borrow()[index]).collect();
        self.read.borrow_mut().fill(true);
        unread.into_iter().map(|index| (&*self.entries[index].0.name, self.at(index))).collect()
    }

    /// What has no bearing on traffic.
    pub(super) fn skip(&self, keys: &[&str]) {
        for (index, (key, _)) in self.entries.iter().enumerate() {
            if keys.contains(&&*key.name) {
                self.read.borrow_mut()[index] = true;
            }
        }
    }

    /// Notes each field of these that is there as without counterpart.
    pub(super) fn refuse(&self, reasons: &[(&str, &str)]) {
        for (key, reason) in reasons {
            if let Some(field) = self.get(key) {
                field.unsupported(*reason);
            }
        }
    }

    /// Notes each field of these that is there as told elsewhere, or otherwise.
    pub(super) fn differ(&self, reasons: &[(&str, &str)]) {
        for (key, reason) in reasons {
            if let Some(field) = self.get(key) {
                field.differs(*reason);
            }
        }
    }

    /// Everything that was not asked for is a finding.
    pub(super) fn finish(&self) {
        for (_, field) in self.rest() {
            field.unsupported("is not known here and is left out");
        }
    }
}

/// `1h30m`, `1.5s`, `250ms`; a bare number is seconds, as Argo has it.
fn duration_ms(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|char: char| char.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 6e4,
                "h" => 3.6e6,
                "d" => 8.64e7,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no sign was read; the bound is far below 2^52"
    )]
    let whole = (0.0..=3.2e12).contains(&total).then(|| total.round() as u64);
    whole.filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, ms) in [
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("30", 30_000),
        ] {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for bad in ["", "m", "1x", "-1s", "1s2", "99999999999999h", "1e9s"] {
            assert_eq!(duration_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn documents_keep_their_lines() {
        let text = "# nothing\n---\nkind: A\nmetadata: { name: a }\n---\n\n---\nkind: B\nmetadata: { name: b }\n";
        let report = Report::default();
        let objects = read(&[Source { name: "x".into(), text: text.into() }], &report);
        let at: Vec<_> = objects.iter().map(|one| one.origin().to_string()).collect();
        assert_eq!(at, ["x:3 A/a", "x:8 B/b"]);
        assert!(report.close().is_ok());
    }
}
