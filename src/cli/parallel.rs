//! Many simulated rollouts on every core, with a bar that says how far they are.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::rollout::Plan;
use crate::simulate::{Outcome, Spec, simulate};

/// How the simulated canary's latency cut follows from stable's: ratio, and floor in nanoseconds.
pub type Cut = (f64, u64);

/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// Runs `plan` `runs` times against `spec`. The same seed gives the same outcomes, whatever the
/// number of cores.
///
/// # Panics
/// When a simulation panicked.
#[must_use]
pub fn run_many(
    spec: &Spec,
    plan: &Plan,
    cut: Cut,
    runs: usize,
    seed: u64,
    bar: &Bar,
) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![None; runs]);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(runs.max(1)) {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        return;
                    }
                    // Golden-ratio steps keep the seeds of neighbouring runs apart.
                    let seed =
                        seed.wrapping_add((run as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let mut dice = SmallRng::seed_from_u64(seed);
                    let outcome = simulate(spec, plan, cut, &mut dice);
                    outcomes.lock().expect("no panic while held")[run] = Some(outcome);
                    bar.advance();
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("no panic while held");
    outcomes.into_iter().map(|outcome| outcome.expect("every run was made")).collect()
}

/// A progress bar on standard error, where somebody watches.
#[derive(Debug)]
pub struct Bar {
    total: usize,
    done: AtomicUsize,
    is_shown: AtomicBool,
    drawn: Mutex<Instant>,
}

impl Bar {
    /// A bar for `total` steps.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self {
            total,
            done: AtomicUsize::new(0),
            is_shown: AtomicBool::new(std::io::stderr().is_terminal()),
            drawn: Mutex::new(Instant::now()),
        }
    }

    /// One more step is done.
    fn advance(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.is_shown.load(Ordering::Relaxed) {
            return;
        }
        let mut drawn = self.drawn.lock().expect("no panic while held");
        if drawn.elapsed() < BAR_EVERY && done < self.total {
            return;
        }
        *drawn = Instant::now();
        let filled = done * 40 / self.total.max(1);
        let (bar, rest) = ("#".repeat(filled), ".".repeat(40 - filled.min(40)));
        let percent = done * 100 / self.total.max(1);
        // A terminal that cannot be written needs no bar.
        let _ = write!(std::io::stderr(), "\r[{bar}{rest}] {percent} %");
        if done >= self.total {
            let _ = writeln!(std::io::stderr());
        }
    }
}
