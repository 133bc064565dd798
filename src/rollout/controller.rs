//! The controller: the only one that raises a live weight.
//!
//! It runs on the control thread. Looks, reloads, commands and the journal's confirmations come
//! one after another, so that no two writers ever meet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::state::State;
use crate::track::Weight;

use super::command::Command;
use super::edit::{Applied, Edit, review};
use super::explain::{self, as_f64};
use super::governed::{Governed, Policy, Reply};
use super::journal::{Journal, Place};
use super::machine::{Change, Phase};
use super::outlook::outlook;
use super::plan::Mode;
use super::record::{Record, Stored};
use super::report::{Cuts, ErrorLimit, ReadyEndpoints, Report, ServiceReport};
use super::run::Health;
use super::writer::Ack;

/// Services that were removed and whose decided versions are remembered.
const REMEMBERED_MAX: usize = 1_000;

/// What a file says of one service that has, or had, a rollout.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The service's name.
    pub service: String,
    /// What the journal compares.
    pub applied: Applied,
    /// How its evidence is gathered.
    pub policy: Policy,
}

/// A file as far as rollouts go, checked against what is under way.
#[derive(Debug)]
pub struct Reviewed {
    wanted: Vec<Wanted>,
    edits: Vec<Edit>,
}

/// A reload that is refused: the service, and why.
pub type Refusal = (String, String);

/// What is known of a service's endpoints.
pub type HealthOf<'a> = &'a dyn Fn(&str) -> Health;

/// Every rollout of the process.
#[derive(Debug)]
pub struct Controller {
    services: BTreeMap<String, Governed>,
    /// Services that are not in the file at the moment.
    absent: HashMap<String, Stored>,
    journal: Journal,
    /// Where the journal will be, while none is needed.
    unopened: Option<Place>,
    report: Arc<ArcSwap<Report>>,
    /// The endpoint that stands out by its failures, in words, by service.
    blamed: HashMap<Box<str>, String>,
}

impl Controller {
    /// Takes up what the journal at `place` says. One that is not there is made when a file first
    /// has a rollout.
    #[must_use]
    pub fn open(place: &Place, is_needed: bool) -> Self {
        let exists = matches!(place, Place::Directory(directory)
            if directory.join(super::writer::FILE).exists());
        let unopened = (!is_needed && !exists).then(|| place.clone());
        let (journal, recovered) =
            Journal::open(if unopened.is_some() { &Place::Memory } else { place });
        Self {
            services: BTreeMap::new(),
            absent: recovered.services.into_iter().collect(),
            journal,
            unopened,
            report: Arc::default(),
            blamed: HashMap::new(),
        }
    }

    /// What it tells everybody else.
    #[must_use]
    pub fn report(&self) -> &Arc<ArcSwap<Report>> {
        &self.report
    }

    // === the file ===

    /// Compares a file with what is under way, and changes nothing.
    ///
    /// # Errors
    /// Edits that would send users back to a version that was left behind.
    pub fn review(&self, wanted: Vec<Wanted>) -> Result<Reviewed, Vec<Refusal>> {
        let mut edits = Vec::new();
        let mut refusals = Vec::new();
        for one in &wanted {
            let empty = Stored::default();
            let governed = self.services.get(&one.service);
            let stored = governed
                .map(|governed| &governed.stored)
                .or_else(|| self.absent.get(&one.service))
                .unwrap_or(&empty);
            let live = governed.map_or(Weight::ZERO, Governed::live_weight);
            match review(stored.applied.as_ref(), &one.applied, &stored.machine, live) {
                Ok(edit) => edits.push(edit),
                Err(why) => refusals.push((one.service.clone(), why)),
            }
        }
        if refusals.is_empty() { Ok(Reviewed { wanted, edits }) } else { Err(refusals) }
    }

    /// Takes a reviewed file over. What lowers a weight happens now; what raises one waits for the
    /// journal.
    pub fn adopt(&mut self, reviewed: Reviewed, now_ns: u64, at_ms: u64) {
        let Reviewed { wanted, edits } = reviewed;
        self.open_journal(&wanted);
        let gone: Vec<String> = self
            .services
            .keys()
            .filter(|name| !wanted.iter().any(|one| one.service == **name))
            .cloned()
            .collect();
        for name in gone {
            self.remove(&name, now_ns, at_ms);
        }
        for (one, edit) in wanted.into_iter().zip(edits) {
            let absent = &mut self.absent;
            let governed = self.services.entry(one.service.clone()).or_insert_with(|| {
                let stored = absent.remove(&one.service).unwrap_or_default();
                Governed::new(&one.service, stored, one.policy)
            });
            governed.at(now_ns);
            for note in &edit.notes {
                tracing::warn!(service = %one.service, "{note}");
            }
            governed.set_policy(one.policy);
            governed.adjust(&edit, &one.applied);
            let is_owned_by_file = one.applied.plan.is_none();
            for change in edit.changes {
                if is_owned_by_file {
                    governed.yield_to_file(change, at_ms, &mut self.journal);
                } else {
                    governed.propose(change, at_ms, &mut self.journal, None);
                }
            }
            if is_owned_by_file {
                let is_rolled_back = one
                    .applied
                    .canary
                    .as_ref()
                    .is_some_and(|canary| governed.machine().is_rolled_back(canary));
                let weight = one.applied.weight.filter(|_| !is_rolled_back);
                governed.follow_file(weight.map_or(Weight::ZERO, |weight| weight.0));
            }
            governed.record_applied(one.applied, at_ms, &mut self.journal);
        }
    }

    /// Opens the journal when a file first needs one: without rollouts nothing is written.
    fn open_journal(&mut self, wanted: &[Wanted]) {
        let is_needed = wanted.iter().any(|one| one.applied.plan.is_some());
        if let Some(place) = self.unopened.take_if(|_| is_needed) {
            let (journal, recovered) = Journal::open(&place);
            self.journal = journal;
            self.absent.extend(recovered.services);
        }
    }

    /// The services in which a run has begun since this was last asked.
    pub fn begun(&mut self) -> Vec<String> {
        let begun = self.services.values_mut().filter_map(|one| {
            let has_begun = one.take_begun();
            has_begun.then(|| one.name().to_owned())
        });
        begun.collect()
    }

    fn remove(&mut self, name: &str, now_ns: u64, at_ms: u64) {
        let Some(mut governed) = self.services.remove(name) else { return };
        governed.at(now_ns);
        if governed.machine().run.as_ref().is_some_and(|run| !run.is_over()) {
            let change = Change {
                actor: "file".into(),
                ..Change::to(
                    Phase::Idle,
                    Weight::ZERO,
                    super::machine::Cause::File,
                    "the service was removed".into(),
                )
            };
            governed.propose(change, at_ms, &mut self.journal, None);
        }
        governed.stored.applied = None;
        self.journal.append(&governed.stored.snapshot(name));
        if self.absent.len() < REMEMBERED_MAX {
            self.absent.insert(name.to_owned(), governed.stored);
        }
    }

    /// The canary's weight of a service whose split is not the file's.
    #[must_use]
    pub fn weight(&self, service: &str) -> Option<Weight> {
        let governed = self.services.get(service)?;
        let applied = governed.stored.applied.as_ref()?;
        let canary = applied.canary.as_ref()?;
        if applied.plan.is_some() {
            return Some(governed.live_weight());
        }
        governed.machine().is_rolled_back(canary).then_some(Weight::ZERO)
    }

    /// Takes every service's place in a new picture.
    pub fn attach(&mut self, state: &State, now_ns: u64) {
        for service in &state.services {
            if let Some(governed) = self.services.get_mut(service.live.name()) {
                governed.at(now_ns);
                governed.attach(service);
            }
        }
    }

    // === time ===

    /// Whether anything is judged, so that looking often is worth it.
    #[must_use]
    pub fn is_judging(&self) -> bool {
        self.services.values().any(Governed::is_judged)
    }

    /// Whether there is any rollout.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.services.values().all(|governed| governed.plan().is_none())
    }

    /// Lets time pass: closes cohorts, judges, moves, publishes.
    pub fn look(&mut self, now_ns: u64, at_ms: u64, health: HealthOf<'_>) {
        let mut has_news = false;
        for governed in self.services.values_mut() {
            if governed.plan().is_none() {
                continue;
            }
            governed.at(now_ns);
            let health = health(governed.name());
            has_news |= governed.look(at_ms, &health, &mut self.journal);
        }
        if self.journal.is_full() {
            let head = self.head();
            self.journal.rotate(&head);
        }
        if has_news {
            self.tell(health);
        }
    }

    fn head(&self) -> Vec<Record> {
        let present = self.services.iter().map(|(name, one)| one.stored.snapshot(name));
        let absent = self.absent.iter().map(|(name, stored)| stored.snapshot(name));
        present.chain(absent).collect()
    }

    /// The journal's next confirmation.
    pub async fn ack(&mut self) -> Ack {
        self.journal.ack().await
    }

    /// The journal has confirmed, or could not.
    pub fn confirm(&mut self, ack: &Ack, now_ns: u64, at_ms: u64, health: HealthOf<'_>) {
        for governed in self.services.values_mut() {
            governed.at(now_ns);
            governed.confirm(ack.id, ack.is_durable, at_ms);
        }
        self.tell(health);
    }

    /// Leaves the journal to another process until something is recorded; confirmed by an [`Ack`]
    /// with this number. `None` when there is nothing to leave.
    pub fn release(&mut self) -> Option<u64> {
        self.journal.release()
    }

    /// Resolves when everything so far is on disk; never, if it cannot be.
    pub async fn flush(&mut self) {
        let Some(id) = self.journal.sync() else { return };
        while self.journal.ack().await.id < id {}
    }

    // === people ===

    /// Does what an operator asks for; `reply` is told when it is done.
    pub fn command(
        &mut self,
        service: &str,
        (command, actor): (Command, &str),
        (now_ns, at_ms): (u64, u64),
        health: HealthOf<'_>,
        reply: Reply,
    ) {
        // A client that no longer waits needs no answer.
        let refuse = |reply: Reply, why: String| drop(reply.send(Err(why)));
        let governed = self.services.get_mut(service).filter(|one| one.plan().is_some());
        let Some(governed) = governed else {
            return refuse(reply, format!("`{service}` has no rollout"));
        };
        governed.at(now_ns);
        match governed.machine().command(command, actor, &health(service)) {
            Ok(change) => governed.propose(change, at_ms, &mut self.journal, Some(reply)),
            Err(why) => refuse(reply, why),
        }
        self.tell(health);
    }

    // === what others see ===

    /// Takes note of endpoints that stand out; they are told with the next report.
    pub fn blame(&mut self, blamed: HashMap<Box<str>, String>) {
        self.blamed = blamed;
    }

    /// Publishes a new report.
    pub fn tell(&self, health: HealthOf<'_>) {
        let journal_fault = self.journal.fault();
        let services = self.services.values().filter(|one| one.plan().is_some());
        let report = Report {
            services: services
                .map(|one| {
                    let blamed = self.blamed.get(one.name()).map(String::as_str);
                    describe(one, &health(one.name()), (journal_fault.as_deref(), blamed))
                })
                .collect(),
            in_memory: self.journal.is_in_memory(),
            journal_fault,
        };
        self.report.store(Arc::new(report));
    }
}

fn cuts_ms(governed: &Governed) -> Cuts {
    let ms = |cut: u64| (cut < u64::MAX).then(|| as_f64(cut) / 1e6);
    let (stable, canary) = governed.cuts();
    Cuts {
        stable: [stable.p99_ns, stable.p90_ns].map(ms),
        canary: [canary.p99_ns, canary.p90_ns].map(ms),
    }
}

fn describe(
    governed: &Governed,
    health: &Health,
    (journal_fault, blamed_endpoint): (Option<&str>, Option<&str>),
) -> ServiceReport {
    let machine = governed.machine();
    let run = machine.run.as_ref();
    let health = &health.as_of(machine.mark);
    let percent = |weight: Weight| f64::from(weight.basis_points()) / 100.0;
    let mut text = explain::explain(run, health);
    if let (Some(fault), Some(_)) = (journal_fault, run.filter(|run| !run.is_over())) {
        text = format!("nothing rises: the journal cannot be written ({fault}); {text}");
    }
    if let Some(weight) = governed.raising_to() {
        text = format!("{text}; the raise to {weight} % waits for the journal");
    }
    if let (Some(blamed), true) = (blamed_endpoint, run.is_some_and(|run| run.has_started)) {
        text = format!("{text}; {blamed}");
    }
    let blamed = governed.users.worst(5);
    if let Some((_, failures)) = blamed.first() {
        text = format!("{text}; {} sticky users fail, the worst {failures} times", blamed.len());
    }
    let progress = run.map(|run| run.progress.clone()).unwrap_or_default();
    let parameters = run.map(|run| run.judge.parameters().clone()).unwrap_or_default();
    let figures = run.map(|run| &run.plan.figures);
    ServiceReport {
        service: governed.name().to_owned(),
        phase: machine.phase(),
        version: run.map(|run| run.versions.canary.clone()),
        stable_version: run.map(|run| run.versions.stable.clone()),
        attempt: run.map_or(0, |run| run.attempt),
        weight: governed.live_weight(),
        raising_to: governed.raising_to().map(percent),
        stage: run
            .and_then(|run| run.plan.position(governed.live_weight()))
            .filter(|_| governed.live_weight() > Weight::ZERO)
            .map_or(0, |position| position + 1),
        stages: run.map_or_else(Vec::new, |run| {
            run.plan.stages.iter().map(|stage| percent(stage.weight)).collect()
        }),
        mode: figures.map_or(Mode::Sequential, |figures| figures.mode),
        promoted: run.is_some_and(|run| run.is_promoted),
        dry_run: figures.is_some_and(|figures| figures.dry_run),
        explain: text,
        outlook: outlook(run, health),
        opinions: health.opinions.clone(),
        mark: machine.mark,
        awaits: run.and_then(|run| run.awaits(health)),
        standing: run.and_then(|run| run.trouble(health)),
        error_limit: ErrorLimit { ratio: parameters.error_ratio, slack: parameters.error_slack },
        e: run.map_or(1.0, |run| run.judge.wealth()),
        limit: parameters.limit(),
        hold: parameters.hold,
        pots: run.map_or([0.0; 3], |run| run.judge.pots()),
        proofs: run.map_or([0.0; 2], |run| run.judge.proofs()),
        proof_limit: parameters.proof_limit(),
        stage_evidence: progress.stage,
        run_evidence: progress.run,
        pardoned: progress.pardoned.by_reason(),
        excess_failures: progress.excess,
        ready_endpoints: ReadyEndpoints { canary: health.canary.0, stable: health.stable.0 },
        rps: progress.recent.rps(),
        cuts_ms: cuts_ms(governed),
        settle_ms: governed.settle_ns() / 1_000_000,
        blamed_users: blamed
            .into_iter()
            .map(|(user, failures)| (format!("{user:016x}"), failures))
            .collect(),
        tallies: governed.tallies.clone(),
        history: Arc::new(governed.stored.history.clone()),
    }
}
