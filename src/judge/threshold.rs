//! Threshold mode: the literal rules of dashboards, over a window of one-second slots.
//!
//! Kept for those who want the rule they know. On identical versions it rolls back nearly every
//! rollout when checked each second, because it looks often and forgets nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::sequential::{Arm, Arms};

/// Most slots of a window: ten minutes.
const SLOTS_MAX: usize = 600;

/// The figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The window, in seconds.
    pub window_s: f64,
    /// Requests that each track must have in the window.
    pub requests_min: u64,
    /// Errors that the canary must have.
    pub errors_min: u64,
    /// How often more errors than stable; whole hundredths.
    pub error_ratio: f64,
    /// How much slower at p99 than stable; whole hundredths.
    pub p99_ratio: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window_s: 60.0, requests_min: 100, errors_min: 5, error_ratio: 2.0, p99_ratio: 1.5 }
    }
}

/// What the window shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests and errors by track.
    pub arms: Arms,
    /// p99 of the canary and of stable, in nanoseconds; `None` when one is not known.
    pub p99_ns: Option<(u64, u64)>,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Too few requests to say anything.
    TooFew,
    /// Within the limits.
    Clean,
    /// Too many errors.
    Errors,
    /// Too slow.
    Latency,
}

/// Applies the rules.
#[must_use]
pub fn decide(totals: &Totals, limits: &Limits) -> Finding {
    let Arms { canary, stable } = totals.arms;
    if canary.requests < limits.requests_min || stable.requests < limits.requests_min {
        return Finding::TooFew;
    }
    // Cross-multiplied in integers: exactly twice as much is not more than twice as much.
    let exceeds = |ratio: f64, left: u128, right: u128| left * 100 > hundredths(ratio) * right;
    let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
    let has_errors = canary.errors >= limits.errors_min.max(1);
    let (left, right) =
        (product(canary.errors, stable.requests), product(stable.errors, canary.requests));
    if has_errors && exceeds(limits.error_ratio, left, right) {
        return Finding::Errors;
    }
    match totals.p99_ns {
        Some((canary, stable))
            if exceeds(limits.p99_ratio, u128::from(canary), u128::from(stable)) =>
        {
            Finding::Latency
        }
        _ => Finding::Clean,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small ratio")]
fn hundredths(ratio: f64) -> u128 {
    (ratio * 100.0).round() as u128
}

/// The last minute, by the second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    slots: VecDeque<Slot>,
    /// Seconds since the window was last empty; one full clean window lets a rollout advance.
    pub clean_s: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Slot {
    length_s: f64,
    canary: Arm,
    stable: Arm,
}

impl Window {
    /// Adds a cohort of `dt_s` seconds and drops what is older than the window.
    pub fn add(&mut self, dt_s: f64, arms: Arms, limits: &Limits) {
        match self.slots.back_mut() {
            Some(slot) if slot.length_s + dt_s <= 1.0 + 1e-9 => slot.add(dt_s, arms),
            _ => {
                let mut slot = Slot::default();
                slot.add(dt_s, arms);
                self.slots.push_back(slot);
            }
        }
        let mut length_s: f64 = self.slots.iter().map(|slot| slot.length_s).sum();
        while self.slots.len() > 1 && length_s - self.slots[0].length_s >= limits.window_s - 1e-9
            || self.slots.len() > SLOTS_MAX
        {
            length_s -= self.slots.pop_front().map_or(0.0, |slot| slot.length_s);
        }
    }

    /// The sums over the window.
    #[must_use]
    pub fn totals(&self) -> Arms {
        let mut arms = Arms::default();
        for slot in &self.slots {
            arms.add(Arms { canary: slot.canary, stable: slot.stable });
        }
        arms
    }

    /// Notes what the rules said of a cohort of `dt_s` seconds.
    pub fn note(&mut self, dt_s: f64, finding: Finding) {
        self.clean_s = if finding == Finding::Clean { self.clean_s + dt_s } else { 0.0 };
    }
}

impl Slot {
    fn add(&mut self, dt_s: f64, arms: Arms) {
        self.length_s += dt_s;
        self.canary.add(arms.canary);
        self.stable.add(arms.stable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_forgets_by_the_second() {
        let limits = Limits { window_s: 3.0, ..Limits::default() };
        let mut window = Window::default();
        let canary = Arm { requests: 1, ..Arm::default() };
        for _ in 0..100 {
            window.add(0.2, Arms { canary, stable: Arm::default() }, &limits);
        }
        assert_eq!(window.totals().canary.requests, 15);
    }
}
