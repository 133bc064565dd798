//! Every scenario of `tests/judge/scenarios.json` against what it must reach.
//!
//! `cargo bench --bench scenarios` makes 1,000 runs of each and fails where a figure is missed;
//! `-- 200 err_1pct_100` makes another number of runs, or one scenario only.

use serde_json::Value as Json;
use splitway::cli::parallel::{Bar, run_many};
use splitway::rollout::Plan;
use splitway::simulate::{Figures, Scenario};

const RUNS: usize = 1_000;
const SEED: u64 = 1;

fn main() {
    let runs = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(RUNS);
    let text = include_str!("../tests/judge/scenarios.json");
    let whole: Json = serde_json::from_str(text).expect("the scenarios are JSON");
    let list = whole["scenarios"].as_array().expect("a list of scenarios");
    let plan = Plan::through(&[5, 10, 25, 50, 75, 100]);
    let bar = Bar::new(runs * list.len());
    let only = std::env::args().skip(1).find(|name| list.iter().any(|one| one["name"] == **name));
    let mut missed = 0;
    for json in list.iter().filter(|one| only.as_ref().is_none_or(|only| one["name"] == **only)) {
        let scenario: Scenario = serde_json::from_value(json.clone()).expect("a scenario");
        let is_bad = scenario.bad_canary.unwrap_or_else(|| scenario.spec.is_bad());
        let outcomes = run_many(&scenario.spec, &plan, (1.5, 5_000_000), runs, SEED, &bar);
        let figures = Figures::of(&outcomes, is_bad);
        let found = serde_json::to_value(&figures).expect("figures are numbers");
        println!("{}", scenario.name);
        for (must, limit) in json["must"].as_object().expect("what it must reach") {
            let (figure, value, is_met) = compare(&found, must, limit.as_f64().unwrap_or(f64::NAN));
            let reference = json["reference"][&figure].as_f64();
            let reference = reference.map_or("–".to_owned(), |value| format!("{value:.1}"));
            let mark = if is_met { "" } else { "   MISSED" };
            println!(
                "  {must:24} {limit:>8}   found {value:>9.2}   reference {reference:>9}{mark}"
            );
            missed += usize::from(!is_met);
        }
    }
    println!("{} scenarios of {runs} runs, {missed} figures missed", list.len());
    std::process::exit(i32::from(missed > 0));
}

/// The figure that `must` bounds, what was found, and whether that is within `limit`.
fn compare(found: &Json, must: &str, limit: f64) -> (String, f64, bool) {
    let figure = match must {
        "max_false_rollback_pct" => "rollback_pct".to_owned(),
        other => other[4..].to_owned(),
    };
    let value = found[&figure].as_f64().unwrap_or(f64::NAN);
    let is_met = if must.starts_with("max_") { value <= limit } else { value >= limit };
    (figure, value, is_met)
}
