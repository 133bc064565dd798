//! The control thread's loop: the file, the names, the rollouts and the commands, one at a time.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::admin::{Reload, Wish};
use crate::calendar::wall_ms;
use crate::config::compile::Names;
use crate::config::material::{Material, fingerprint};
use crate::config::plan::{state_place, wanted};
use crate::config::sticky;
use crate::config::watch::Watch;
use crate::config::{self, Config, Fault, Faults, Loaded, Registry, compile};
use crate::discovery::{self, Prober, Tender};
use crate::metrics::ReloadStatus;
use crate::notify::{self, Notifier};
use crate::opinion::Opinions;
use crate::otlp::{self, Exporter};
use crate::proxy::Clock;
use crate::rollout::controller::Refusal;
use crate::rollout::run::Health;
use crate::rollout::writer::Ack;
use crate::rollout::{Controller, Report};
use crate::state::State;

/// How often cohorts are looked at while something is judged: a tenth of a tick, so that a verdict
/// follows its evidence at once.
const LOOK_JUDGING: Duration = Duration::from_millis(20);
/// How often otherwise: starts, timeouts, probes.
const LOOK_IDLE: Duration = Duration::from_millis(200);

/// The control side: follows the file, the names, the rollouts and the commands.
pub(super) struct Control {
    path: PathBuf,
    /// The content last looked at, good or bad.
    hash: Option<u64>,
    config: Config,
    material: Material,
    /// What the files that it names held when last looked at, good or bad.
    material_print: u64,
    registry: Registry,
    names: Names,
    state: Arc<ArcSwap<State>>,
    reload: Arc<ReloadStatus>,
    wishes: mpsc::Receiver<Wish>,
    clock: Clock,
    controller: Controller,
    prober: Prober,
    tender: Tender,
    /// What checks and gates say.
    opinions: Opinions,
    notifier: Notifier,
    exporter: Exporter,
    /// What is being fetched aside, so that judging goes on meanwhile.
    fetching: Option<Fetching>,
    /// Somebody wants the file to be read, and is told how it went.
    wants_reload: bool,
    asked: Vec<Reload>,
}

/// How often endpoints are looked after.
const TEND_EVERY: Duration = Duration::from_millis(200);

/// How often certificates and keys are looked at: renewed ones are in force that soon.
const MATERIAL_EVERY: Duration = Duration::from_secs(2);

/// How long the end of the process waits for the journal.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A file and the files that it names.
type Read = (Loaded, Material);

struct Fetching {
    task: JoinHandle<Result<(Option<Read>, Names), Faults>>,
    asked: Vec<Reload>,
}

impl Control {
    /// Puts the first configuration in force.
    pub(super) async fn start(
        path: &Path,
        loaded: Loaded,
        workers: usize,
        (clock, exporter): (Clock, Exporter),
        reload: Arc<ReloadStatus>,
        wishes: mpsc::Receiver<Wish>,
    ) -> Result<Self, Faults> {
        let Loaded { config, hash } = loaded;
        let material = Material::read(&config, path, &Material::default())?;
        let names = discovery::resolve(&config, &Names::new()).await;
        let has_rollout = config.services.iter().any(|service| service.rollout.is_some());
        let mut control = Self {
            path: path.to_owned(),
            hash: Some(hash),
            registry: Registry::new(workers),
            material_print: fingerprint(material.files()),
            material: Material::default(),
            names,
            state: Arc::new(ArcSwap::from_pointee(State::default())),
            reload,
            wishes,
            clock,
            controller: Controller::open(&state_place(&config), has_rollout),
            prober: Prober::default(),
            tender: Tender::default(),
            opinions: Opinions::default(),
            notifier: Notifier::default(),
            exporter,
            fetching: None,
            wants_reload: false,
            asked: Vec::new(),
            config,
        };
        let config = control.config.clone();
        control.put_in_force(config, material)?;
        control.reload.note(true);
        Ok(control)
    }

    pub(super) fn state(&self) -> &Arc<ArcSwap<State>> {
        &self.state
    }

    pub(super) fn report(&self) -> &Arc<ArcSwap<Report>> {
        self.controller.report()
    }

    /// Tokens from files: those that may look, and those that may act.
    pub(super) fn tokens(&self) -> &[Vec<String>; 2] {
        &self.material.tokens
    }

    /// What signs cookies where no secret is named, if any are signed so.
    pub(super) fn own_secret(&self) -> Option<&[u8]> {
        self.registry.kept_secret()
    }

    pub(super) fn notified(&self) -> &Arc<notify::Counts> {
        self.notifier.counts()
    }

    /// Follows everything; the file is read anew with every one of `hangups`. Never returns but on
    /// a fault of its own.
    pub(super) async fn follow(&mut self, hangups: &mut Signal) -> anyhow::Result<()> {
        let mut watch = Watch::new(&self.path);
        let mut look_at = Instant::now();
        let mut resolve_at = Instant::now() + self.config.upstream.resolve_every.0;
        let mut material_at = Instant::now() + MATERIAL_EVERY;
        let mut tend_at = Instant::now();
        loop {
            self.fetch_if_wanted();
            tokio::select! {
                // Judging comes first: nothing else may hold a rollback up.
                biased;
                ack = self.controller.ack() => self.confirm(&ack),
                () = sleep_until(look_at), if !self.controller.is_idle() => {
                    self.look();
                    let pause = if self.controller.is_judging() { LOOK_JUDGING } else { LOOK_IDLE };
                    look_at = Instant::now() + pause;
                }
                Some(wish) = self.wishes.recv() => self.grant(wish),
                fetched = fetched(&mut self.fetching) => self.take_fetched(fetched),
                () = watch.changed() => {
                    let hash = config::load::content_hash(&self.path);
                    self.wants_reload |= hash != self.hash;
                    self.hash = hash;
                }
                () = sleep_until(tend_at) => {
                    tend_at = Instant::now() + TEND_EVERY;
                    self.tend();
                }
                _ = hangups.recv() => self.wants_reload = true,
                () = sleep_until(material_at), if !self.material.files().is_empty() => {
                    material_at = Instant::now() + MATERIAL_EVERY;
                    // A few small files, mostly cached; a certificate is renewed by replacing them.
                    let print = fingerprint(self.material.files());
                    self.wants_reload |= print != self.material_print;
                    self.material_print = print;
                }
                () = sleep_until(resolve_at), if !self.names.is_empty() => {
                    resolve_at = Instant::now() + self.config.upstream.resolve_every.0;
                    if self.fetching.is_none() {
                        self.fetch(None);
                    }
                }
            }
        }
    }

    /// Lets a collector have the last spans.
    pub(super) async fn close_exporter(self) {
        self.exporter.close().await;
    }

    /// What became of traced requests.
    pub(super) fn traced(&self) -> &Arc<otlp::Counts> {
        self.exporter.counts()
    }

    /// Lets the journal have what it was given, for a moment at most, and a collector its spans.
    pub(super) async fn close(mut self) {
        if tokio::time::timeout(CLOSE_TIMEOUT, self.controller.flush()).await.is_err() {
            tracing::warn!("the journal is behind; its last evidence may be lost");
        }
        self.exporter.close().await;
    }

    /// Leaves the journal to a successor, or says that the disk does not allow it. Rollouts rest
    /// from here on; [`Self::follow`] goes on with them.
    pub(super) async fn leave_journal(&mut self) -> anyhow::Result<()> {
        let Some(id) = self.controller.release() else { return Ok(()) };
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        loop {
            let ack = tokio::time::timeout_at(deadline, self.controller.ack()).await;
            let ack = ack.map_err(|_| anyhow::anyhow!("the journal's disk is behind"))?;
            if ack.id == id {
                anyhow::ensure!(ack.is_durable, "the journal cannot be written");
                return Ok(());
            }
            self.confirm(&ack);
        }
    }

    // === rollouts ===

    fn look(&mut self) {
        let now_ns = self.clock.now_ns();
        self.controller.look(now_ns, wall_ms(), &health(&self.prober, &self.opinions));
        self.forgive_begun();
    }

    fn confirm(&mut self, ack: &Ack) {
        let now_ns = self.clock.now_ns();
        self.controller.confirm(ack, now_ns, wall_ms(), &health(&self.prober, &self.opinions));
    }

    /// What endpoints did before a run says nothing of it.
    fn forgive_begun(&mut self) {
        for service in self.controller.begun() {
            self.prober.forgive(&service);
        }
    }

    fn tend(&mut self) {
        #[expect(clippy::cast_precision_loss, reason = "a fraction of a second is enough")]
        let now_s = self.clock.now_ns() as f64 / 1e9;
        let state = self.state.load();
        self.tender.tend(&state, &self.prober, now_s);
        let blamed = state.services.iter().filter_map(|service| {
            let name = service.live.name();
            Some((name.into(), self.tender.blames(&state, name)?))
        });
        self.controller.blame(blamed.collect());
        let report = self.controller.report().load();
        self.opinions.tell(&report);
        self.notifier.tell(&report, wall_ms());
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Reload(reply) => {
                self.wants_reload = true;
                self.asked.push(reply);
            }
            Wish::Command { service, command, actor, reply } => {
                let now = (self.clock.now_ns(), wall_ms());
                let health = &health(&self.prober, &self.opinions);
                self.controller.command(&service, (command, &actor), now, health, reply);
            }
        }
        self.forgive_begun();
    }

    // === the file and the names ===

    fn fetch_if_wanted(&mut self) {
        if self.wants_reload && self.fetching.is_none() {
            self.wants_reload = false;
            self.fetch(Some(self.path.clone()));
        }
    }

    /// Reads the file at `path`, if given, and resolves the names in it, on a task of its own.
    fn fetch(&mut self, path: Option<PathBuf>) {
        let (config, last) = (self.config.clone(), self.names.clone());
        let kept = self.material.clone();
        let is_reload = path.is_some();
        let task = tokio::spawn(async move {
            let read = |path: PathBuf| -> Result<Read, Faults> {
                let loaded = config::load(&path)?;
                let material = Material::read(&loaded.config, &path, &kept)?;
                Ok((loaded, material))
            };
            let loaded = path.map(read).transpose()?;
            let config = loaded.as_ref().map_or(&config, |(loaded, _)| &loaded.config);
            let names = discovery::resolve(config, &last).await;
            Ok((loaded, names))
        });
        let asked = if is_reload { std::mem::take(&mut self.asked) } else { Vec::new() };
        self.fetching = Some(Fetching { task, asked });
    }

    fn take_fetched(&mut self, fetched: Result<(Option<Read>, Names), Faults>) {
        let asked = self.fetching.take().map_or_else(Vec::new, |fetching| fetching.asked);
        let result = match fetched {
            Ok((None, names)) => {
                self.take_names(names);
                return;
            }
            Ok((Some(loaded), names)) => self.take_file(loaded, names),
            Err(faults) => Err(faults),
        };
        if let Err(faults) = &result {
            self.reload.note(false);
            for line in faults.lines() {
                tracing::error!("reload refused, the old configuration serves on: {line}");
            }
        }
        let lines = result.map_err(|faults| faults.lines().collect::<Vec<String>>());
        for reply in asked {
            // A client that no longer waits needs no answer.
            let _ = reply.send(lines.clone());
        }
    }

    fn take_file(&mut self, (loaded, material): Read, names: Names) -> Result<(), Faults> {
        self.hash = Some(loaded.hash);
        self.warn_of_restarts(&loaded.config);
        let before = std::mem::replace(&mut self.names, names);
        if let Err(faults) = self.put_in_force(loaded.config, material) {
            self.names = before;
            return Err(faults);
        }
        self.reload.note(true);
        tracing::info!(file = %self.path.display(), "configuration reloaded");
        Ok(())
    }

    fn take_names(&mut self, names: Names) {
        if names != self.names {
            tracing::info!("addresses of names have changed");
            self.names = names;
            let (config, material) = (self.config.clone(), self.material.clone());
            if let Err(faults) = self.put_in_force(config, material) {
                tracing::error!(%faults, "the new addresses could not be put in force");
            }
        }
    }

    /// All or nothing: rollouts first, for they know what of the split is theirs; then the state;
    /// then its splits, so that a worker that draws by a new split knows its tracks.
    fn put_in_force(&mut self, config: Config, material: Material) -> Result<(), Faults> {
        let now_ns = self.clock.now_ns();
        let reviewed = self.controller.review(wanted(&config));
        let reviewed = reviewed.map_err(|refusals| self.faults(&config, &refusals))?;
        self.controller.adopt(reviewed, now_ns, wall_ms());
        let owned = |service: &str| self.controller.weight(service);
        if sticky::needs_own_secret(&config) {
            self.registry.own_secret(|| super::own_secret::at(&state_place(&config)));
        }
        let next = Arc::new(compile(&config, &material, &mut self.registry, &self.names, &owned));
        self.state.store(Arc::clone(&next));
        for service in &next.services {
            service.live.publish(Arc::clone(&service.split));
        }
        self.prober.follow(&next);
        let folder = self.path.parent().unwrap_or(Path::new(""));
        self.notifier.follow(material.receivers.clone());
        self.opinions.follow(config::questions::questions(&config, folder));
        self.exporter.follow(config::logs::target(&config, folder));
        self.controller.attach(&next, now_ns);
        self.forgive_begun();
        self.controller.tell(&health(&self.prober, &self.opinions));
        if material.files() != self.material.files() {
            self.material_print = fingerprint(material.files());
        }
        self.config = config;
        self.material = material;
        Ok(())
    }

    /// Refusals at the place of their service.
    fn faults(&self, config: &Config, refusals: &[Refusal]) -> Faults {
        let fault = |(service, why): &Refusal| {
            let found = config.services.iter().position(|one| one.name.value == *service);
            Fault {
                place: found.map(|position| config.services[position].name.place),
                field: found.map_or_else(String::new, |at| format!("services[{at}].tracks")),
                message: why.clone(),
            }
        };
        Faults::new(&self.path, refusals.iter().map(fault).collect())
    }

    /// Some keys are read once; a file that changes them is served as far as it can be.
    fn warn_of_restarts(&self, next: &Config) {
        let now = &self.config;
        for (key, is_changed) in [
            ("workers", now.workers != next.workers),
            ("listeners", addresses(now) != addresses(next)),
            ("admin", now.admin != next.admin),
            ("log.level", now.log.level != next.log.level),
            ("log.format", now.log.format != next.log.format),
            ("state", now.state != next.state),
            ("drain", now.drain != next.drain),
        ] {
            if is_changed {
                tracing::warn!("`{key}` has changed; it takes effect at the next start");
            }
        }
    }
}

fn addresses(config: &Config) -> Vec<SocketAddr> {
    config.listeners.iter().map(|listener| listener.address).collect()
}

/// What probes, checks and gates say of a service, by its name.
fn health<'a>(prober: &'a Prober, opinions: &'a Opinions) -> impl Fn(&str) -> Health + 'a {
    |service| Health { opinions: opinions.of(service), ..prober.health(service) }
}

/// Resolves when what is being fetched is there.
async fn fetched(fetching: &mut Option<Fetching>) -> Result<(Option<Read>, Names), Faults> {
    match fetching {
        // A task that panicked has said so itself; the file will be looked at again.
        Some(fetching) => match (&mut fetching.task).await {
            Ok(result) => result,
            Err(error) => Err(Faults::whole(Path::new(""), error.to_string())),
        },
        None => std::future::pending().await,
    }
}
