//! Whose fault an end is: the one place that decides it, for the judge, ejection and back-off
//! alike.
//!
//! Two questions. Who let a deadline pass, or made the upstream give up? [`Scene`] knows what was
//! waited for. And whose doing is a failure, once it has its name? [`Failure::end`] says.

use crate::http1::grpc;
use crate::record::Pardon;
use crate::record::outcome::End;

use super::exchange::{Answer, Exchange};
use super::failure::Failure;

/// Whoever keeps an upstream waiting for less than this in all is no reason for it to give up:
/// servers that bound their reading or writing do it in seconds, and the coarse clock tells tenths.
const HELD_UP_MIN_NS: u64 = 1_000_000_000;
/// A connect that takes this long is overdue whatever the client allows: it needs one round trip,
/// and after this long the kernel sends its packet again.
const CONNECT_PATIENCE_NS: u64 = 1_000_000_000;

/// How long a client has kept its exchange waiting: for its body, or by not taking the answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeldUp {
    /// Since when it does; 0: it does not.
    since_ns: u64,
    /// For how long it did before.
    before_ns: u64,
}

impl HeldUp {
    /// Notes whether the client is waited for now; true when it was until now.
    pub(super) fn note(&mut self, is_waiting: bool, now_ns: u64) -> bool {
        match (is_waiting, self.since_ns) {
            (true, 0) => self.since_ns = now_ns.max(1),
            (false, 1..) => {
                self.before_ns = self.total_ns(now_ns);
                self.since_ns = 0;
                return true;
            }
            _ => {}
        }
        false
    }

    fn total_ns(self, now_ns: u64) -> u64 {
        let now = if self.since_ns > 0 { now_ns.saturating_sub(self.since_ns) } else { 0 };
        self.before_ns + now
    }
}

/// What was so when an exchange ended.
#[derive(Clone, Copy, Debug, Default)]
struct Scene {
    /// The client does not take what is to be written to it.
    is_blocked: bool,
    /// Everything that the client sent is upstream, and more is to come.
    awaits_body: bool,
    /// The whole exchange has its limit behind it.
    is_past_limit: bool,
    /// That limit is the client's own.
    is_own_limit: bool,
    /// How long the client kept the upstream waiting.
    held_up_ns: u64,
    /// How long it all took.
    elapsed_ns: u64,
}

impl Scene {
    /// Most of the time went by on the client.
    fn is_held_up(&self) -> bool {
        self.held_up_ns >= HELD_UP_MIN_NS && self.held_up_ns >= self.elapsed_ns / 2
    }

    /// Who let a deadline pass.
    fn overdue(&self) -> Failure {
        if self.is_blocked {
            Failure::ClientStalled
        } else if self.awaits_body {
            Failure::BodyTimeout
        } else if self.is_past_limit && self.is_own_limit {
            Failure::ClientDeadline
        } else if self.is_past_limit && self.is_held_up() {
            Failure::HeldUp
        } else {
            Failure::UpstreamTimeout
        }
    }

    /// Why the upstream closed before its whole answer.
    fn closed(&self) -> Failure {
        // A server that knows the deadline gives up when it is over, and may be the first to see.
        if self.is_past_limit {
            self.overdue()
        } else if self.is_held_up() {
            Failure::GaveUp
        } else {
            Failure::UpstreamClosed
        }
    }
}

impl Failure {
    /// Whose doing it is.
    #[must_use]
    pub fn end(self) -> End {
        let reason = match self {
            Self::NoEndpoint
            | Self::Connecting
            | Self::ConnectTimeout
            | Self::UpstreamClosed
            | Self::StreamRefused
            | Self::Unwanted(_)
            | Self::UpstreamTimeout
            | Self::BadAnswer(_) => return End::Failed,
            Self::ClientLeft => Pardon::ClientLeft,
            Self::ClientStalled => Pardon::ClientStalled,
            Self::ClientLeftSending | Self::BodyTimeout | Self::BadChunk | Self::BodyTooLarge => {
                Pardon::ClientBody
            }
            Self::ClientDeadline => Pardon::ClientDeadline,
            Self::Unsayable => Pardon::Unsayable,
            Self::Descriptors => Pardon::Descriptors,
            Self::Shed => Pardon::InFlight,
            Self::Exhausted => Pardon::Connections,
            Self::Evicted | Self::Memory => Pardon::Ended,
            Self::HeldUp | Self::GaveUp | Self::EarlySwitch => Pardon::HeldUp,
            // These are refused before they have a track.
            Self::BadHead(_)
            | Self::HeadTimeout
            | Self::Connect
            | Self::RateLimited
            | Self::NoService
            | Self::AmbiguousPath(_) => Pardon::ClientBody,
        };
        End::Pardoned(reason)
    }

    /// Whether it is the upstream's fault.
    #[must_use]
    pub fn is_upstreams(self) -> bool {
        self.end() == End::Failed
    }
}

impl Exchange<'_> {
    /// Whether the client does not take what is to be written to it.
    fn is_blocked(&self) -> bool {
        self.back_sent < self.back.len() || self.downstream.wire.is_blocked()
    }

    fn awaits_body(&self) -> bool {
        !self.is_sent && self.upstream.is_some() && self.sent == self.request.out.len()
    }

    /// Keeps account of whom the exchange waits for. The upstream of a client that takes its answer
    /// again has its whole time again.
    pub(super) fn note_who_is_waited_for(&mut self) {
        let is_blocked = self.is_blocked();
        let is_waiting = is_blocked || self.awaits_body();
        let was_waiting = self.held_up.note(is_waiting, self.worker.clock.coarse_ns());
        if was_waiting && matches!(self.answer, Answer::Body(_)) {
            self.extend_between_bytes();
        }
    }

    fn scene(&self) -> Scene {
        let now_ns = self.worker.clock.now_ns();
        Scene {
            is_blocked: self.is_blocked(),
            awaits_body: self.awaits_body(),
            is_past_limit: self.deadline_ns <= now_ns,
            is_own_limit: self.is_own_limit(),
            held_up_ns: self.held_up.total_ns(now_ns),
            elapsed_ns: now_ns.saturating_sub(self.request.outcome.started_ns()),
        }
    }

    /// Whether the limit of the whole exchange is the client's own.
    fn is_own_limit(&self) -> bool {
        let ours_ns = self.request.service.shared.upstream.request_timeout_ns;
        self.request.timeout_ns.is_some_and(|own_ns| ours_ns.is_none_or(|ours_ns| own_ns < ours_ns))
    }

    /// Who let the deadline pass.
    #[cold]
    pub(super) fn overdue(&self) -> Failure {
        self.scene().overdue()
    }

    /// Who let a connect that has taken `waited_ns` pass its deadline.
    #[cold]
    pub(super) fn connect_overdue(&self, waited_ns: u64) -> Failure {
        let scene = self.scene();
        let patience_ns = self.request.service.shared.upstream.connect_timeout_ns;
        if !scene.is_past_limit || waited_ns >= patience_ns.min(CONNECT_PATIENCE_NS) {
            Failure::ConnectTimeout
        } else if scene.is_own_limit {
            Failure::ClientDeadline
        } else {
            // The time for the whole exchange went by before, on something else.
            Failure::HeldUp
        }
    }

    /// What a failure is, seen by what was waited for.
    #[cold]
    pub(super) fn named(&self, failure: Failure) -> Failure {
        if failure == Failure::UpstreamClosed { self.scene().closed() } else { failure }
    }

    /// Why an error that the upstream answers is not its own: the client's time was over, or its
    /// request was still not there after most of the time had gone by.
    #[cold]
    pub(super) fn excuse(&self) -> Option<Pardon> {
        if self.grpc_status.is_some_and(|status| self.is_out_of_time(status)) {
            return Some(Pardon::ClientDeadline);
        }
        (!self.is_sent && self.scene().is_held_up()).then_some(Pardon::HeldUp)
    }

    /// Whether a call that failed with `status` had no more of the time that its client allows: a
    /// server that is told of it gives up a little earlier than we would, and whatever comes later
    /// than that time is for nobody.
    pub(super) fn is_out_of_time(&self, status: u8) -> bool {
        let Some(own_ns) = self.request.timeout_ns else { return false };
        let told = matches!(status, grpc::DEADLINE_EXCEEDED | grpc::CANCELLED);
        let elapsed_ns =
            self.worker.clock.now_ns().saturating_sub(self.request.outcome.started_ns());
        elapsed_ns >= own_ns || (told && elapsed_ns >= own_ns / 10 * 9)
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::AnswerFault;
    use super::*;
    use crate::record::Fault;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_deadline_is_let_pass_by_whoever_was_waited_for() {
        let nobody = Scene { elapsed_ns: 10 * S, ..Scene::default() };
        let past = Scene { is_past_limit: true, ..nobody };
        for (scene, expected) in [
            (nobody, Failure::UpstreamTimeout),
            (Scene { is_blocked: true, ..nobody }, Failure::ClientStalled),
            (Scene { awaits_body: true, ..nobody }, Failure::BodyTimeout),
            (past, Failure::UpstreamTimeout),
            (Scene { is_blocked: true, ..past }, Failure::ClientStalled),
            (Scene { awaits_body: true, ..past }, Failure::BodyTimeout),
            (Scene { is_own_limit: true, ..past }, Failure::ClientDeadline),
            (Scene { is_own_limit: true, ..nobody }, Failure::UpstreamTimeout),
            (Scene { held_up_ns: 4 * S, ..past }, Failure::UpstreamTimeout),
            (Scene { held_up_ns: 5 * S, ..past }, Failure::HeldUp),
            // The upstream had a time of its own, and let it pass.
            (Scene { held_up_ns: 5 * S, ..nobody }, Failure::UpstreamTimeout),
        ] {
            assert_eq!(scene.overdue(), expected, "{scene:?}");
        }
    }

    #[test]
    fn an_upstream_that_closes_is_at_fault_unless_the_client_held_it_up() {
        let nobody = Scene { elapsed_ns: 3 * S, ..Scene::default() };
        for (scene, expected) in [
            (nobody, Failure::UpstreamClosed),
            // Stalled at this moment, but not for long enough to be a reason.
            (Scene { is_blocked: true, held_up_ns: S / 2, ..nobody }, Failure::UpstreamClosed),
            (Scene { is_blocked: true, held_up_ns: S, ..nobody }, Failure::UpstreamClosed),
            (Scene { is_blocked: true, held_up_ns: 2 * S, ..nobody }, Failure::GaveUp),
            (Scene { awaits_body: true, held_up_ns: 2 * S, ..nobody }, Failure::GaveUp),
            (Scene { held_up_ns: S / 2, elapsed_ns: S / 2, ..nobody }, Failure::UpstreamClosed),
            (Scene { is_past_limit: true, is_own_limit: true, ..nobody }, Failure::ClientDeadline),
            (Scene { is_past_limit: true, ..nobody }, Failure::UpstreamTimeout),
        ] {
            assert_eq!(scene.closed(), expected, "{scene:?}");
        }
    }

    #[test]
    fn every_failure_is_somebodys() {
        for (failure, expected) in [
            (Failure::NoEndpoint, Fault::Upstream),
            (Failure::Connecting, Fault::Upstream),
            (Failure::ConnectTimeout, Fault::Upstream),
            (Failure::UpstreamClosed, Fault::Upstream),
            (Failure::StreamRefused, Fault::Upstream),
            (Failure::Unwanted(503), Fault::Upstream),
            (Failure::UpstreamTimeout, Fault::Upstream),
            (Failure::BadAnswer(AnswerFault::Chunk), Fault::Upstream),
            (Failure::ClientLeft, Fault::Client),
            (Failure::ClientStalled, Fault::Client),
            (Failure::ClientLeftSending, Fault::Client),
            (Failure::BodyTimeout, Fault::Client),
            (Failure::BadChunk, Fault::Client),
            (Failure::BodyTooLarge, Fault::Client),
            (Failure::ClientDeadline, Fault::Client),
            (Failure::Unsayable, Fault::Client),
            (Failure::Descriptors, Fault::Ours),
            (Failure::Shed, Fault::Ours),
            (Failure::Exhausted, Fault::Ours),
            (Failure::Evicted, Fault::Ours),
            (Failure::HeldUp, Fault::Shared),
            (Failure::GaveUp, Fault::Shared),
            (Failure::EarlySwitch, Fault::Shared),
        ] {
            let fault = match failure.end() {
                End::Pardoned(reason) => reason.fault(),
                End::Failed | End::Complete => Fault::Upstream,
            };
            assert_eq!(fault, expected, "{failure:?}");
            assert_eq!(failure.is_upstreams(), expected == Fault::Upstream);
        }
    }

    #[test]
    fn held_up_is_the_sum_of_all_stalls() {
        let mut held_up = HeldUp::default();
        assert!(!held_up.note(false, 5));
        assert!(!held_up.note(true, 10));
        assert!(!held_up.note(true, 20));
        assert_eq!(held_up.total_ns(30), 20);
        assert!(held_up.note(false, 30));
        assert!(!held_up.note(false, 35));
        assert!(!held_up.note(true, 40));
        assert_eq!(held_up.total_ns(41), 21);
    }
}
