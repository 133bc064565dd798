//! The workers: one thread with one single-threaded runtime each, sharing nothing but atomics.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::memory::Budget;
use crate::proxy::worker::SWEEP;
use crate::proxy::{Clock, DownstreamCounters, Worker, serve};
use crate::state::State;
use crate::telemetry::Outlets;

use super::accept::{AcceptCounters, Accepted, Acceptor, Load};

/// Connections that wait for a worker to take them over.
const HANDED_MAX: usize = 1_024;

/// How long idle connections are kept in a drain: a client at work sends its next request within,
/// and is told with the answer that the connection closes.
const IDLE_GRACE: Duration = Duration::from_secs(3);

/// What the workers shall do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Serve.
    #[default]
    Serve,
    /// Accept nothing, finish what is under way for at most this long, end.
    Drain(Duration),
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    order: watch::Sender<Order>,
    /// One per thread: resolves when the thread ends, however it does.
    ends: Vec<oneshot::Receiver<()>>,
    counters: Vec<Arc<DownstreamCounters>>,
    accept_counters: Arc<AcceptCounters>,
}

impl Workers {
    /// Starts `count` workers that accept from `listeners` and follow `state`.
    ///
    /// A single worker accepts by itself; several are fed by one acceptor thread, which gives each
    /// connection to the worker that has the fewest. What their clients may have together is
    /// `budget`'s.
    ///
    /// # Errors
    /// When a thread or runtime cannot be made.
    pub fn start(
        count: usize,
        listeners: Vec<TcpListener>,
        state: &Arc<ArcSwap<State>>,
        outlets: &Outlets,
        clock: &Clock,
        budget: &Arc<Budget>,
    ) -> io::Result<Self> {
        let (order, orders) = watch::channel(Order::Serve);
        let accept_counters = Arc::<AcceptCounters>::default();
        let mut workers = Self {
            threads: Vec::new(),
            order,
            ends: Vec::new(),
            counters: Vec::new(),
            accept_counters: Arc::clone(&accept_counters),
        };
        let acceptor = Acceptor {
            workers: Vec::new(),
            state: Arc::clone(state),
            budget: Arc::clone(budget),
            counters: accept_counters,
        };
        let mut fed = Vec::new();
        let (mut inline, shared) =
            if count == 1 { (listeners, Vec::new()) } else { (Vec::new(), listeners) };
        for index in 0..count {
            let (sender, receiver) = channel(HANDED_MAX);
            let feed =
                Feed { load: Load::default(), sender, listeners: std::mem::take(&mut inline) };
            fed.push((feed.load.clone(), feed.sender.clone()));
            let counters = Arc::<DownstreamCounters>::default();
            workers.counters.push(Arc::clone(&counters));
            let (state, outlets, clock) = (Arc::clone(state), outlets.clone(), clock.clone());
            let (orders, acceptor) = (orders.clone(), acceptor.clone());
            workers.spawn(format!("worker-{index}"), move || async move {
                let budget = Arc::clone(&acceptor.budget);
                let worker = Worker::new(index, clock, state, counters, outlets, budget);
                work(Rc::new(worker), feed, receiver, orders, acceptor).await;
            })?;
        }
        if count > 1 {
            workers.spawn("acceptor".into(), move || async move {
                accept_all(shared, &Acceptor { workers: fed, ..acceptor });
                until_drain(orders).await;
            })?;
        }
        Ok(workers)
    }

    fn spawn<F: Future<Output = ()>>(
        &mut self,
        name: String,
        main: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<()> {
        let (ended, end) = oneshot::channel();
        self.ends.push(end);
        let run = move || {
            let _ended = ended;
            // Made on its own thread, which it never leaves: its tasks need not be `Send`.
            let built =
                Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match built {
                Ok(runtime) => runtime.block_on(main()),
                Err(error) => tracing::error!(%error, "a worker has no runtime"),
            }
        };
        self.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// Resolves when any thread ends, which before a drain is a fault.
    pub async fn any_end(&mut self) {
        std::future::poll_fn(|context| {
            let ended = self.ends.iter_mut().any(|end| {
                // The sender is only ever dropped, so both results mean the same.
                std::pin::Pin::new(end).poll(context).is_ready()
            });
            if ended { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Tells every worker to finish within `limit`, and waits until all have.
    ///
    /// # Errors
    /// The names of the threads that panicked.
    pub fn drain(self, limit: Duration) -> Result<(), Vec<String>> {
        // Threads that have ended already do not listen; that is no error here.
        let _ = self.order.send(Order::Drain(limit));
        let name = |thread: &JoinHandle<()>| thread.thread().name().unwrap_or("?").to_owned();
        let failed: Vec<String> = self
            .threads
            .into_iter()
            .map(|thread| (name(&thread), thread.join()))
            .filter_map(|(name, result)| result.is_err().then_some(name))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// What each worker counts of its clients.
    #[must_use]
    pub fn counters(&self) -> &[Arc<DownstreamCounters>] {
        &self.counters
    }

    /// What accepting counts.
    #[must_use]
    pub fn accept_counters(&self) -> &Arc<AcceptCounters> {
        &self.accept_counters
    }
}

/// Where a worker's connections come from.
struct Feed {
    load: Load,
    sender: Sender<Accepted>,
    /// Accepted by the worker itself.
    listeners: Vec<TcpListener>,
}

/// A worker's main: take connections over, sweep, and end when drained.
async fn work(
    worker: Rc<Worker>,
    feed: Feed,
    mut receiver: Receiver<Accepted>,
    mut orders: watch::Receiver<Order>,
    acceptor: Acceptor,
) {
    let workers = vec![(feed.load, feed.sender)];
    let accepting = accept_all(feed.listeners, &Acceptor { workers, ..acceptor });
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(accepted) = receiver.recv() => take_over(&worker, accepted),
            _ = sweep.tick() => worker.sweep(),
            changed = orders.changed() => {
                let order = *orders.borrow_and_update();
                // Without a master there is nobody left to serve for.
                let Order::Drain(limit) = order else {
                    if changed.is_err() { return }
                    continue;
                };
                accepting.iter().for_each(tokio::task::JoinHandle::abort);
                return drain(&worker, &mut receiver, limit).await;
            }
        }
    }
}

fn take_over(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, peer, listener, load, place } = accepted;
    // Counted here: a drain may look before the task has run for the first time.
    let (worker, open) = (Rc::clone(worker), worker.opened());
    match TcpStream::from_std(stream) {
        // A panic ends this connection's task and nothing else.
        Ok(stream) => drop(tokio::task::spawn_local(async move {
            serve(worker, stream, peer, listener, place).await;
            drop((open, load));
        })),
        Err(error) => tracing::warn!(%error, "a connection could not be watched"),
    }
}

/// Finishes what is under way; what was accepted before the order is served too. Whoever accepts
/// hears of the order when the worker does: there is an end to it only when nobody can hand
/// anything over any more.
async fn drain(worker: &Rc<Worker>, receiver: &mut Receiver<Accepted>, limit: Duration) {
    let started = tokio::time::Instant::now();
    let deadline = started + limit;
    let close_idle_at = started + IDLE_GRACE.min(limit / 2);
    worker.drain();
    let mut sweep = tokio::time::interval(SWEEP / 10);
    loop {
        let is_fed = loop {
            match receiver.try_recv() {
                Ok(accepted) => take_over(worker, accepted),
                Err(error) => break error == TryRecvError::Empty,
            }
        };
        if worker.connections() == 0 && !is_fed {
            return;
        }
        let now = tokio::time::Instant::now();
        if now >= close_idle_at && !worker.closes_idle() {
            worker.close_idle();
        }
        if now >= deadline {
            tracing::warn!(connections = worker.connections(), "drain deadline passed");
            return;
        }
        sweep.tick().await;
        worker.sweep();
    }
}

fn accept_all(
    listeners: Vec<TcpListener>,
    acceptor: &Acceptor,
) -> Vec<tokio::task::JoinHandle<()>> {
    let one = |(number, listener): (usize, TcpListener)| {
        let acceptor = acceptor.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = acceptor.accept(number, listener).await {
                tracing::error!(%error, "accepting ended");
            }
        })
    };
    listeners.into_iter().enumerate().map(one).collect()
}

/// Resolves when a drain is ordered: the runtime ends then, and accepting with it.
async fn until_drain(mut orders: watch::Receiver<Order>) {
    // An error means that the master is gone, which ends accepting just the same.
    let _ = orders.wait_for(|order| matches!(order, Order::Drain(_))).await;
}
