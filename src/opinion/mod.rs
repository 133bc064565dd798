//! What others say of a rollout: checks ask a Prometheus, gates ask a webhook. Each has a task of
//! its own, so that one that hangs holds up nothing; the control thread reads what they came to.

pub mod check;
pub mod expression;
pub mod gate;
pub mod tally;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::rollout::external::{Opinion, Standing};
use crate::rollout::report::ServiceReport;
use crate::rollout::{Phase, Report};

pub use check::Check;
pub use gate::Gate;

/// What a service asks of others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Questions {
    /// Asked all the time.
    pub checks: Vec<Check>,
    /// Asked when nothing else is in the way.
    pub gates: Vec<Gate>,
}

/// What a task needs to know of the rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Situation {
    /// Its question is to be asked.
    pub(crate) is_asked: bool,
    /// What the answer will be about.
    pub(crate) mark: u64,
    pub(crate) service: String,
    pub(crate) canary: String,
    pub(crate) stable: String,
    pub(crate) weight: f64,
    pub(crate) phase: Option<Phase>,
}

/// Where a task leaves what it came to.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Arc<Mutex<Opinion>>);

impl Desk {
    pub(crate) fn note(&self, mark: u64, (standing, says): (Standing, String)) {
        let mut opinion = self.lock();
        (opinion.mark, opinion.standing, opinion.says) = (mark, standing, says);
    }

    fn lock(&self) -> MutexGuard<'_, Opinion> {
        // Whatever panicked left a whole opinion.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question under way; its task ends with it.
#[derive(Debug)]
struct Asked<Q> {
    question: Q,
    situation: watch::Sender<Situation>,
    desk: Desk,
    task: JoinHandle<()>,
}

impl<Q> Drop for Asked<Q> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<Q: Clone> Asked<Q> {
    fn start<F>(
        question: Q,
        opinion: Opinion,
        ask: impl FnOnce(Q, watch::Receiver<Situation>, Desk) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (situation, seen) = watch::channel(Situation::default());
        let desk = Desk(Arc::new(Mutex::new(opinion)));
        let task = tokio::spawn(ask(question.clone(), seen, desk.clone()));
        Self { question, situation, desk, task }
    }
}

/// The questions under way for a service.
type AskedOf = (Vec<Asked<Check>>, Vec<Asked<Gate>>);

/// Every question of every service.
#[derive(Debug, Default)]
pub struct Opinions {
    services: HashMap<String, AskedOf>,
    /// Transitions that services had made when they were first seen: what ended before this
    /// process began is nobody's news.
    transitions: HashMap<String, usize>,
}

impl Opinions {
    /// Asks what the configuration wants; questions that did not change go on.
    pub fn follow(&mut self, wanted: Vec<(String, Questions)>) {
        let mut before = std::mem::take(&mut self.services);
        for (service, questions) in wanted {
            let (mut checks, mut gates) = before.remove(&service).unwrap_or_default();
            let checks = questions.checks.into_iter().map(|check| {
                take(&mut checks, &check).unwrap_or_else(|| {
                    let opinion = check.opinion();
                    Asked::start(check, opinion, check::ask)
                })
            });
            let gates = questions.gates.into_iter().map(|gate| {
                take(&mut gates, &gate).unwrap_or_else(|| {
                    let opinion = gate.opinion();
                    Asked::start(gate, opinion, gate::ask)
                })
            });
            self.services.insert(service, (checks.collect(), gates.collect()));
        }
    }

    /// Tells the tasks where the rollouts are.
    pub fn tell(&mut self, report: &Report) {
        for rollout in &report.services {
            let Some((checks, gates)) = self.services.get(&rollout.service) else { continue };
            let moved: u64 = rollout.tallies.transitions.iter().sum();
            let moved = usize::try_from(moved).unwrap_or(usize::MAX);
            let is_news = moved > *self.transitions.entry(rollout.service.clone()).or_insert(moved);
            for asked in checks {
                let is_asked =
                    matches!(rollout.phase, Phase::Progressing | Phase::Paused | Phase::Promoted)
                        && rollout.weight > crate::track::Weight::ZERO;
                set(&asked.situation, situation(rollout, is_asked));
            }
            for asked in gates {
                let is_asked = asked.question.is_asked(rollout, is_news);
                set(&asked.situation, situation(rollout, is_asked));
            }
        }
    }

    /// What is said of a service's rollout.
    #[must_use]
    pub fn of(&self, service: &str) -> Vec<Opinion> {
        let Some((checks, gates)) = self.services.get(service) else { return Vec::new() };
        let checks = checks.iter().map(|asked| asked.desk.lock().clone());
        let gates = gates.iter().filter(|asked| asked.question.is_heard());
        checks.chain(gates.map(|asked| asked.desk.lock().clone())).collect()
    }
}

fn take<Q: PartialEq>(known: &mut Vec<Asked<Q>>, question: &Q) -> Option<Asked<Q>> {
    let position = known.iter().position(|asked| asked.question == *question)?;
    Some(known.swap_remove(position))
}

fn set(sender: &watch::Sender<Situation>, next: Situation) {
    sender.send_if_modified(|situation| {
        let is_new = *situation != next;
        *situation = next;
        is_new
    });
}

fn situation(rollout: &ServiceReport, is_asked: bool) -> Situation {
    Situation {
        is_asked,
        mark: rollout.mark,
        service: rollout.service.clone(),
        canary: rollout.version.clone().unwrap_or_default(),
        stable: rollout.stable_version.clone().unwrap_or_default(),
        weight: f64::from(rollout.weight.basis_points()) / 100.0,
        phase: Some(rollout.phase),
    }
}

/// Waits until the question is to be asked; `None` when nobody asks any more.
pub(crate) async fn begin(seen: &mut watch::Receiver<Situation>) -> Option<Situation> {
    seen.wait_for(|situation| situation.is_asked).await.ok().map(|situation| situation.clone())
}

/// Waits until answers about `mark` are of no use any more.
pub(crate) async fn is_over(seen: &mut watch::Receiver<Situation>, mark: u64) {
    let is_over = |situation: &Situation| situation.mark != mark || !situation.is_asked;
    // When nobody asks any more the task is about to be ended.
    let _ = seen.wait_for(is_over).await;
}
