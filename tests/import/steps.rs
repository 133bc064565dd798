//! The steps of Argo Rollouts and Flagger as their documentation has them, interpreted by themselves,
//! beside the stages that they become.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use splitway::config;
use splitway::config::choices::LongStage;
use splitway::import::{Source, import};

use super::reference::Dice;

/// Weight, least time, and whether a person goes on.
type Stage = (u32, Option<Duration>, bool);

fn stages(text: &str) -> Vec<Stage> {
    let imported = import(&[Source { name: "plan.yaml".into(), text: text.into() }]).unwrap();
    let file = imported.text.unwrap();
    let config = config::parse(Path::new("plan.yaml"), &file).unwrap();
    let rollout = config.services[0].rollout.as_ref().unwrap();
    let of = |stage: &LongStage| {
        let weight = u32::from(stage.weight.value.basis_points()) / 100;
        (weight, stage.min.map(|span| span.0), stage.approve)
    };
    rollout.stages.value.iter().map(|stage| of(&stage.value.0)).collect()
}

#[derive(Clone, Copy, Debug)]
enum Step {
    SetWeight(u32),
    Pause(u64),
    PauseForever,
}

/// What users get, and for how long at least, as the controller does it: a weight holds until the next is
/// set; a pause with a duration waits so long, one without until somebody promotes; behind the last step
/// the canary has everything.
fn argo(steps: &[Step]) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for step in steps {
        match (step, stages.last_mut()) {
            (Step::SetWeight(weight), _) => stages.push((*weight, None, false)),
            (Step::Pause(seconds), Some(stage)) => {
                let more = Duration::from_secs(*seconds);
                stage.1 = Some(stage.1.unwrap_or_default() + more);
            }
            (Step::PauseForever, Some(stage)) => stage.2 = true,
            (_, None) => {}
        }
    }
    if stages.last().is_none_or(|stage| stage.0 < 100) {
        stages.push((100, None, false));
    }
    if let [only] = &mut stages[..] {
        // Nothing could be judged before, so a person goes on.
        only.2 = true;
    }
    stages
}

#[test]
fn argos_steps_are_stages_of_the_same_weights_and_times() {
    let mut dice = Dice(3);
    for _ in 0..200 {
        let mut steps = Vec::new();
        let mut weight = 0;
        for _ in 0..dice.below(6) {
            weight += u32::try_from(1 + dice.below(30)).unwrap();
            if weight > 100 {
                break;
            }
            steps.push(Step::SetWeight(weight));
            for _ in 0..dice.below(3) {
                let seconds = dice.one(&[30, 60, 90, 600, 5_400]);
                steps.push(dice.one(&[Step::Pause(seconds), Step::PauseForever]));
            }
        }
        let mut text = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: { name: api }\nspec:\n  strategy:\n    canary:\n      steps:\n".to_owned();
        for step in &steps {
            match step {
                Step::SetWeight(weight) => writeln!(text, "        - setWeight: {weight}"),
                Step::Pause(seconds) if seconds % 60 == 0 => {
                    writeln!(text, "        - pause: {{ duration: {}m }}", seconds / 60)
                }
                Step::Pause(seconds) => {
                    writeln!(text, "        - pause: {{ duration: {seconds} }}")
                }
                Step::PauseForever => writeln!(text, "        - pause: {{}}"),
            }
            .unwrap();
        }
        if steps.is_empty() {
            text.push_str("        []\n");
        }
        assert_eq!(stages(&text), argo(&steps), "{text}");
    }
}

/// Weights of a Canary as Flagger sets them: steps until the most is reached, or those that are listed;
/// then it promotes.
fn flagger(step: u32, most: Option<u32>, listed: &[u32]) -> Vec<u32> {
    let mut weights = listed.to_vec();
    if weights.is_empty() {
        let most = most.unwrap_or(100);
        let mut weight = 0;
        while weight < most {
            weight = (weight + step).min(100);
            weights.push(weight);
        }
    }
    if weights.last() != Some(&100) {
        weights.push(100);
    }
    weights
}

#[test]
fn flaggers_steps_are_stages_of_the_same_weights() {
    let mut dice = Dice(9);
    for _ in 0..200 {
        let step = u32::try_from(3 + dice.below(40)).unwrap();
        let most = dice.one(&[None, Some(30), Some(50), Some(100)]);
        let listed: &[u32] = dice.one(&[&[][..], &[1, 2, 10, 80], &[5, 100]]);
        let mut text = "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: { name: api }\nspec:\n  targetRef: { kind: Deployment, name: api }\n  service: { port: 80 }\n  analysis:\n    interval: 90s\n".to_owned();
        if listed.is_empty() {
            writeln!(text, "    stepWeight: {step}").unwrap();
            if let Some(most) = most {
                writeln!(text, "    maxWeight: {most}").unwrap();
            }
        } else {
            writeln!(text, "    stepWeights: {listed:?}").unwrap();
        }
        let found: Vec<u32> = stages(&text).into_iter().map(|stage| stage.0).collect();
        assert_eq!(found, flagger(step, most, listed), "{text}");
    }
}

#[test]
fn more_steps_than_there_can_be_stages_are_thinned_out() {
    let text = "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: { name: api }\nspec:\n  targetRef: { kind: Deployment, name: api }\n  service: { port: 80 }\n  analysis: { stepWeight: 1 }\n";
    let found: Vec<u32> = stages(text).into_iter().map(|stage| stage.0).collect();
    assert!(
        found.len() <= 50 && found.first() == Some(&3) && found.last() == Some(&100),
        "{found:?}"
    );
}
