//! The only wiring: builds the parts, starts workers, swaps the state at reload, drains.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::{self, Admin, Reload};
use crate::config::compile::Names;
use crate::config::watch::Watch;
use crate::config::{self, Config, Faults, Registry, compile};
use crate::discovery;
use crate::metrics::{Exposition, ReloadStatus, Sources};
use crate::proxy::Clock;
use crate::server::{Workers, listen};
use crate::state::State;
use crate::telemetry::{self, AccessLog};

/// Wishes to reload that wait; each is answered in turn.
const RELOADS_MAX: usize = 16;

/// Where a started gateway can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The listeners, in the order of the file, with their real ports.
    pub listeners: Vec<SocketAddr>,
    /// The admin API.
    pub admin: SocketAddr,
}

/// Why a gateway could not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has faults.
    #[error("{0}")]
    Config(Faults),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Runs the gateway that the file at `path` describes until `stop` resolves, then drains.
///
/// `started` is told where it listens once it does.
///
/// # Errors
/// A configuration with faults, an address that cannot be listened on, or a worker that died.
pub async fn run(
    path: &Path,
    set_up_logs: bool,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Addresses),
) -> Result<(), RunError> {
    let loaded = config::load(path).map_err(RunError::Config)?;
    if set_up_logs {
        let log = &loaded.config.log;
        telemetry::init(&log.level, log.format).map_err(anyhow::Error::msg)?;
    }
    let drain = loaded.config.drain.0;
    let (mut control, mut workers, addresses, admin) = start(path, loaded).await?;
    started(&addresses);
    let is_ready = Arc::clone(&admin.is_ready);
    let admin_listener = admin.listener;
    let serving = tokio::spawn(admin::serve(admin_listener, admin.admin));
    let result = tokio::select! {
        () = stop => Ok(()),
        () = workers.any_end() => Err(anyhow::anyhow!("a worker ended; see the log above")),
        result = control.follow() => result,
    };
    is_ready.store(false, Ordering::Relaxed);
    tracing::info!(limit_s = drain.as_secs(), "draining");
    let drained = tokio::task::spawn_blocking(move || workers.drain(drain)).await;
    serving.abort();
    result?;
    match drained {
        Ok(Ok(())) => Ok(()),
        Ok(Err(threads)) => Err(anyhow::anyhow!("{} panicked", threads.join(", ")).into()),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

/// The admin API before it is served.
struct AdminParts {
    listener: tokio::net::TcpListener,
    admin: Arc<Admin>,
    is_ready: Arc<AtomicBool>,
}

async fn start(
    path: &Path,
    loaded: config::Loaded,
) -> anyhow::Result<(Control, Workers, Addresses, AdminParts)> {
    let config = loaded.config;
    if let Some(limit) = crate::server::listen::raise_file_limit() {
        tracing::debug!(limit, "open files");
    }
    let count = worker_count(&config);
    let mut registry = Registry::new(count);
    let names = discovery::resolve(&config, &Names::new()).await;
    let first = compile(&config, &mut registry, &names);
    let state = Arc::new(ArcSwap::from_pointee(State::default()));
    put_in_force(&state, first);

    let (sockets, admin_listener) = listen_all(&config).await?;
    let addresses = Addresses {
        listeners: sockets
            .iter()
            .map(std::net::TcpListener::local_addr)
            .collect::<Result<_, _>>()?,
        admin: admin_listener.local_addr()?,
    };
    let access_log = AccessLog::start()?;
    let workers = Workers::start(count, sockets, &state, &access_log, &Clock::new())?;
    for address in &addresses.listeners {
        tracing::info!(%address, workers = count, "listening");
    }
    tracing::info!(address = %addresses.admin, "admin API listening");

    let reload = Arc::<ReloadStatus>::default();
    reload.note(true);
    let (reloads, wishes) = mpsc::channel(RELOADS_MAX);
    let is_ready = Arc::new(AtomicBool::new(true));
    let sources = Sources {
        state: Arc::clone(&state),
        downstream: workers.counters().to_vec(),
        accept: Arc::clone(workers.accept_counters()),
        reload: Arc::clone(&reload),
    };
    let texts = |tokens: &[config::values::At<String>]| {
        tokens.iter().map(|token| token.value.clone()).collect()
    };
    let admin = Admin {
        state: Arc::clone(&state),
        reload: Arc::clone(&reload),
        is_ready: Arc::clone(&is_ready),
        exposition: Exposition::new(sources),
        reloads,
        read_tokens: texts(&config.admin.tokens.read),
        operate_tokens: texts(&config.admin.tokens.operate),
    };
    let control = Control {
        path: path.to_owned(),
        hash: Some(loaded.hash),
        config,
        registry,
        names,
        state,
        reload,
        wishes,
    };
    let parts = AdminParts { listener: admin_listener, admin: Arc::new(admin), is_ready };
    Ok((control, workers, addresses, parts))
}

async fn listen_all(
    config: &Config,
) -> anyhow::Result<(Vec<std::net::TcpListener>, tokio::net::TcpListener)> {
    let one = |address: SocketAddr| {
        listen(address)
            .with_context(|| format!("cannot listen on {address}; is it taken by another program?"))
    };
    let sockets = config.listeners.iter().map(|listener| one(listener.address));
    let sockets = sockets.collect::<Result<_, _>>()?;
    let address = config.admin.address.value;
    let admin = tokio::net::TcpListener::bind(address).await;
    Ok((sockets, admin.with_context(|| format!("cannot listen on {address} for the admin API"))?))
}

fn worker_count(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.workers.map_or_else(cores, |count| count.0 as usize)
}

/// The state first, then its splits: a worker that draws by the new split knows its tracks.
fn put_in_force(published: &ArcSwap<State>, next: State) {
    let next = Arc::new(next);
    published.store(Arc::clone(&next));
    for service in &next.services {
        service.live.publish(Arc::clone(&service.split));
    }
}

/// The control side: follows the file, the names and the commands, one at a time.
struct Control {
    path: PathBuf,
    /// The content last looked at, good or bad.
    hash: Option<u64>,
    config: Config,
    registry: Registry,
    names: Names,
    state: Arc<ArcSwap<State>>,
    reload: Arc<ReloadStatus>,
    wishes: mpsc::Receiver<Reload>,
}

impl Control {
    /// Reloads whenever something asks for it. Never returns but on a fault of its own.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut hangups = signal(SignalKind::hangup())?;
        let mut watch = Watch::new(&self.path);
        loop {
            let resolve_every = self.config.upstream.resolve_every.0;
            tokio::select! {
                () = watch.changed() => {
                    let hash = config::load::content_hash(&self.path);
                    if hash != self.hash {
                        self.hash = hash;
                        self.reload_and_log().await;
                    }
                }
                _ = hangups.recv() => self.reload_and_log().await,
                Some(wish) = self.wishes.recv() => {
                    let result = self.reload().await;
                    let lines = result.map_err(|faults| faults.lines().collect());
                    // A client that no longer waits needs no answer.
                    let _ = wish.send(lines);
                }
                () = tokio::time::sleep(resolve_every), if self.has_names() => {
                    self.refresh_names().await;
                }
            }
        }
    }

    async fn reload_and_log(&mut self) {
        // Every outcome is logged where it happens.
        let _ = self.reload().await;
    }

    /// Loads the file and puts it in force, all or nothing.
    async fn reload(&mut self) -> Result<(), Faults> {
        let loaded = match config::load(&self.path) {
            Ok(loaded) => loaded,
            Err(faults) => {
                self.reload.note(false);
                for line in faults.lines() {
                    tracing::error!("reload refused, the old configuration serves on: {line}");
                }
                return Err(faults);
            }
        };
        self.hash = Some(loaded.hash);
        self.names = discovery::resolve(&loaded.config, &self.names).await;
        self.warn_of_restarts(&loaded.config);
        let next = compile(&loaded.config, &mut self.registry, &self.names);
        put_in_force(&self.state, next);
        self.config = loaded.config;
        self.reload.note(true);
        tracing::info!(file = %self.path.display(), "configuration reloaded");
        Ok(())
    }

    /// Some keys are read once; a file that changes them is served as far as it can be.
    fn warn_of_restarts(&self, next: &Config) {
        let now = &self.config;
        for (key, is_changed) in [
            ("workers", now.workers != next.workers),
            ("listeners", now.listeners != next.listeners),
            ("admin", now.admin != next.admin),
            ("log.level", now.log.level != next.log.level),
            ("log.format", now.log.format != next.log.format),
            ("drain", now.drain != next.drain),
        ] {
            if is_changed {
                tracing::warn!("`{key}` has changed; it takes effect at the next start");
            }
        }
    }

    fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    async fn refresh_names(&mut self) {
        let names = discovery::resolve(&self.config, &self.names).await;
        if names != self.names {
            tracing::info!("addresses of names have changed");
            self.names = names;
            let next = compile(&self.config, &mut self.registry, &self.names);
            put_in_force(&self.state, next);
        }
    }
}

/// Resolves when the process is asked to stop: SIGTERM or SIGINT. A second one ends it at once.
///
/// # Panics
/// When signals cannot be watched, which leaves nothing safe to do.
pub async fn stop_signal() {
    let mut term = signal(SignalKind::terminate()).expect("signals can be watched");
    let mut int = signal(SignalKind::interrupt()).expect("signals can be watched");
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::warn!("asked twice; ending without drain");
        // Give the line a moment to be written.
        tokio::time::sleep(Duration::from_millis(10)).await;
        std::process::exit(1);
    });
}
