//! The only wiring: builds the parts, starts workers, swaps the state at reload, drains.

mod control;
mod handover;
mod own_secret;
mod socket;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::{self, Admin, Feed, Tokens};
use crate::config::{self, Config, Faults};
use crate::memory::Budget;
use crate::metrics::{Exposition, ReloadStatus, Sources};
use crate::otlp::Exporter;
use crate::proxy::Clock;
use crate::server::{Workers, listen};
use crate::telemetry::{self, AccessLog, Outlets, Traces};

use control::Control;
use handover::{Inherited, Sockets};
use socket::SocketFile;

/// Wishes that wait; each is answered in turn.
const WISHES_MAX: usize = 16;

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
    let drain_delay = loaded.config.drain_delay.0.map(|delay| delay.0);
    // Signals are heard before anybody is served: unheard, they would end the process at once.
    let mut upgrades = signal(SignalKind::user_defined2()).map_err(anyhow::Error::from)?;
    let mut hangups = signal(SignalKind::hangup()).map_err(anyhow::Error::from)?;
    let mut stop = std::pin::pin!(stop);
    let parts = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        parts = start(path, loaded) => parts?,
    };
    let (mut control, mut workers, addresses, admin) = parts;
    let AdminParts { listener, local, admin, is_ready, sockets } = admin;
    let (local, _socket_file) = local.unzip();
    started(&addresses);
    let serving = tokio::spawn(admin::serve(listener, local, admin));
    handover::tell_ready();
    let end = loop {
        tokio::select! {
            () = &mut stop => break End::Stopped,
            () = workers.any_end() => {
                break End::Failed(anyhow::anyhow!("a worker ended; see the log above"));
            }
            result = control.follow(&mut hangups) => break result.map_or_else(End::Failed, |()| End::Stopped),
            _ = upgrades.recv() => {
                let handed = async {
                    // The journal has one writer: ours rests, unless nobody takes over.
                    control.leave_journal().await?;
                    Ok(sockets.hand_over(control.own_secret()).await?)
                };
                let handed: anyhow::Result<u32> = tokio::select! {
                    () = &mut stop => break End::Stopped,
                    handed = handed => handed,
                };
                match handed {
                    Ok(pid) => {
                        tracing::info!(pid, "a successor serves; this process drains");
                        handover::tell_successor(pid);
                        break End::Succeeded;
                    }
                    Err(error) => tracing::error!(%error, "no successor; this process serves on"),
                }
            }
        }
    };
    is_ready.store(false, Ordering::Relaxed);
    if matches!(end, End::Succeeded) {
        // Who asks the admin API from here on is answered by the successor.
        serving.abort();
    } else if let (End::Stopped, Some(delay)) = (&end, drain_delay) {
        // Whoever balances in front sees that it is not ready, and sends its last.
        tracing::info!(delay_s = delay.as_secs(), "not ready; accepting for a while yet");
        tokio::time::sleep(delay).await;
    }
    drop(sockets);
    tracing::info!(limit_s = drain.as_secs(), "draining");
    let drained = tokio::task::spawn_blocking(move || workers.drain(drain)).await;
    serving.abort();
    close(control, end).await?;
    match drained {
        Ok(Ok(())) => Ok(()),
        Ok(Err(threads)) => Err(anyhow::anyhow!("{} panicked", threads.join(", ")).into()),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

/// Closes what the control thread holds.
async fn close(control: Control, end: End) -> Result<(), RunError> {
    match end {
        // The journal is the successor's.
        End::Succeeded => control.close_exporter().await,
        End::Stopped => control.close().await,
        End::Failed(error) => {
            control.close().await;
            return Err(error.into());
        }
    }
    Ok(())
}

/// Why the process ends.
enum End {
    Stopped,
    Succeeded,
    Failed(anyhow::Error),
}

/// The admin API before it is served.
struct AdminParts {
    listener: tokio::net::TcpListener,
    local: Option<(tokio::net::UnixListener, SocketFile)>,
    admin: Arc<Admin>,
    is_ready: Arc<AtomicBool>,
    sockets: Sockets,
}

async fn start(
    path: &Path,
    loaded: config::Loaded,
) -> Result<(Control, Workers, Addresses, AdminParts), RunError> {
    let files = crate::server::listen::raise_file_limit();
    let budget = Arc::new(Budget::of_process(files));
    tracing::debug!(?files, connections = ?budget.connections(), "open files");
    let config = &loaded.config;
    let count = worker_count(config);
    let (sockets, admin_listener, kept) = listen_all(config)?;
    let socket_path = config.admin.socket.as_ref().map(|path| PathBuf::from(&path.value));
    let local = sockets.iter().map(std::net::TcpListener::local_addr);
    let addresses = Addresses {
        listeners: local.collect::<Result<_, _>>().map_err(anyhow::Error::from)?,
        admin: admin_listener.local_addr().map_err(anyhow::Error::from)?,
    };
    let texts = |tokens: &[config::values::At<String>]| -> Vec<String> {
        tokens.iter().map(|token| token.value.clone()).collect()
    };
    let tokens = &config.admin.tokens;
    let mut tokens = Tokens { read: texts(&tokens.read), operate: texts(&tokens.operate) };

    let reload = Arc::<ReloadStatus>::default();
    let (wishes, wished) = mpsc::channel(WISHES_MAX);
    let clock = Clock::new();
    let (traces, waiting) = Traces::queue();
    let process_clock = clock.clone();
    let exporter = Exporter::start(waiting, move || process_clock.now_ns());
    let parts = (clock.clone(), exporter.map_err(anyhow::Error::from)?);
    let control = Control::start(path, loaded, count, parts, Arc::clone(&reload), wished);
    let control = control.await.map_err(RunError::Config)?;
    let [read, operate] = control.tokens();
    tokens.read.extend_from_slice(read);
    tokens.operate.extend_from_slice(operate);
    let (state, report) = (Arc::clone(control.state()), Arc::clone(control.report()));

    let access_log = AccessLog::start().map_err(anyhow::Error::from)?;
    let outlets = Outlets { access_log, traces };
    let workers = Workers::start(count, sockets, &state, &outlets, &clock, &budget);
    let workers = workers.map_err(anyhow::Error::from)?;
    // Last: a successor that cannot start leaves its predecessor's file alone.
    let local = socket_path.map(|path| socket::bind(&path, handover::has_predecessor()));
    let local = local.transpose()?;
    for address in &addresses.listeners {
        tracing::info!(%address, workers = count, "listening");
    }
    tracing::info!(address = %addresses.admin, "admin API listening");
    let is_ready = Arc::new(AtomicBool::new(true));
    let sources = Sources {
        state: Arc::clone(&state),
        downstream: workers.counters().to_vec(),
        accept: Arc::clone(workers.accept_counters()),
        budget,
        reload: Arc::clone(&reload),
        report: Arc::clone(&report),
        notified: Arc::clone(control.notified()),
        traced: Arc::clone(control.traced()),
    };
    let admin = Admin {
        state,
        report,
        reload,
        is_ready: Arc::clone(&is_ready),
        exposition: Exposition::new(sources),
        wishes,
        tokens,
        feed: Feed::default(),
    };
    let admin = Arc::new(admin);
    let parts = AdminParts { listener: admin_listener, local, admin, is_ready, sockets: kept };
    Ok((control, workers, addresses, parts))
}

/// Listens where the configuration says, on sockets that were passed where there are some; keeps a
/// copy of each for a successor.
fn listen_all(
    config: &Config,
) -> anyhow::Result<(Vec<std::net::TcpListener>, tokio::net::TcpListener, Sockets)> {
    let mut inherited = Inherited::take().context("the sockets that were passed cannot be used")?;
    let mut kept = Vec::new();
    let mut one = |address: SocketAddr, what: &str| {
        let socket = inherited.socket(address).map_or_else(|| listen(address), Ok);
        let socket = socket.with_context(|| {
            format!("cannot listen on {address}{what}; is it taken by another program?")
        })?;
        kept.push((address, socket.try_clone()?));
        anyhow::Ok(socket)
    };
    let sockets = config.listeners.iter().map(|listener| one(listener.address, ""));
    let sockets = sockets.collect::<Result<_, _>>()?;
    let admin = one(config.admin.address.value, " for the admin API")?;
    Ok((sockets, tokio::net::TcpListener::from_std(admin)?, Sockets(kept)))
}

fn worker_count(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.workers.map_or_else(cores, |count| count.0 as usize)
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
