//! What the demo puts around the gateway: two small servers and a client that counts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use tokio::net::{TcpListener, TcpStream};

/// How a server of the demo behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour {
    /// The share of requests that it fails, 0 to 1.
    pub(super) errors: f64,
    /// How much slower it is than it could be.
    pub(super) slower: f64,
}

/// What an answer takes: 8 to 20 ms, evenly.
const ANSWER_MS: std::ops::Range<f64> = 8.0..20.0;

impl Behaviour {
    /// Takes as long as an answer takes, and says whether it is a good one.
    async fn act(self) -> bool {
        let (pause_ms, fate) = {
            let mut dice = rand::rng();
            (dice.random_range(ANSWER_MS), dice.random::<f64>())
        };
        tokio::time::sleep(Duration::from_secs_f64(pause_ms * self.slower / 1e3)).await;
        fate >= self.errors
    }
}

/// Answers every request on a fresh loopback port with the name of its track.
pub(super) async fn serve_track(
    track: &'static str,
    behaviour: Behaviour,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(move |_| async move {
                let status = if behaviour.act().await { 200 } else { 500 };
                let response = Response::builder()
                    .status(status)
                    .header("x-track", track)
                    .body(Full::new(Bytes::from_static(track.as_bytes())));
                Ok::<_, Infallible>(response.expect("constant fields make a response"))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(async move { connection.await.ok() });
        }
    });
    Ok(address)
}

/// What the client saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Answers of the stable track.
    pub(super) stable: AtomicU64,
    /// Answers of the canary track.
    pub(super) canary: AtomicU64,
    /// Requests without a good answer.
    pub(super) failed: AtomicU64,
}

impl Seen {
    /// Stable, canary and failed so far.
    pub(super) fn read(&self) -> [u64; 3] {
        [&self.stable, &self.canary, &self.failed].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Sends `rps` requests a second over one connection, for as long as it is polled.
pub(super) async fn send(gateway: SocketAddr, rps: f64, seen: Arc<Seen>) {
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rps));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Err(error) = send_over_one(gateway, &mut pace, &seen).await;
        tracing::debug!(%error, "the demo's client reconnects");
        seen.failed.fetch_add(1, Ordering::Relaxed);
        pace.tick().await;
    }
}

async fn send_over_one(
    gateway: SocketAddr,
    pace: &mut tokio::time::Interval,
    seen: &Seen,
) -> anyhow::Result<Infallible> {
    let stream = TcpStream::connect(gateway).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { connection.await.ok() });
    loop {
        pace.tick().await;
        sender.ready().await?;
        let request =
            Request::get("/").header("host", "demo.example").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let is_good = response.status().is_success();
        let body = response.into_body().collect().await?.to_bytes();
        let count = match (is_good, &body[..]) {
            (true, b"stable") => &seen.stable,
            (true, b"canary") => &seen.canary,
            _ => &seen.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
