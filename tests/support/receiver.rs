//! A receiver of webhooks: keeps what it gets and answers as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value as Json;

use super::{PATIENCE, Upstream};

/// A request: its head and its JSON.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: String,
    pub body: Json,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Received {
    /// The fields of the head by their names in lower case.
    pub fn headers(&self) -> Json {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
    }
}

/// A running receiver.
pub struct Receiver {
    upstream: Upstream,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    grown: Condvar,
}

impl Receiver {
    /// One that answers 200 to everything.
    pub fn new() -> Self {
        Self::answering(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()))
    }

    /// One that answers the nth request, from 0, with what `answer` says; with nothing it keeps the
    /// connection open and stays silent.
    pub fn answering(answer: impl Fn(usize) -> Option<String> + Send + Sync + 'static) -> Self {
        let state = Arc::<State>::default();
        let keeping = Arc::clone(&state);
        let upstream = Upstream::scripted(move |session| {
            while let Some(head) = session.request() {
                let lower = head.to_ascii_lowercase();
                let length = lower
                    .split("content-length: ")
                    .nth(1)
                    .map_or(0, |rest| rest.split("\r\n").next().unwrap().trim().parse().unwrap());
                let bytes = session.body(length);
                let body = serde_json::from_slice(&bytes).unwrap_or(Json::Null);
                let number = {
                    let mut received = keeping.received.lock().unwrap();
                    received.push(Received { head, body, bytes });
                    keeping.grown.notify_all();
                    received.len() - 1
                };
                match answer(number) {
                    Some(text) => session.send(text),
                    None => {
                        session.rest();
                        return;
                    }
                }
            }
        });
        Self { upstream, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// Everything so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// Waits for a request that satisfies `test`.
    pub fn await_one(&self, test: impl Fn(&Received) -> bool) -> Received {
        let deadline = Instant::now() + PATIENCE;
        let mut received = self.state.received.lock().unwrap();
        loop {
            if let Some(found) = received.iter().find(|one| test(one)) {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not received; so far {received:#?}");
            received = self.state.grown.wait_timeout(received, left).unwrap().0;
        }
    }
}
