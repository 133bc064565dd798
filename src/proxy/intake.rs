//! From bytes to a request: parse, route, assign, rewrite; all within one poll.
//!
//! Nothing of the client's bytes is kept: the rewritten head is made here, once, and serves every
//! attempt, so a retry needs no copy and the read buffer is free for the next connection.

use std::net::IpAddr;
use std::rc::Rc;

use crate::http1::reply::{self, Terms};
use crate::http1::{Body, Known, RequestHead, Taken, Version, grpc, rewrite};
use crate::record::{Outcome, Reason};
use crate::route::{Headers, Source, Target, View, sticky};
use crate::state::Service;
use crate::telemetry::Told;
use crate::upstream::Places;

use super::asker::{balance_key, hold_to_rate};
use super::client::Client;
use super::downstream::Downstream;
use super::edits;
use super::failure::Failure;
use super::local::{LocalService, LocalState};
use super::redirects;
use super::target::Place;
use super::tell::{self, Context};
use super::trailers;
use super::user::sticky_user;
use super::worker::Worker;

/// A request on its way: what is sent, and what must be known to bring the answer back.
#[derive(Debug)]
pub struct Request {
    /// The rewritten head and as much of the body as came with it.
    pub out: Vec<u8>,
    /// The rest of the body.
    pub body: Body,
    /// Trailers of it that have come; they are forwarded when they are whole.
    pub trailers: Vec<u8>,
    /// How much of it may still come, chunk framing included.
    pub body_bytes_left: u64,
    /// The client's protocol version.
    pub version: Version,
    /// The answer has no body whatever its head says.
    pub to_head: bool,
    /// May be sent twice (RFC 9110 §9.2.2).
    pub is_idempotent: bool,
    /// Asks for nothing to happen (RFC 9110 §9.2.1).
    pub is_safe: bool,
    /// The client wants the connection to stay.
    pub keep_alive: bool,
    /// The client asks to switch protocols.
    pub upgrade: bool,
    /// A gRPC call: its status is in trailers.
    pub is_grpc: bool,
    /// The client may wait for a 100 that has not come.
    pub expects: bool,
    /// What the client itself allows for it.
    pub timeout_ns: Option<u64>,
    /// The state it was routed by.
    pub state: Rc<LocalState>,
    /// Its service.
    pub service: Rc<LocalService>,
    /// Counts how it ends.
    pub outcome: Outcome,
    /// Whose places it takes.
    pub places: Places,
    /// What its endpoint is chosen by, where that is whoever asks.
    pub balance_key: u64,
    /// The rule that it met, which may change the answer's head.
    pub rule: Option<usize>,
    /// A cookie to set with the answer.
    pub cookie: Option<Box<str>>,
    /// How much of `out` is the head.
    pub head_bytes: usize,
    /// What is told of it at its end.
    pub told: Option<Box<Told>>,
}

/// What came of waiting for a request.
#[derive(Debug)]
pub enum Intake {
    /// A request to forward.
    Request(Box<Request>),
    /// A request that gets our own reply.
    Refused(Refusal),
    /// A request that is answered here, as configured.
    Answered(OwnAnswer),
    /// No request yet: the client speaks HTTP/2.
    Http2,
    /// The client has gone, or was silent too long.
    Closed,
}

/// What a request is answered with as configured.
#[derive(Debug)]
pub struct OwnAnswer {
    /// The status.
    pub status: u16,
    /// Our whole reply.
    pub reply: Vec<u8>,
    /// Another request may follow.
    pub keep_alive: bool,
    /// The service whose rule it was; `None`: the listener's.
    pub service: Option<Rc<LocalService>>,
    /// What is told of it.
    pub told: Option<Box<Told>>,
}

/// A request that is answered by us.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub failure: Failure,
    /// It was a HEAD request.
    pub to_head: bool,
    /// The next request can be told from this one.
    pub keep_alive: bool,
    /// It was a gRPC call.
    pub is_grpc: bool,
    /// What is told of it, where enough is known.
    pub told: Option<Box<Told>>,
}

/// What parsing made of the bytes at hand.
pub enum Parsed {
    /// The head goes on.
    Incomplete,
    /// A head, and body as far as it came: `used` bytes.
    Whole {
        /// What to do with it.
        intake: Intake,
        /// Bytes that belong to it.
        used: usize,
    },
}

/// The refusal of a head that came too slowly.
#[must_use]
pub fn head_timeout() -> Intake {
    Intake::Refused(Refusal {
        failure: Failure::HeadTimeout,
        to_head: false,
        keep_alive: false,
        is_grpc: false,
        told: None,
    })
}

/// Takes a request in from the start of `bytes`.
pub fn parse(worker: &Worker, downstream: &Downstream, bytes: &[u8]) -> Parsed {
    let state = worker.state();
    let mut spans = worker.fields();
    let limits = state.shared.downstream.limits;
    let head = match RequestHead::parse(bytes, limits, &mut spans) {
        Ok(Some(head)) => head,
        Ok(None) => return Parsed::Incomplete,
        Err(error) => return refused(Failure::BadHead(error), 0),
    };
    let to_head = head.method == b"HEAD";
    let taken = match redirects::https_port(&state, &downstream.client, &head) {
        Some(port) => redirects::to_https(worker, downstream, &state, &head, port),
        None => take_in(worker, downstream, &state, &head, bytes),
    };
    match taken {
        Ok(taken) => taken,
        Err(failure) => {
            let is_whole = matches!(
                failure,
                Failure::NoService | Failure::RateLimited | Failure::AmbiguousPath(_)
            );
            let whole = head.body().is_done() && is_whole;
            let keep_alive = whole && head.facts.persists(head.version);
            let (is_grpc, told) = (is_grpc(&head), tell::of_own(downstream, &state, &head));
            let refusal = Refusal { failure, to_head, keep_alive, is_grpc, told };
            Parsed::Whole { intake: Intake::Refused(refusal), used: head.bytes.len() }
        }
    }
}

fn refused(failure: Failure, used: usize) -> Parsed {
    let refusal =
        Refusal { failure, to_head: false, keep_alive: false, is_grpc: false, told: None };
    Parsed::Whole { intake: Intake::Refused(refusal), used }
}

pub(super) fn answered(
    head: &RequestHead<'_>,
    (status, reply): (u16, Vec<u8>),
    service: Option<&Rc<LocalService>>,
    told: Option<Box<Told>>,
) -> Parsed {
    let (keep_alive, service) = (keeps_alive(head), service.map(Rc::clone));
    let own = OwnAnswer { status, reply, keep_alive, service, told };
    Parsed::Whole { intake: Intake::Answered(own), used: head.bytes.len() }
}

fn take_in(
    worker: &Worker,
    downstream: &Downstream,
    state: &Rc<LocalState>,
    head: &RequestHead<'_>,
    bytes: &[u8],
) -> Result<Parsed, Failure> {
    if head.method == b"CONNECT" {
        return Err(Failure::Connect);
    }
    let (client, policy) = (&downstream.client, &state.shared.downstream);
    let place = Place::find(state, client.listener.number, head)?;
    let (service, query) = (place.service, place.query);
    let rest = &bytes[head.bytes.len()..];
    let came = take_body(head, rest, policy.body_bytes_max)?;
    let trusted = is_trusted(state, client.peer.ip());
    let source = counted_source(worker, state, client, head);
    let view = View { method: head.method, path: &place.path, query, source, headers: head };
    hold_to_rate(worker, service, &view, client)?;
    let rules = &service.shared.rules;
    let rule = rules.iter().position(|rule| rule.matches(&view));
    let own = rule.and_then(|rule| own_answer(worker, &rules[rule].target, head));
    if let Some((status, reply)) = own {
        let told = tell::of_own(downstream, state, head);
        return Ok(answered(head, (status, reply), Some(service), told));
    }
    let (upgrade, is_grpc) = (head.wants_upgrade(), is_grpc(head));
    let mut out = worker.spare();
    let target = place.target(rule.and_then(|rule| rules[rule].rewrite.as_ref()));
    let forwarding = rewrite::Forwarding {
        peer: &client.peer_text,
        client: source.address(),
        trusted,
        scheme: client.scheme,
        certificate: client.certificate.as_deref(),
        via: policy.via.as_deref(),
        upgrade,
        target: target.as_deref(),
        owned: &service.shared.owned.request,
        edits: &[],
        made: b"",
    };
    let context = state.shared.tracing.and_then(|policy| Context::of(worker, policy, head));
    let from = (head, view.source);
    edits::write_request(&mut out, (worker, service), from, (rule, context), forwarding);
    let head_bytes = out.len();
    came.append(&mut out, rest, &service.shared)?;
    let (outcome, reason, cookie) =
        assign(worker, service, (&view, rule), || is_https(state, client, head));
    let at = (downstream, &**state, &**service);
    let told = tell::begin(at, (head, &view), (&outcome, reason), context);
    let request = Request {
        out,
        body: came.body,
        trailers: came.trailers,
        body_bytes_left: came.left,
        version: head.version,
        to_head: head.method == b"HEAD",
        is_idempotent: is_idempotent(head.method) || is_keyed(service, head),
        is_safe: is_safe(head.method),
        keep_alive: head.facts.persists(head.version),
        upgrade,
        is_grpc,
        expects: head.facts.expects,
        timeout_ns: if is_grpc { timeout_ns(head) } else { None },
        state: Rc::clone(state),
        service: Rc::clone(service),
        outcome,
        places: if reason == Reason::Rule { Places::Ruled } else { Places::Drawn },
        balance_key: balance_key(service, &view),
        rule,
        cookie,
        head_bytes,
        told,
    };
    let intake = Intake::Request(Box::new(request));
    Ok(Parsed::Whole { intake, used: head.bytes.len() + came.taken.used })
}

/// As much of a body as came with its head.
struct Came {
    /// What is left of it.
    body: Body,
    taken: Taken,
    trailers: Vec<u8>,
    /// How many bytes may follow.
    left: u64,
}

impl Came {
    /// Appends what goes on of it.
    fn append(&self, out: &mut Vec<u8>, rest: &[u8], service: &Service) -> Result<(), Failure> {
        out.extend_from_slice(&rest[..self.taken.passed]);
        if self.trailers.is_empty() || !self.body.is_done() {
            return Ok(());
        }
        let forwarded = trailers::forward(out, &self.trailers, service);
        forwarded.map_err(|_| Failure::BadChunk)
    }
}

fn take_body(head: &RequestHead<'_>, rest: &[u8], most: Option<u64>) -> Result<Came, Failure> {
    let most = most.unwrap_or(u64::MAX);
    if head.facts.content_length > Some(most) {
        return Err(Failure::BodyTooLarge);
    }
    let (mut body, mut trailers) = (head.body(), Vec::new());
    let taken = body.read_parts(rest, None, &mut trailers).map_err(|_| Failure::BadChunk)?;
    let left = most.checked_sub(taken.used as u64).ok_or(Failure::BodyTooLarge)?;
    Ok(Came { body, taken, trailers, left })
}

/// Whether another request may follow one that is answered without its body.
pub(super) fn keeps_alive(head: &RequestHead<'_>) -> bool {
    head.body().is_done() && head.facts.persists(head.version)
}

/// The answer that a rule has at hand.
fn own_answer(worker: &Worker, target: &Target, head: &RequestHead<'_>) -> Option<(u16, Vec<u8>)> {
    if matches!(target, Target::Track(_) | Target::Weights(_) | Target::Service) {
        return None;
    }
    let keep_alive = keeps_alive(head) && !worker.is_draining();
    let terms = Terms { date: &worker.date(), keep_alive, to_head: head.method == b"HEAD" };
    match target {
        Target::Redirect(status, to, keeps_path) => {
            let location = if *keeps_path {
                redirects::location(to, head.path_and_query)
            } else {
                to.to_vec()
            };
            let mut reply = worker.spare();
            reply::redirect(&mut reply, *status, &location, &terms);
            Some((*status, reply))
        }
        Target::Respond(status, lines, body) => {
            let mut reply = worker.spare();
            reply::content(&mut reply, *status, (lines, body), &terms);
            Some((*status, reply))
        }
        Target::Track(_) | Target::Weights(_) | Target::Service => None,
    }
}

/// Draws the request's track and counts it as assigned.
fn assign(
    worker: &Worker,
    service: &Rc<LocalService>,
    (view, rule): (&View<'_>, Option<usize>),
    is_https: impl FnOnce() -> bool,
) -> (Outcome, Reason, Option<Box<str>>) {
    let now_ns = worker.clock.now_ns();
    let recorder = &service.recorder;
    let target = rule.map(|rule| &service.shared.rules[rule].target);
    if let Some(track) = target.and_then(|target| target.pick(worker.random_bucket())) {
        let outcome = service.with_split(|split| {
            recorder.assign_unseen(split, split.divert(track), Reason::Rule, now_ns)
        });
        return (outcome, Reason::Rule, None);
    }
    let (bucket, reason, fingerprint, cookie) = match sticky_user(worker, service, view, is_https) {
        Some((user, cookie)) => (sticky::bucket(user), Reason::Sticky, Some(user), cookie),
        None => (worker.random_bucket(), Reason::Weight, None, None),
    };
    let is_excluded = service.shared.excluded.iter().any(|one| one.holds(view));
    // One split for the draw and its count: a cohort must know by which weights it was drawn.
    let outcome = service.with_split(|split| {
        let track = split.pick(bucket);
        if is_excluded {
            recorder.assign_unseen(split, track, reason, now_ns)
        } else {
            recorder.assign(split, track, reason, fingerprint, now_ns)
        }
    });
    (outcome, reason, cookie)
}

/// Whether the client came by HTTPS, to us or to a proxy in front that is believed.
pub(super) fn is_https(state: &LocalState, client: &Client, head: &RequestHead<'_>) -> bool {
    client.scheme == "https"
        || (is_trusted(state, client.peer.ip()) && head.forwarded_scheme() == Some("https"))
}

fn is_trusted(state: &LocalState, peer: IpAddr) -> bool {
    state.shared.trusted_proxies.iter().any(|net| net.contains(&peer))
}

/// The source of a request that is taken in.
fn counted_source(
    worker: &Worker,
    state: &LocalState,
    client: &Client,
    head: &RequestHead<'_>,
) -> Source {
    let source = source(state, client, head);
    if source.address().is_none() {
        worker.counters.unknown_sources.increment();
    }
    source
}

/// Where a request comes from, as far as trusted proxies tell it.
pub(super) fn source(state: &LocalState, client: &Client, head: &RequestHead<'_>) -> Source {
    let forwarded_for = head.values(Known::XForwardedFor);
    Source::of(client.peer.ip(), &state.shared.trusted_proxies, forwarded_for)
}

/// What a call allows for itself.
fn timeout_ns(head: &RequestHead<'_>) -> Option<u64> {
    grpc::field(head.bytes, head.fields, "grpc-timeout").and_then(grpc::timeout_ns)
}

/// Calls are POSTs; nothing else is worth a look at its content type.
fn is_grpc(head: &RequestHead<'_>) -> bool {
    let content_type = || grpc::field(head.bytes, head.fields, "content-type");
    head.method == b"POST" && content_type().is_some_and(grpc::is_grpc)
}

/// A key by which the server itself tells repetitions makes any request repeatable; looked for
/// only where something is tried again.
fn is_keyed(service: &LocalService, head: &RequestHead<'_>) -> bool {
    service.shared.retry.is_some() && head.any("idempotency-key", &mut |key| !key.is_empty())
}

fn is_safe(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS")
}

fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

impl Headers for RequestHead<'_> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.fields.iter().any(|field| {
            let spelled = field.name(self.bytes);
            // What a client says of its certificate itself is not forwarded, and tests nothing.
            field.known != Known::Ours
                && spelled.len() == name.len()
                && spelled.eq_ignore_ascii_case(name.as_bytes())
                && test(field.value(self.bytes))
        })
    }
}
