//! Another try for a request: what is certain to harm nobody always, what the service asks for
//! within a budget, and the canary's failures on stable where that is wished.

use crate::record::TrackShard;
use crate::record::outcome::End;
use crate::state::RetryPolicy;
use crate::track::TrackIndex;

use super::exchange::{Answer, Exchange};
use super::failure::Failure;

/// Streams that one request may have refused before that is the answer.
const REFUSALS_MAX: u8 = 2;

/// How often and why a request was tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    /// A pooled connection was closed under it.
    pub(super) stale: bool,
    /// Streams that were refused.
    refused: u8,
    /// Tries by the service's policy.
    by_policy: u8,
    /// It went to another track, where it is tried once.
    rescued: bool,
}

impl Tries {
    /// Whether it was sent more than once.
    pub(super) fn any(self) -> bool {
        self.stale || self.refused > 0 || self.by_policy > 0 || self.rescued
    }

    /// Counts how a request ended that was sent more than once.
    pub(super) fn count(self, shard: &TrackShard, end: End) {
        if self.any() {
            let answered = end == End::Complete;
            let result = if answered { &shard.retries_answered } else { &shard.retries_failed };
            result.increment();
        }
    }

    /// Whether idle connections are no longer to be trusted.
    pub(super) fn avoid_pooled(self) -> bool {
        self.stale
    }
}

impl Exchange<'_> {
    /// Whether the request stays in memory: only where another try of it or a copy is allowed, and
    /// while it is small.
    pub(super) fn keeps_body(&self) -> bool {
        let shared = &self.request.service.shared;
        let retry = shared.retry.as_ref().filter(|_| self.request.is_idempotent);
        let mirror = shared.mirror.as_ref().filter(|_| self.is_mirrored);
        let most = retry.map(|retry| retry.body_bytes_max);
        let most = most.max(mirror.map(|mirror| mirror.body_bytes_max));
        self.is_kept && most.is_some_and(|most| self.request.out.len() <= most)
    }

    /// Whether the request is tried once more after `failure`; if so everything is prepared.
    pub(super) fn tries_again(&mut self, failure: Failure) -> bool {
        let again = self.may_try_again(failure);
        if again {
            self.attempt_fails(failure, false);
        }
        again
    }

    fn may_try_again(&mut self, failure: Failure) -> bool {
        let is_unanswered = self.answer == Answer::Awaited && self.interim_count == 0;
        let has_time = self.worker.clock.coarse_ns() < self.deadline_ns;
        if !(is_unanswered && has_time && self.is_kept) {
            return false;
        }
        if failure == Failure::StreamRefused && self.tries.refused < REFUSALS_MAX {
            self.tries.refused += 1;
            return true;
        }
        // Nothing of it reached the upstream, or all of it may reach it twice.
        if !(self.request.is_idempotent || self.sent == 0) {
            return false;
        }
        if failure == Failure::UpstreamClosed && self.was_stale() {
            self.tries.stale = true;
            return true;
        }
        self.tries_by_policy(failure)
    }

    /// A pooled connection that closes without a byte was most likely closing already.
    fn was_stale(&self) -> bool {
        let is_reused = self.upstream.as_ref().is_some_and(|one| one.connection.reused);
        is_reused && self.partial.is_empty() && !self.tries.stale
    }

    fn tries_by_policy(&mut self, failure: Failure) -> bool {
        let service = &self.request.service;
        let Some(policy) = &service.shared.retry else { return false };
        let Some(status) = wanted(policy, failure) else { return false };
        let is_in_track = status.is_listed && self.tries.by_policy < policy.attempts;
        let rescue = if is_in_track || self.tries.rescued { None } else { self.rescue(policy) };
        if !is_in_track && rescue.is_none() {
            return false;
        }
        let shard = service.recorder.track(self.track);
        if !service.budget.withdraw(self.worker.clock.coarse_ns()) {
            shard.retries_over_budget.increment();
            return false;
        }
        if let Some(stable) = rescue {
            shard.rescued.increment();
            self.track = stable;
            self.tries.rescued = true;
        } else {
            self.tries.by_policy += 1;
        }
        self.tally(false);
        // Another try erases nothing: the failure is the first assigned track's.
        self.request.outcome.moved(status.code);
        true
    }

    /// The track that may take over what was drawn by weight and failed where it was drawn.
    fn rescue(&self, policy: &RetryPolicy) -> Option<TrackIndex> {
        let (from, to) = policy.rescue?;
        let outcome = &self.request.outcome;
        (from == self.track && from == outcome.track() && outcome.is_evidence()).then_some(to)
    }
}

/// A failure that may be tried again.
struct Wanted {
    /// What it would have been for the client.
    code: u16,
    /// The policy names it; a rescue takes every failure of the track.
    is_listed: bool,
}

fn wanted(policy: &RetryPolicy, failure: Failure) -> Option<Wanted> {
    let code = failure.status();
    let is_listed = match failure {
        Failure::UpstreamClosed | Failure::BadAnswer(_) | Failure::StreamRefused => policy.on_reset,
        Failure::UpstreamTimeout => policy.on_timeout,
        Failure::Unwanted(status) => policy.statuses.contains(&status),
        _ => return None,
    };
    Some(Wanted { code, is_listed })
}
