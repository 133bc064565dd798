//! What is told of a request where that is wanted: its line in the access log, its spans.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use crate::http1::{Edits, RequestHead, TraceParent, Version, traceparent};
use crate::plain;
use crate::record::{Outcome, Reason};
use crate::route::{Headers, Source, View, path};
use crate::state::{TracePolicy, Track};
use crate::telemetry::{AccessFormat, ClientAddress, Facts, Told, Trace, TraceId};
use crate::track::TrackIndex;

use super::downstream::Downstream;
use super::exchange::Exchange;
use super::failure::Failure;
use super::intake;
use super::local::{LocalService, LocalState};
use super::worker::Worker;

/// Longest value of a head that is told of: as long as the request lines that other servers take.
const TOLD_BYTES_MAX: usize = 8 * 1024;
/// What a head loses when we are the caller from here on.
static REPLACED: LazyLock<Edits> =
    LazyLock::new(|| Edits { removed: vec!["traceparent".into()], ..Edits::default() });
/// What it loses when a trace begins here: the state belongs to the caller's.
static RESTARTED: LazyLock<Edits> = LazyLock::new(|| Edits {
    removed: vec!["traceparent".into(), "tracestate".into()],
    ..Edits::default()
});

/// Where a request belongs, for those behind us to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// What they are told, until an attempt names its own span.
    pub(super) ours: TraceParent,
    caller: Option<TraceParent>,
}

impl Context {
    /// Where the request with `head` belongs; `None` when its head goes on as it came.
    pub(super) fn of(worker: &Worker, policy: TracePolicy, head: &RequestHead<'_>) -> Option<Self> {
        let mut callers = (0_u8, None);
        head.any("traceparent", &mut |value| {
            callers = (callers.0.saturating_add(1), TraceParent::parse(value));
            false
        });
        // Of two callers neither can be believed.
        let caller = if callers.0 == 1 { callers.1 } else { None };
        let is_wanted = match caller {
            Some(caller) => caller.sampled,
            None => worker.dice() < policy.threshold,
        };
        let sampled = is_wanted && worker.admits_trace(policy.per_second);
        if caller.is_some() && !sampled {
            return None;
        }
        // No id is all zero.
        let span = worker.dice() | 1;
        let fresh = || u128::from(worker.dice()) << 64 | u128::from(worker.dice() | 1);
        let trace = caller.map_or_else(fresh, |caller| caller.trace);
        Some(Self { ours: TraceParent { trace, span, sampled }, caller })
    }

    /// What the head loses.
    pub(super) fn edits(&self) -> &'static Edits {
        if self.caller.is_some() { &REPLACED } else { &RESTARTED }
    }
}

/// What is to be told of a request that is on its way from here on; `None`: nothing.
pub(super) fn begin(
    (downstream, state, service): (&Downstream, &LocalState, &LocalService),
    (head, view): (&RequestHead<'_>, &View<'_>),
    (outcome, reason): (&Outcome, Reason),
    context: Option<Context>,
) -> Option<Box<Told>> {
    let format = state.shared.downstream.access_log.as_ref();
    let context = context.filter(|context| context.ours.sampled);
    if format.is_none() && context.is_none() {
        return None;
    }
    let track = track(service, outcome.track());
    let facts = Facts {
        service: service.shared.live.name().into(),
        track: track.map_or_else(String::new, |track| track.name.to_string()),
        reason: reason.as_str(),
        trace_id: context.map(|context| TraceId(context.ours.trace)),
        ..facts(downstream, head, view.source)
    };
    let line = format.map(|format| line(format, head));
    let trace = context.map(|context| Trace {
        id: TraceId(context.ours.trace),
        parent: context.caller.map(|caller| caller.span),
        span: context.ours.span,
        scheme: downstream.client.scheme,
        user_agent: value(head, "user-agent"),
        version: track.and_then(|track| track.version.as_deref()).unwrap_or_default().to_owned(),
        started_ns: outcome.started_ns(),
        ended_ns: 0,
        grpc_status: None,
        failure: None,
        attempts: Vec::new(),
    });
    Some(Box::new(Told { facts, line, trace }))
}

/// What is to be told of a request that is answered here; `None`: nothing. It has no spans, and no
/// track.
pub(super) fn of_own(
    downstream: &Downstream,
    state: &LocalState,
    head: &RequestHead<'_>,
) -> Option<Box<Told>> {
    let format = state.shared.downstream.access_log.as_ref()?;
    let path = path::read(path::split(head.path_and_query).0);
    let found = state.shared.find(downstream.client.listener.number, head.host(), &path.compared);
    let service = found.map(|found| state.services[found.service].shared.live.name().into());
    let facts = Facts {
        service: service.unwrap_or_default(),
        ..facts(downstream, head, intake::source(state, &downstream.client, head))
    };
    Some(Box::new(Told { facts, line: Some(line(format, head)), trace: None }))
}

/// What its head tells of a request.
fn facts(downstream: &Downstream, head: &RequestHead<'_>, source: Source) -> Facts {
    Facts {
        client: ClientAddress(source.address()),
        method: text(head.method),
        host: text(head.host()),
        path: text(head.path_and_query),
        protocol: match head.version {
            _ if downstream.wire.is_stream() => "HTTP/2.0",
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        },
        ..Facts::default()
    }
}

/// How its line is written, and the fields of the head that it wants.
fn line(format: &Arc<AccessFormat>, head: &RequestHead<'_>) -> (Arc<AccessFormat>, Vec<String>) {
    (Arc::clone(format), format.fields().iter().map(|name| value(head, name)).collect())
}

/// How a request ended.
pub(super) struct Ended {
    pub(super) now_ns: u64,
    pub(super) started_ns: u64,
    pub(super) endpoint: Option<SocketAddr>,
    /// What is counted.
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) grpc_status: Option<u8>,
}

/// Tells of a request that has ended.
pub(super) fn end(worker: &Worker, mut told: Told, ended: &Ended) {
    let facts = &mut told.facts;
    facts.endpoint = ended.endpoint;
    facts.status = ended.status;
    facts.bytes = ended.bytes;
    facts.duration_us = ended.now_ns.saturating_sub(ended.started_ns) / 1_000;
    if let Some(trace) = &mut told.trace {
        trace.end(Ok(ended.status), ended.now_ns);
        trace.ended_ns = ended.now_ns;
        trace.grpc_status = ended.grpc_status;
    }
    let lost = worker.outlets.tell(told);
    if lost.line {
        worker.counters.log_dropped.increment();
    }
    if lost.trace {
        worker.counters.traces_dropped.increment();
    }
}

impl Exchange<'_> {
    /// An attempt at `endpoint` begins: where the request is traced, it gets a span of its own, and
    /// the head that is about to be sent names it.
    pub(super) fn attempt_begins(&mut self, endpoint: SocketAddr) {
        let request = &mut *self.request;
        let Some(trace) = request.told.as_mut().and_then(|told| told.trace.as_mut()) else {
            return;
        };
        let span = self.worker.dice() | 1;
        let track = track(&request.service, self.track);
        let track = track.map_or("", |track| &track.name);
        trace.begin(span, endpoint, track, self.worker.clock.now_ns());
        let digits = request.head_bytes.checked_sub(traceparent::SPAN_TO_END + "\r\n".len());
        if let Some(at) = digits
            && self.is_kept
            && let Some(place) = request.out.get_mut(at..at + 16)
        {
            place.copy_from_slice(format!("{span:016x}").as_bytes());
        }
    }

    /// The attempt under way, if any, has failed; so has the request, if nothing else follows.
    pub(super) fn attempt_fails(&mut self, failure: Failure, is_last: bool) {
        let told = self.request.told.as_mut();
        let Some(trace) = told.and_then(|told| told.trace.as_mut()) else { return };
        let result = match failure {
            Failure::Unwanted(status) => Ok(status),
            _ => Err(failure.to_string()),
        };
        trace.end(result, self.worker.clock.now_ns());
        trace.failure = is_last.then(|| failure.to_string());
    }
}

fn track(service: &LocalService, index: TrackIndex) -> Option<&Track> {
    service.shared.tracks.iter().find(|track| track.index == index)
}

/// What the head says, no longer than a reader of logs bears.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TOLD_BYTES_MAX + 1)]);
    plain::cut(&text, TOLD_BYTES_MAX).into_owned()
}

/// The first value of a field of the head, or empty.
fn value(head: &RequestHead<'_>, name: &str) -> String {
    let mut found = String::new();
    head.any(name, &mut |value| {
        found = text(value);
        true
    });
    found
}
