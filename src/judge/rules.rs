//! The plain rules, outside alpha: crashes and readiness of endpoints.

use std::collections::VecDeque;

/// Crashes of one endpoint that are still let pass.
pub const CRASHES_MAX: u32 = 3;
/// The probes that the readiness rule looks at, and the fewest that it needs.
const PROBES_WINDOW: usize = 20;
const PROBES_MIN: usize = 10;

/// How a probe, or a connect of the traffic itself, went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Answered as wanted.
    Ready,
    /// Answered otherwise, or not in time.
    NotReady,
    /// The connection was refused.
    Refused,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointHistory {
    /// The last probes, oldest first; true is ready.
    recent: VecDeque<bool>,
    has_served: bool,
    is_refusing: bool,
    crashes: u32,
}

impl EndpointHistory {
    /// Notes a probe.
    pub fn probed(&mut self, probe: Probe) {
        if self.recent.len() == PROBES_WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(probe == Probe::Ready);
        match probe {
            Probe::Ready => self.served(),
            Probe::Refused => self.refused(),
            Probe::NotReady => {}
        }
    }

    /// It answered. After refused connections that is one crash survived; an endpoint that only
    /// now serves for the first time was starting.
    pub fn served(&mut self) {
        if self.has_served && self.is_refusing {
            self.crashes += 1;
        }
        self.has_served = true;
        self.is_refusing = false;
    }

    /// It refused a connection.
    pub fn refused(&mut self) {
        self.is_refusing = true;
    }

    /// Its place was taken by another address: a crash if it was refusing after it had served.
    pub fn replaced(&mut self) {
        if self.has_served && self.is_refusing {
            self.crashes += 1;
            self.is_refusing = false;
        }
    }

    /// Times that it served, refused, and served again or was replaced.
    #[must_use]
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// Whether the last probe was answered as wanted.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.recent.back() == Some(&true) && !self.is_refusing
    }

    /// Whether it crashed too often.
    #[must_use]
    pub fn is_crashing(&self) -> bool {
        self.crashes > CRASHES_MAX
    }

    /// Failed probes of the last twenty, and how many those were.
    #[must_use]
    pub fn failures(&self) -> (usize, usize) {
        (self.recent.iter().filter(|ready| !**ready).count(), self.recent.len())
    }

    /// Whether more than half of its last probes failed, of at least ten, and it had
    /// served before: one that is still starting is waited for.
    #[must_use]
    pub fn is_unready(&self) -> bool {
        let (failures, count) = self.failures();
        self.has_served && count >= PROBES_MIN && failures * 2 > count
    }

    /// Whether, as an endpoint of stable, it excuses a canary that is unready: more than a quarter of
    /// its own last probes failed, of at least ten. A cause that both share reaches them within a
    /// probe of each other; by the canary's own measure, whose probe came first would decide.
    #[must_use]
    pub fn excuses_unready(&self) -> bool {
        let (failures, count) = self.failures();
        self.has_served && count >= PROBES_MIN && failures * 4 > count
    }

    /// What it did in a rollout that is over no longer counts.
    pub fn forgive(&mut self) {
        self.crashes = 0;
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_served_refused_served() {
        let mut endpoint = EndpointHistory::default();
        endpoint.refused();
        endpoint.served();
        assert_eq!(endpoint.crashes(), 0, "it was only starting");
        for crashes in 1..=4 {
            endpoint.refused();
            endpoint.refused();
            assert_eq!(endpoint.crashes(), crashes - 1, "down is not yet a crash");
            endpoint.served();
            assert_eq!(endpoint.crashes(), crashes);
            assert_eq!(endpoint.is_crashing(), crashes > 3);
        }
        endpoint.refused();
        endpoint.replaced();
        endpoint.replaced();
        assert_eq!(endpoint.crashes(), 5);
    }

    #[test]
    fn readiness_is_more_than_half_of_at_least_ten_of_the_last_twenty() {
        let mut endpoint = EndpointHistory::default();
        endpoint.probed(Probe::Ready);
        for _ in 0..8 {
            endpoint.probed(Probe::NotReady);
        }
        assert!(!endpoint.is_unready(), "nine probes are too few");
        endpoint.probed(Probe::NotReady);
        assert!(endpoint.is_unready());
        for _ in 0..9 {
            endpoint.probed(Probe::Ready);
        }
        assert!(!endpoint.is_unready(), "9 of 19");
        assert!(endpoint.excuses_unready(), "as one of stable's");
        for _ in 0..7 {
            endpoint.probed(Probe::Ready);
        }
        assert!(!endpoint.excuses_unready(), "3 of 20");
        for _ in 0..20 {
            endpoint.probed(Probe::NotReady);
        }
        assert_eq!(endpoint.failures(), (20, 20));
        let mut starting = EndpointHistory::default();
        (0..20).for_each(|_| starting.probed(Probe::NotReady));
        assert!(!starting.is_unready());
    }
}
