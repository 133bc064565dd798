//! What a run has seen: tallies of its stage and of the whole run, and the last half minute.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::judge::alarm::SplitCount;
use crate::judge::{Arms, threshold};
use crate::track::Weight;

use super::pardoned::Pardoned;

/// The span that "at present" means: rates, stable's own errors, unfinished requests.
pub const RECENT_S: f64 = 30.0;
/// After this long without failures of its own, stable has recovered.
const RECOVERY_S: f64 = 10.0;
/// Stable may have this share of requests unfinished when a cohort closes.
const UNFINISHED_MAX: f64 = 0.01;
/// Fewest requests that say anything about a share of stable's.
const SHARE_REQUESTS_MIN: u64 = 100;

/// One closed cohort, as the machine takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cohort {
    /// How long requests were assigned to it, in seconds.
    pub dt_s: f64,
    /// The canary's weight then.
    pub weight: Weight,
    /// The machine's mark when it opened; see [`super::Machine::mark`].
    pub mark: u64,
    /// What the pots see: of a sticky user, one error per stage.
    pub pots: Arms,
    /// Everything.
    pub all: Arms,
    /// How its requests were drawn, those included whose end says nothing of their upstream.
    pub drawn: SplitCount,
    /// Ends that were pardoned since the cohort before it closed.
    pub pardoned: Pardoned,
    /// Whether a latency cut was known for each quantile.
    pub has_cut: [bool; 2],
    /// Stable's requests that were still waited for when it closed.
    pub stable_unfinished: u64,
    /// p99 of canary and stable over the threshold's window, in nanoseconds.
    pub p99_ns: Option<(u64, u64)>,
    /// Users keep their track, so the split is not drawn request by request.
    pub is_sticky: bool,
}

/// Tallies of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Seconds spent waiting for endpoints.
    pub waited_s: f64,
    /// Seconds since promotion.
    pub baked_s: f64,
    /// Seconds of the stage.
    pub stage_s: f64,
    /// What this stage showed.
    pub stage: Arms,
    /// What the whole run showed.
    pub run: Arms,
    /// How this stage's requests were split.
    pub split: SplitCount,
    /// What the run pardoned.
    #[serde(default, skip_serializing_if = "Pardoned::is_empty")]
    pub pardoned: Pardoned,
    /// Failures beyond what the limits allow, over the run.
    pub excess: f64,
    /// The window of threshold mode. Not journalled: after a restart it fills again.
    #[serde(skip)]
    pub window: threshold::Window,
    /// The last half minute. Not journalled: after a restart it fills again.
    #[serde(skip)]
    pub recent: Recent,
}

impl Progress {
    /// Adds a cohort. `rho` and `delta` are the limits on errors.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn add(&mut self, cohort: &Cohort, is_current: bool, rho: f64, delta: f64) {
        self.run.add(cohort.all);
        self.recent.add(cohort);
        self.pardoned.add(&cohort.pardoned);
        if is_current {
            self.stage_s += cohort.dt_s;
            self.stage.add(cohort.all);
            if !cohort.is_sticky {
                self.split.canary += cohort.drawn.canary;
                self.split.stable += cohort.drawn.stable;
            }
        }
        let w = cohort.weight.ratio();
        if 0.0 < w && w < 1.0 {
            let Arms { canary, stable } = cohort.all;
            self.excess += canary.errors as f64
                - rho * w / (1.0 - w) * stable.errors as f64
                - delta * canary.requests as f64;
        }
    }

    /// A new stage begins.
    pub fn enter_stage(&mut self) {
        self.stage_s = 0.0;
        self.stage = Arms::default();
        self.split = SplitCount::default();
        self.window = threshold::Window::default();
    }
}

/// The last half minute by the second.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    slots: VecDeque<Slot>,
}

impl PartialEq for Recent {
    /// It is no part of what a run has learned.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    length_s: f64,
    arms: Arms,
    unfinished: u64,
}

impl Recent {
    fn add(&mut self, cohort: &Cohort) {
        let is_full = |slot: &Slot| slot.length_s + cohort.dt_s > 1.0 + 1e-9;
        if self.slots.back().is_none_or(is_full) {
            self.slots.push_back(Slot::default());
        }
        let slot = self.slots.back_mut().expect("one was just pushed");
        slot.length_s += cohort.dt_s;
        slot.arms.add(cohort.all);
        slot.unfinished += cohort.stable_unfinished;
        while self.slots.len() > 1 && self.length_s() - self.slots[0].length_s >= RECENT_S {
            self.slots.pop_front();
        }
    }

    /// The seconds it covers.
    #[must_use]
    pub fn length_s(&self) -> f64 {
        self.slots.iter().map(|slot| slot.length_s).sum()
    }

    /// What both tracks showed.
    #[must_use]
    pub fn arms(&self) -> Arms {
        let mut arms = Arms::default();
        self.slots.iter().for_each(|slot| arms.add(slot.arms));
        arms
    }

    /// Requests a second, over both tracks.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of half a minute")]
    pub fn rps(&self) -> f64 {
        let Arms { canary, stable } = self.arms();
        (canary.requests + stable.requests) as f64 / self.length_s().max(1e-9)
    }

    /// Whether stable's own share of errors is above `most`: over the whole half minute, and still
    /// over its end. Once stable has recovered, what follows is as good to learn from as ever.
    #[must_use]
    pub fn is_stable_failing(&self, most: f64) -> bool {
        let fails = |arms: Arms| exceeds(arms.stable.errors, arms.stable.requests, most);
        fails(self.arms()) && fails(self.end())
    }

    /// What both tracks showed in the last [`RECOVERY_S`].
    fn end(&self) -> Arms {
        let (mut arms, mut length_s) = (Arms::default(), 0.0);
        for slot in self.slots.iter().rev() {
            arms.add(slot.arms);
            length_s += slot.length_s;
            if length_s >= RECOVERY_S {
                break;
            }
        }
        arms
    }

    /// Whether more than one in a hundred of stable's requests were still waited for.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let unfinished = self.slots.iter().map(|slot| slot.unfinished).sum();
        exceeds(unfinished, self.arms().stable.requests, UNFINISHED_MAX)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of half a minute")]
fn exceeds(count: u64, of: u64, most: f64) -> bool {
    of >= SHARE_REQUESTS_MIN && count as f64 > most * of as f64
}
