//! Faults of a configuration: each names the place, the field and the remedy.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::plain;

/// A place in a file; lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, if it has a place.
    pub place: Option<Place>,
    /// Which field, as a path: `services[0].weights.canary`; empty for the file as a whole.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The file.
    pub file: PathBuf,
    /// The faults in the order of their places.
    pub faults: Vec<Fault>,
}

impl Faults {
    /// The faults of `file`, ordered by place.
    #[must_use]
    pub fn new(file: &Path, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.place);
        Self { file: file.to_owned(), faults }
    }

    /// A single fault of the file as a whole.
    #[must_use]
    pub fn whole(file: &Path, message: impl Into<String>) -> Self {
        let fault = Fault { place: None, field: String::new(), message: message.into() };
        Self::new(file, vec![fault])
    }

    /// One line per fault: `file:line:column: field: message`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(|fault| {
            let place = fault
                .place
                .map_or_else(String::new, |place| format!(":{}:{}", place.line, place.column));
            let separator = if fault.field.is_empty() { "" } else { ": " };
            let file = self.file.display();
            let line = format!("{file}{place}: {}{separator}{}", fault.field, fault.message);
            // Keys and values are quoted from the file, whatever is in them.
            plain::line(&line).into_owned()
        })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.lines().collect();
        write!(out, "{}", lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_one_line_whatever_it_quotes() {
        let text = "listeners: [{ address: '127.0.0.1:1', \"a\\n\\e[31mb\": 1 }]\n";
        let faults = crate::config::parse(Path::new("a.yaml"), text).unwrap_err().to_string();
        assert!(faults.lines().all(|line| line.starts_with("a.yaml:")), "{faults}");
        assert!(faults.contains(r"a\n\u{1b}[31mb"), "{faults}");
    }
}
