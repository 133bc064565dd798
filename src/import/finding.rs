//! What became of each part of a manifest.

use std::cell::RefCell;
use std::fmt;

use crate::config::fault::Place;
use crate::plain;

/// How true the result is to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It behaves the same.
    Exact,
    /// It behaves otherwise, as the message says.
    Differs,
    /// It has no counterpart and is left out.
    Unsupported,
}

impl Grade {
    /// As it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Differs => "differs",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Where something stands in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named.
    pub file: String,
    /// The place in it.
    pub place: Place,
    /// `VirtualService/api`; empty where a file is no manifest.
    pub object: String,
    /// `spec.http[0]`; empty for the whole.
    pub path: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.place.line)?;
        for part in [&self.object, &self.path] {
            if !part.is_empty() {
                write!(formatter, " {part}")?;
            }
        }
        Ok(())
    }
}

/// One finding. Shown as `file:line kind/name path: message`, on one line whatever it quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How true the result is.
    pub grade: Grade,
    /// What it is about.
    pub origin: Origin,
    /// What became of it, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&plain::line(&format!("{}: {}", self.origin, self.message)))
    }
}

/// Why nothing could be imported: a manifest that is none, or is malformed. Shown on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", plain::line(&format!("{origin}: {message}")))]
pub struct BadInput {
    /// Where.
    pub origin: Origin,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// Most findings of a grade that are kept: a hostile file has one for every line.
const FINDINGS_MAX: usize = 10_000;

/// What was found so far; shared by everything that reads.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: RefCell<Vec<Finding>>,
    /// Of each grade.
    counts: RefCell<[usize; 3]>,
    faults: RefCell<Vec<BadInput>>,
}

impl Report {
    pub(super) fn find(&self, grade: Grade, origin: Origin, message: impl Into<String>) {
        let mut findings = self.findings.borrow_mut();
        // What is the same must not crowd out what is not.
        let known = &mut self.counts.borrow_mut()[grade as usize];
        if *known < FINDINGS_MAX {
            *known += 1;
            findings.push(Finding { grade, origin, message: message.into() });
        }
    }

    pub(super) fn fault(&self, origin: Origin, message: impl Into<String>) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < FINDINGS_MAX {
            faults.push(BadInput { origin, message: message.into() });
        }
    }

    /// The findings in the order of their places; or what was wrong with the input.
    pub(super) fn close(self) -> Result<Vec<Finding>, Vec<BadInput>> {
        let faults = self.faults.into_inner();
        if faults.is_empty() { Ok(self.findings.into_inner()) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_does_not_crowd_out_what_differs() {
        let report = Report::default();
        let origin = Origin {
            file: String::new(),
            place: Place { line: 1, column: 1 },
            object: String::new(),
            path: String::new(),
        };
        for _ in 0..FINDINGS_MAX + 5 {
            report.find(Grade::Exact, origin.clone(), "a rule");
        }
        report.find(Grade::Differs, origin, "otherwise");
        let found = report.close().unwrap();
        assert_eq!(found.len(), FINDINGS_MAX + 1);
        assert_eq!(found.last().unwrap().grade, Grade::Differs);
    }
}
