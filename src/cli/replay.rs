//! `splitway replay`: what the judge would have said to evidence that is in a file.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::judge::alarm::SplitCount;
use crate::judge::{Arm, Arms};
use crate::rollout::pardoned::Pardoned;
use crate::rollout::plan::percent::from_percent;
use crate::rollout::progress::Cohort;
use crate::rollout::run::Health;
use crate::rollout::{Phase, Plan};
use crate::simulate::rollout::begun;
use crate::track::Weight;

use super::plan::PlanChoice;
use super::{BAD_INPUT, DONE, complain, print};

/// Longest line that is read.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Judge evidence from a file of JSON lines.
#[derive(Debug, Args)]
pub struct Replay {
    /// One cohort per line, oldest first; a journal works too. `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    plan: PlanChoice,
}

/// One line of evidence.
#[derive(Debug, Deserialize)]
struct Line {
    dt_s: f64,
    canary: Arm,
    stable: Arm,
    /// The stage it was assigned at, from 1.
    stage: Option<usize>,
    /// The weight it was assigned at, in percent.
    weight: Option<f64>,
    pots: Option<Arms>,
    has_cut: Option<[bool; 2]>,
}

impl Replay {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let result = self.plan.plan().and_then(|plan| self.replay(&plan));
        match result {
            Ok(()) => DONE,
            Err(error) => {
                complain(&format!("splitway: {error}"));
                BAD_INPUT
            }
        }
    }

    fn replay(&self, plan: &Plan) -> Result<(), String> {
        let name = self.file.display();
        let mut input: Box<dyn BufRead> = if self.file.as_os_str() == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            let file = std::fs::File::open(&self.file);
            Box::new(BufReader::new(file.map_err(|error| format!("{name}: {error}"))?))
        };
        let mut machine = begun(plan);
        let (mut number, mut tick, mut text) = (0, 0_u64, String::new());
        loop {
            text.clear();
            number += 1;
            let read = input.read_line(&mut text).map_err(|error| format!("{name}: {error}"))?;
            if read == 0 {
                return Ok(());
            }
            if text.len() > LINE_BYTES_MAX {
                return Err(format!("{name}:{number}: is longer than a line of evidence"));
            }
            let fault = |what: String| format!("{name}:{number}: {what}");
            let Some(line) = evidence(&text).map_err(fault)? else { continue };
            tick += 1;
            let cohort = cohort(&line, &machine, plan).map_err(|what| fault(what.into()))?;
            let stage = plan.position(cohort.weight).map_or(0, |position| position + 1);
            let change = machine.judge(&cohort).or_else(|| machine.pass(line.dt_s, &Health::GOOD));
            let e = machine.run.as_ref().map_or(1.0, |run| run.judge.wealth());
            let verdict = match change.as_ref().map(|change| change.phase) {
                Some(Phase::RolledBack) => "rollback",
                Some(Phase::Promoted) => "promote",
                Some(Phase::Progressing) => "advance",
                _ => "hold",
            };
            let basis_points = cohort.weight.basis_points();
            let weight = if basis_points.is_multiple_of(100) {
                json!(basis_points / 100)
            } else {
                json!(f64::from(basis_points) / 100.0)
            };
            let shown = json!({ "tick": tick, "stage": stage, "weight": weight, "e": e, "verdict": verdict });
            print(&format!("{shown}\n"));
            if let Some(change) = change {
                machine.apply(change, 0);
            }
            if matches!(verdict, "rollback" | "promote") {
                return Ok(());
            }
        }
    }
}

/// Reads a line; the other records of a journal are passed over.
fn evidence(text: &str) -> Result<Option<Line>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    if value.get("record").is_some_and(|record| record != "evidence") {
        return Ok(None);
    }
    let line: Line = serde_json::from_value(value)
        .map_err(|error| format!("is no evidence: {error}; see `splitway replay --help`"))?;
    if !(line.dt_s >= 0.0 && line.dt_s.is_finite()) {
        return Err("`dt_s` is no time in seconds".into());
    }
    for (name, arm) in [("canary", line.canary), ("stable", line.stable)] {
        if arm.errors > arm.requests || arm.slow.iter().any(|slow| *slow > arm.requests) {
            return Err(format!("`{name}` has more events than requests"));
        }
    }
    Ok(Some(line))
}

fn cohort(
    line: &Line,
    machine: &crate::rollout::Machine,
    plan: &Plan,
) -> Result<Cohort, &'static str> {
    let present = machine.weight();
    let given = match (line.weight, line.stage) {
        (Some(percent), _) => Some(from_percent(percent).ok_or("`weight` is no percentage")?),
        (None, Some(stage)) => {
            let stage = stage.checked_sub(1).and_then(|position| plan.stages.get(position));
            Some(stage.ok_or("`stage` is not in the plan")?.weight)
        }
        (None, None) => None,
    };
    let weight: Weight = given.unwrap_or(present);
    let all = Arms { canary: line.canary, stable: line.stable };
    // Evidence of an earlier stage feeds the pots and no proof.
    let first = machine.run.as_ref().map_or(0, |run| run.first_mark);
    let mark = if weight == present { machine.mark } else { first };
    Ok(Cohort {
        dt_s: line.dt_s,
        weight,
        mark,
        pots: line.pots.unwrap_or(all),
        all,
        drawn: SplitCount::of(&all),
        pardoned: Pardoned::default(),
        has_cut: line.has_cut.unwrap_or([true; 2]),
        stable_unfinished: 0,
        p99_ns: None,
        // A file does not say how its requests were drawn, so its split is no alarm.
        is_sticky: true,
    })
}
