//! One client's connection from its first byte to its last.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::http1::reply::Terms;
use crate::memory::Place;
use crate::state::ListenerPolicy;
use crate::telemetry::Told;
use crate::tls::{ServerTls, identity};
use crate::wire::{TlsWire, Wire, proxied};

use super::client::Client;
use super::closing::{self, Before};
use super::downstream::Downstream;
use super::exchange::{self, Next};
use super::failure::Failure;
use super::http2;
use super::intake::{Intake, OwnAnswer, Refusal};
use super::tell;
use super::worker::Worker;

/// Serves requests on `stream`, which came to the listener number `listener`, until either side
/// has enough.
pub async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
    place: Arc<Place>,
) {
    let Some(policy) = worker.state().shared.listeners.get(listener).map(Arc::clone) else {
        return;
    };
    let (wire, client) = if policy.tls.is_some() || policy.balancers.is_some() {
        // Boxed because it is over soon, and its future would make every connection larger.
        match Box::pin(introduce(&worker, stream, peer, policy)).await {
            Some(introduced) => introduced,
            None => return,
        }
    } else {
        (Wire::new(stream), Client::new(peer, policy))
    };
    let Some(place) = place_of(&worker, &client, place) else { return };
    client.account.join(place);
    let mut downstream = Downstream::new(&worker, wire, Rc::new(client));
    let next = if downstream.wire.is_http2() {
        Some(Next::Http2)
    } else {
        http1(&worker, &mut downstream).await
    };
    let (wire, held, client) = downstream.into_parts();
    let before = match next {
        Some(Next::Http2) => {
            if let Some(io) = wire.into_io(held) {
                // Boxed because HTTP/1 should not carry its size.
                Box::pin(http2::serve(&worker, io, client)).await;
            }
            return;
        }
        Some(Next::Drop) => return,
        Some(Next::Close | Next::KeepAlive) => Before::Answer,
        None => Before::Rest,
    };
    drop(held);
    closing::close(&worker, wire, before).await;
}

/// The connection's place: where a PROXY header has named the client, among that one's.
fn place_of(worker: &Worker, client: &Client, place: Arc<Place>) -> Option<Arc<Place>> {
    if client.listener.balancers.is_none() {
        return Some(place);
    }
    let state = worker.state();
    let most = state.shared.downstream.connections_per_source_max;
    let most = most.most(worker.budget.connections_per_source());
    let entered = worker.budget.sources().enter(client.peer.ip(), most);
    if entered.is_err() {
        worker.counters.refused[Failure::MEMORY].increment();
    }
    entered.ok()
}

/// What comes ahead of the first request: who the client is, and TLS.
async fn introduce(
    worker: &Rc<Worker>,
    mut stream: TcpStream,
    mut peer: SocketAddr,
    policy: Arc<ListenerPolicy>,
) -> Option<(Wire, Client)> {
    if let Some(balancers) = &policy.balancers {
        let Some(told) = told_peer(worker, &mut stream, peer, balancers).await else {
            closing::close(worker, Wire::new(stream), Before::Answer).await;
            return None;
        };
        peer = told;
    }
    let mut client = Client::new(peer, policy);
    let Some(tls) = client.listener.tls.clone() else {
        return Some((Wire::new(stream), client));
    };
    let wire = shake_hands(worker, &tls, stream, client.peer).await?;
    client.scheme = "https";
    if let Some(certificate) = wire.peer_certificate() {
        // Without its lines a client with a certificate would look like one without.
        let Some(lines) = identity::lines(certificate) else {
            worker.counters.tls_failures.increment();
            tracing::debug!(peer = %client.peer, "a client's certificate cannot be told of");
            closing::close(worker, Wire::tls(wire), Before::Answer).await;
            return None;
        };
        client.certificate = Some(lines.into());
    }
    Some((Wire::tls(wire), client))
}

/// The client that the PROXY header names, within the time for a head.
async fn told_peer(
    worker: &Worker,
    stream: &mut TcpStream,
    peer: SocketAddr,
    balancers: &[IpNet],
) -> Option<SocketAddr> {
    let address = peer.ip().to_canonical();
    if !balancers.iter().any(|net| net.contains(&address)) {
        worker.counters.refused[Failure::PROXY_HEADER].increment();
        tracing::debug!(%peer, "no balancer of this listener; name it in proxy_protocol.from");
        return None;
    }
    let alarm = worker.alarms.register();
    let wait_ns = worker.state().shared.downstream.head_timeout_ns;
    alarm.set(worker.clock.now_ns().saturating_add(wait_ns));
    let mut reading = Box::pin(proxied::read(stream));
    let told = poll_fn(|context| match reading.as_mut().poll(context) {
        Poll::Ready(told) => Poll::Ready(told.map_err(|error| error.to_string())),
        Poll::Pending if alarm.is_overdue(context, worker.clock.coarse_ns()) => {
            Poll::Ready(Err("timed out".to_owned()))
        }
        Poll::Pending => Poll::Pending,
    });
    match told.await {
        Ok(source) => Some(source.unwrap_or(peer)),
        Err(error) => {
            worker.counters.refused[Failure::PROXY_HEADER].increment();
            tracing::debug!(%peer, %error, "no PROXY header from a balancer");
            None
        }
    }
}

/// Agrees on TLS within the time for a head.
async fn shake_hands(
    worker: &Rc<Worker>,
    tls: &ServerTls,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TlsWire> {
    let alarm = worker.alarms.register();
    let wait_ns = worker.state().shared.downstream.head_timeout_ns;
    alarm.set(worker.clock.now_ns().saturating_add(wait_ns));
    let accept = TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream);
    let mut accept = Box::pin(accept.into_fallible());
    let agreed = poll_fn(|context| match accept.as_mut().poll(context) {
        Poll::Ready(agreed) => Poll::Ready(Some(agreed)),
        Poll::Pending if alarm.is_overdue(context, worker.clock.coarse_ns()) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let (error, stream) = match agreed.await {
        Some(Ok(stream)) => return Some(TlsWire::new(stream)),
        Some(Err((error, stream))) => (error.to_string(), Some(stream)),
        None => ("timed out".to_owned(), None),
    };
    worker.counters.tls_failures.increment();
    tracing::debug!(%peer, %error, "no TLS agreed with a client");
    if let Some(stream) = stream {
        // The alert that says why shall arrive.
        closing::close(worker, Wire::new(stream), Before::Answer).await;
    }
    None
}

/// Serves requests until the connection is to end or to change; `None` when there is no more of
/// them.
async fn http1(worker: &Rc<Worker>, downstream: &mut Downstream) -> Option<Next> {
    loop {
        match request(worker, downstream).await {
            Some(Next::KeepAlive) => {}
            next => return next,
        }
    }
}

/// Serves the one request of a stream.
pub(super) async fn one_request(worker: &Rc<Worker>, downstream: &mut Downstream) {
    // What follows is the connection's business.
    let _ = request(worker, downstream).await;
}

/// Serves the next request; `None` when there is none.
async fn request(worker: &Rc<Worker>, downstream: &mut Downstream) -> Option<Next> {
    downstream.await_request(worker);
    match poll_fn(|context| downstream.poll_request(context, worker)).await {
        Intake::Request(request) => Some(exchange::run(worker, downstream, request).await),
        Intake::Refused(refusal) => Some(refuse(worker, downstream, refusal).await),
        Intake::Answered(own) => Some(answer(worker, downstream, own).await),
        Intake::Http2 => Some(Next::Http2),
        Intake::Closed => None,
    }
}

/// Answers a request as configured.
async fn answer(worker: &Worker, downstream: &mut Downstream, own: OwnAnswer) -> Next {
    let OwnAnswer { status, reply, keep_alive, service, told } = own;
    match service {
        Some(service) => service.recorder.count_answered(),
        None => worker.counters.redirects.increment(),
    }
    let is_written = write_own(worker, downstream, reply, (status, told)).await;
    Next::after_reply(is_written, keep_alive)
}

/// Answers a request that goes nowhere.
async fn refuse(worker: &Worker, downstream: &mut Downstream, refusal: Refusal) -> Next {
    let Refusal { failure, to_head, keep_alive, is_grpc, told } = refusal;
    worker.counters.refused[failure.refusal()].increment();
    tracing::debug!(peer = %downstream.client.peer, %failure, "request refused");
    let keep_alive = keep_alive && !worker.is_draining();
    let mut reply = worker.spare();
    let terms = Terms { date: &worker.date(), keep_alive, to_head };
    failure.write(&mut reply, &terms, is_grpc);
    // A client that takes no reply gets none: the deadline of its head still runs.
    let is_written = write_own(worker, downstream, reply, (failure.status(), told)).await;
    Next::after_reply(is_written, keep_alive)
}

/// Writes a reply of our own and tells of it; whether the client took it.
async fn write_own(
    worker: &Worker,
    downstream: &mut Downstream,
    reply: Vec<u8>,
    (status, told): (u16, Option<Box<Told>>),
) -> bool {
    let (started_ns, mut bytes) = (worker.clock.now_ns(), 0);
    let is_written = downstream.flush(worker, &reply, &mut bytes).await;
    worker.put_spare(reply);
    if let Some(told) = told {
        let (now_ns, bytes) = (worker.clock.now_ns(), bytes as u64);
        let (endpoint, grpc_status) = (None, None);
        let ended = tell::Ended { now_ns, started_ns, endpoint, status, bytes, grpc_status };
        tell::end(worker, *told, &ended);
    }
    is_written
}
