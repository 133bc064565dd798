//! `splitway simulate`: a plan against traffic, thousands of times in seconds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use crate::plain;
use crate::rollout::Plan;
use crate::rollout::explain::span;
use crate::rollout::plan::Mode;
use crate::simulate::figures::Detection;
use crate::simulate::scenario::Scenarios;
use crate::simulate::{Figures, Spec};

use super::parallel::{Bar, Cut, run_many};
use super::plan::PlanChoice;
use super::{BAD_INPUT, DONE, complain, print, print_json};

/// Faults that are tried when none is given: shares of errors of the canary.
const FAULTS: [f64; 6] = [0.003, 0.005, 0.01, 0.05, 0.2, 1.0];

/// Run a plan against simulated traffic: how long it takes, what it catches, what that costs.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Scenarios as JSON; omitted: the traffic that the options describe
    #[arg(long, value_name = "FILE")]
    scenarios: Option<PathBuf>,
    /// Rollouts per scenario
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    /// Seed of the dice; the same seed gives the same figures
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests a second
    #[arg(long, default_value_t = 100.0)]
    rps: f64,
    /// Stable's share of errors, like 0.1%
    #[arg(long, default_value = "0.1%", value_name = "SHARE", value_parser = share)]
    stable_errors: f64,
    /// The canary's share of errors, like 1%; omitted: several are tried
    #[arg(long, value_name = "SHARE", value_parser = share)]
    canary_errors: Option<f64>,
    /// How much slower the canary is, like x2
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    canary_latency: Option<f64>,
    #[command(flatten)]
    plan: PlanChoice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads `0.1%` as 0.001.
///
/// # Errors
/// In words.
pub fn share(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.strip_suffix('%').unwrap_or(text).parse().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or("write a percentage from 0% to 100%".into())
}

/// Reads `x3` as 3.
///
/// # Errors
/// In words.
pub fn factor(text: &str) -> Result<f64, String> {
    let factor: Option<f64> = text.strip_prefix('x').unwrap_or(text).parse().ok();
    let factor = factor.filter(|factor| (0.01..=1_000.0).contains(factor));
    factor.ok_or("write a factor like x2, from x0.01 to x1000".into())
}

impl Simulate {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let result = self.plan.chosen().and_then(|(plan, cut)| match &self.scenarios {
            Some(file) => self.scenarios(file, &plan, cut),
            None => self.answer(&plan, cut),
        });
        match result {
            Ok(()) => DONE,
            Err(error) => {
                complain(&format!("splitway: {error}"));
                BAD_INPUT
            }
        }
    }

    // === a file of scenarios ===

    fn scenarios(&self, file: &Path, plan: &Plan, cut: Cut) -> Result<(), String> {
        let name = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
        let read: Scenarios =
            serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        for scenario in &read.scenarios {
            let checked = scenario.spec.check();
            checked.map_err(|error| format!("{name}: {}: {error}", scenario.name))?;
        }
        let runs = self.runs as usize;
        let bar = Bar::new(runs * read.scenarios.len());
        let mut found = Vec::new();
        for scenario in &read.scenarios {
            let is_bad = scenario.bad_canary.unwrap_or_else(|| scenario.spec.is_bad());
            let outcomes = run_many(&scenario.spec, plan, cut, runs, self.seed, &bar);
            let figures = Figures::of(&outcomes, is_bad);
            let mut entry = json!({ "name": scenario.name, "bad_canary": is_bad });
            let values = serde_json::to_value(&figures).unwrap_or(Json::Null);
            for (key, value) in values.as_object().into_iter().flatten() {
                entry[key] = value.clone();
            }
            if !self.json {
                print(&format!("{}\n{}", plain::line(&scenario.name), describe(&figures)));
            }
            found.push(entry);
        }
        if self.json {
            let all = json!({ "runs": runs, "seed": self.seed, "scenarios": found });
            print_json(&all);
        }
        Ok(())
    }

    // === words before a release ===

    fn answer(&self, plan: &Plan, cut: Cut) -> Result<(), String> {
        let spec = |pc: f64, f: f64| Spec {
            rps: self.rps,
            ps: self.stable_errors,
            pc,
            f,
            onset_stage_index: 0,
            incident_common: Vec::new(),
            common_ar1: None,
            cold_start: None,
        };
        let good = spec(self.stable_errors, 1.0);
        good.check()?;
        let faults = self.faults(&spec);
        let runs = self.runs as usize;
        let bar = Bar::new(runs * (faults.len() + 1));
        let figures_of = |spec: &Spec, is_bad: bool| {
            Figures::of(&run_many(spec, plan, cut, runs, self.seed, &bar), is_bad)
        };
        let alike = figures_of(&good, false);
        let tried: Vec<(String, Figures)> =
            faults.into_iter().map(|(name, spec)| (name, figures_of(&spec, true))).collect();
        if self.json {
            let faults: Vec<Json> = tried
                .iter()
                .map(|(name, figures)| json!({ "fault": name, "figures": figures }))
                .collect();
            let all = json!({ "rps": self.rps, "runs": runs, "alike": alike, "faults": faults });
            print_json(&all);
        } else {
            print(&self.words(plan, &alike, &tried));
        }
        Ok(())
    }

    /// The faults to try, each with its name.
    fn faults(&self, spec: &impl Fn(f64, f64) -> Spec) -> Vec<(String, Spec)> {
        if self.canary_errors.is_some() || self.canary_latency.is_some() {
            let errors = self.canary_errors.unwrap_or(self.stable_errors);
            let slower = self.canary_latency.unwrap_or(1.0);
            let name = match (self.canary_errors, self.canary_latency) {
                (Some(_), Some(_)) => format!("{} errors, {slower}× slower", percent(errors)),
                (None, _) => format!("{slower}× slower"),
                (Some(_), None) => format!("{} errors", percent(errors)),
            };
            return vec![(name, spec(errors, slower))];
        }
        let errors = FAULTS.into_iter().filter(|errors| *errors > 2.0 * self.stable_errors);
        let mut faults: Vec<(String, Spec)> = errors
            .map(|errors| (format!("{} errors", percent(errors)), spec(errors, 1.0)))
            .collect();
        for slower in [2.0, 5.0] {
            faults.push((format!("{slower}× slower"), spec(self.stable_errors, slower)));
        }
        faults
    }

    fn words(&self, plan: &Plan, alike: &Figures, tried: &[(String, Figures)]) -> String {
        let stages: Vec<String> =
            plan.stages.iter().map(|stage| stage.weight.to_string()).collect();
        let (rps, stable) = (self.rps, percent(self.stable_errors));
        let mut text = format!(
            "The plan {} % at {rps} requests/s, with {stable} errors on stable, {} rollouts each:\n\n",
            stages.join(" → "),
            self.runs
        );
        match (alike.promote_sec_p50, alike.promote_sec_p95) {
            (Some(median), Some(most)) => {
                let _ = writeln!(
                    text,
                    "A canary like stable is promoted in {} (95 % within {}); {} of {} were \
                     rolled back wrongly{}.",
                    span(median),
                    span(most),
                    count(alike.rollback_pct, alike.nrep),
                    alike.nrep,
                    bound(plan)
                );
            }
            _ => {
                let _ = writeln!(
                    text,
                    "A canary like stable is not promoted within two days at this traffic; {} of \
                     {} were rolled back wrongly{}.",
                    count(alike.rollback_pct, alike.nrep),
                    alike.nrep,
                    bound(plan)
                );
            }
        }
        text.push_str("\nA canary with\n");
        for (name, figures) in tried {
            let _ = writeln!(text, "  {name:24} {}", caught(figures));
        }
        text
    }
}

fn bound(plan: &Plan) -> String {
    if plan.figures.mode != Mode::Sequential {
        return "; this mode states no bound".into();
    }
    format!(" (at most {} % by design)", plan.figures.judge.alpha * 100.0)
}

fn caught(figures: &Figures) -> String {
    let Some(found) = &figures.detection else { return String::new() };
    let Detection { sec_p50: Some(median), failed_req_p50: Some(failed), .. } = found else {
        let promoted = figures.promoted_pct;
        return format!("is never rolled back; {promoted:.1} % are promoted");
    };
    let most = found.sec_p95.unwrap_or(*median);
    let most_failed = found.failed_req_p95.unwrap_or(*failed);
    let mut text = format!(
        "is rolled back in {} (95 % within {}) after {failed:.0} failed requests (95 %: {most_failed:.0})",
        span(*median),
        span(most)
    );
    if found.detected_pct < 99.95 {
        let _ = write!(text, "; {:.1} % are missed", 100.0 - found.detected_pct);
    }
    text
}

fn describe(figures: &Figures) -> String {
    let Figures { rollback_pct, promoted_pct, undecided_pct, .. } = figures;
    let mut text = format!(
        "  rolled back {rollback_pct:.2} %, promoted {promoted_pct:.2} %, undecided {undecided_pct:.2} %\n"
    );
    if let Some(median) = figures.promote_sec_p50 {
        let _ = writeln!(text, "  promoted in {}", span(median));
    }
    if figures.detection.is_some() {
        let _ = writeln!(text, "  {}", caught(figures));
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
fn count(percentage: f64, of: usize) -> String {
    format!("{:.0}", percentage / 100.0 * of as f64)
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e5).round() / 1e3)
}
