//! What stands in the journal, and what is known after reading it. Pure.
//!
//! Every record carries the state after it, so that reading needs no arithmetic: the last whole
//! record of a service is where it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::judge::sequential::Account;
use crate::judge::{Arm, Arms};

use super::edit::Applied;
use super::machine::{Machine, Transition};
use super::progress::Progress;

/// Transitions that are remembered per service.
pub const HISTORY_MAX: usize = 200;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The service.
    pub service: String,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Entry {
    /// A file was applied.
    Applied {
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// What it says.
        applied: Box<Applied>,
    },
    /// The rollout moved.
    Transition {
        /// How.
        transition: Box<Transition>,
        /// Where it is now.
        machine: Box<Machine>,
    },
    /// A cohort was judged.
    Evidence(Box<Evidence>),
    /// Everything at once, at the head of a new file.
    Snapshot {
        /// The last applied file.
        applied: Option<Box<Applied>>,
        /// Where it is.
        machine: Box<Machine>,
        /// The last transitions, oldest first.
        history: Vec<Transition>,
    },
}

/// One judged cohort; also what `splitway replay` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// How long requests were assigned to it.
    pub dt_s: f64,
    /// The stage it was assigned at, from 1.
    pub stage: Option<usize>,
    /// The canary's weight then, in percent.
    pub weight: f64,
    /// What the canary showed.
    pub canary: Arm,
    /// What stable showed.
    pub stable: Arm,
    /// What the pots saw, where that is less: of a sticky user, one error per stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pots: Option<Arms>,
    /// The latency cuts that were known.
    pub has_cut: [bool; 2],
    /// The evidence against the canary after it.
    pub e: f64,
    /// What the judge had learned after it.
    pub account: Account,
    /// What the run had seen after it.
    pub progress: Progress,
}

/// One service as the journal knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The last applied file.
    pub applied: Option<Applied>,
    /// Where it was.
    pub machine: Machine,
    /// The last transitions, oldest first.
    pub history: Vec<Transition>,
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// The services by name.
    pub services: BTreeMap<String, Stored>,
    /// Bytes up to the end of the last whole line.
    pub whole_bytes: usize,
    /// Whole lines that are no record of ours.
    pub skipped: usize,
}

impl Record {
    /// The line, its end included.
    ///
    /// # Panics
    /// Never: records have string keys only.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("records have string keys only");
        line.push(b'\n');
        line
    }
}

/// Reads a journal. A last line without its end was being written when the process died; it says
/// nothing.
#[must_use]
pub fn recover(bytes: &[u8]) -> Recovered {
    let mut recovered = Recovered::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if line.last() != Some(&b'\n') {
            break;
        }
        recovered.whole_bytes += line.len();
        match serde_json::from_slice::<Record>(line) {
            Ok(record) => {
                let stored = recovered.services.entry(record.service).or_default();
                stored.take(record.entry);
            }
            Err(_) => recovered.skipped += 1,
        }
    }
    recovered
}

impl Stored {
    /// Takes in what happened next.
    pub fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Applied { applied, .. } => self.applied = Some(*applied),
            Entry::Transition { transition, machine } => {
                self.machine = *machine;
                self.remember(*transition);
            }
            Entry::Evidence(evidence) => {
                if let Some(run) = &mut self.machine.run {
                    run.judge.restore(evidence.account);
                    run.progress = evidence.progress;
                }
            }
            Entry::Snapshot { applied, machine, history } => {
                self.applied = applied.map(|applied| *applied);
                self.machine = *machine;
                self.history = history;
            }
        }
    }

    /// Adds a transition to the history.
    pub fn remember(&mut self, transition: Transition) {
        self.history.push(transition);
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }

    /// The record that says all of it.
    #[must_use]
    pub fn snapshot(&self, service: &str) -> Record {
        Record {
            service: service.to_owned(),
            entry: Entry::Snapshot {
                applied: self.applied.clone().map(Box::new),
                machine: Box::new(self.machine.clone()),
                history: self.history.clone(),
            },
        }
    }
}
