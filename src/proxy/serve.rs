//! One client's connection from its first request to its last.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::http1::reply;
use crate::upstream::Wire;

use super::downstream::Downstream;
use super::exchange::{self, Next};
use super::intake::{Intake, Refusal};
use super::worker::Worker;

/// Serves requests on `stream` until either side has enough.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let _open = worker.opened();
    let mut downstream = Downstream::new(&worker, Wire::new(stream), peer);
    loop {
        downstream.await_request(&worker);
        let intake = poll_fn(|context| downstream.poll_request(context, &worker)).await;
        let next = match intake {
            Intake::Request(request) => exchange::run(&worker, &mut downstream, request).await,
            Intake::Refused(refusal) => refuse(&worker, &mut downstream, refusal).await,
            Intake::Closed => Next::Close,
        };
        match next {
            Next::KeepAlive => {}
            Next::Close => return,
            Next::Linger => return downstream.linger(&worker).await,
        }
    }
}

/// Answers a request that goes nowhere.
async fn refuse(worker: &Worker, downstream: &mut Downstream, refusal: Refusal) -> Next {
    let Refusal { failure, to_head, keep_alive } = refusal;
    worker.counters.refused[failure.refusal()].increment();
    tracing::debug!(peer = %downstream.peer, %failure, "request refused");
    let keep_alive = keep_alive && !worker.is_draining();
    let mut bytes = worker.spare();
    reply::write(&mut bytes, failure.status(), &failure.to_string(), keep_alive, to_head);
    // A client that takes no reply gets none: the deadline of its head still runs.
    let is_written = downstream.flush(worker, &bytes, &mut 0).await;
    worker.put_spare(bytes);
    Next::after_reply(is_written, keep_alive)
}
