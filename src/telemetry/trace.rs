//! Spans of a request that is traced: the exchange, and every attempt at an upstream.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use serde::{Serialize, Serializer};

use super::Facts;

/// Traced requests that wait to be exported; a full queue drops and counts.
const QUEUE_MAX: usize = 4_096;
/// Attempts of one request that are kept; retries are bounded lower in all but odd configurations.
const ATTEMPTS_MAX: usize = 16;

/// The id of a trace; never zero. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The spans of a request under way. Times are those of the process clock, in nanoseconds.
#[derive(Debug)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The caller's span, if it told one.
    pub parent: Option<u64>,
    /// The exchange's span.
    pub span: u64,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The client's User-Agent, or empty.
    pub user_agent: String,
    /// The version of the track first assigned, or empty.
    pub version: String,
    /// When the request came.
    pub started_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// The status of gRPC, if it had one.
    pub grpc_status: Option<u8>,
    /// Why it was not answered by an upstream, or not whole.
    pub failure: Option<String>,
    /// The attempts in order.
    pub attempts: Vec<Attempt>,
}

/// One attempt at an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its span.
    pub span: u64,
    /// Who was asked.
    pub endpoint: SocketAddr,
    /// The track of the endpoint.
    pub track: String,
    /// When it began.
    pub started_ns: u64,
    /// When it ended; 0 while it is under way.
    pub ended_ns: u64,
    /// What it came to: the upstream's status, or why there is none.
    pub result: Result<u16, String>,
}

impl Trace {
    /// An attempt begins.
    pub fn begin(&mut self, span: u64, endpoint: SocketAddr, track: &str, now_ns: u64) {
        if self.attempts.len() < ATTEMPTS_MAX {
            self.attempts.push(Attempt {
                span,
                endpoint,
                track: track.to_owned(),
                started_ns: now_ns,
                ended_ns: 0,
                result: Err(String::new()),
            });
        }
    }

    /// The attempt under way has ended, if there is one.
    pub fn end(&mut self, result: Result<u16, String>, now_ns: u64) {
        if let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.ended_ns == 0) {
            attempt.ended_ns = now_ns;
            attempt.result = result;
        }
    }
}

/// A traced request that has ended.
#[derive(Debug)]
pub struct Traced {
    /// What is known of it.
    pub facts: Facts,
    /// Its spans.
    pub trace: Trace,
}

/// The workers' end of the traces; clones share the queue.
#[derive(Clone, Debug)]
pub struct Traces(SyncSender<Box<Traced>>);

/// The exporter's end.
#[derive(Debug)]
pub struct Waiting(Receiver<Box<Traced>>);

impl Traces {
    /// A queue of traced requests.
    #[must_use]
    pub fn queue() -> (Self, Waiting) {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        (Self(sender), Waiting(receiver))
    }

    /// Hands a request over; false when the queue is full or nobody takes from it.
    #[must_use]
    pub(super) fn send(&self, traced: Traced) -> bool {
        // Nobody sleeps at the other end, so this wakes nobody: no system call on a worker.
        self.0.try_send(Box::new(traced)).is_ok()
    }
}

impl Waiting {
    /// What waits, up to `most`; `None` when nobody sends any more.
    #[must_use]
    pub fn take(&self, most: usize) -> Option<Vec<Box<Traced>>> {
        let mut taken = Vec::new();
        while taken.len() < most {
            match self.0.try_recv() {
                Ok(traced) => taken.push(traced),
                Err(TryRecvError::Disconnected) if taken.is_empty() => return None,
                Err(_) => break,
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_ends_once_and_there_are_only_so_many() {
        let mut trace = Trace {
            id: TraceId(1),
            parent: None,
            span: 2,
            scheme: "http",
            user_agent: String::new(),
            version: String::new(),
            started_ns: 1,
            ended_ns: 0,
            grpc_status: None,
            failure: None,
            attempts: Vec::new(),
        };
        trace.end(Ok(200), 5);
        let endpoint = SocketAddr::from(([127, 0, 0, 1], 80));
        trace.begin(3, endpoint, "stable", 6);
        trace.end(Err("upstream closed early".into()), 7);
        trace.end(Ok(200), 8);
        assert_eq!(trace.attempts[0].ended_ns, 7);
        assert_eq!(trace.attempts[0].result, Err("upstream closed early".into()));
        for span in 0..100 {
            trace.begin(span, endpoint, "stable", 9);
        }
        assert_eq!(trace.attempts.len(), ATTEMPTS_MAX);
        assert_eq!(TraceId(0xab).to_string(), format!("{:0>32}", "ab"));
    }

    #[test]
    fn a_full_queue_drops() {
        let (traces, waiting) = Traces::queue();
        assert!(waiting.take(10).is_some_and(|taken| taken.is_empty()));
        drop(traces);
        assert!(waiting.take(10).is_none());
    }
}
