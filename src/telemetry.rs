//! Logs: what the process says of itself, and a line per request off the request path.

use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tracing_subscriber::EnvFilter;

use crate::calendar::wall_ms;

/// Lines that wait for the writer; a full queue drops and counts, it never blocks a worker.
const QUEUE_MAX: usize = 8_192;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Sends what the process says of itself to standard error, from `filter` on (`RUST_LOG` wins).
///
/// # Errors
/// When `filter` is malformed or logging was set up before.
pub fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(filter))
        .map_err(|error| error.to_string())?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A standard error that is closed must not be complained about there: that would panic.
    let subscriber = subscriber.log_internal_errors(false);
    let result = match format {
        LogFormat::Text => subscriber.with_target(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| error.to_string())
}

/// One request, for the access log.
#[derive(Debug)]
pub struct AccessLine {
    /// When it ended, in milliseconds since 1970.
    pub time_ms: u64,
    /// The client, as far as trusted proxies tell.
    pub client: IpAddr,
    /// The method.
    pub method: String,
    /// Host as the request means it.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The service.
    pub service: String,
    /// The track it was first assigned to.
    pub track: String,
    /// Why that track.
    pub reason: &'static str,
    /// The endpoint that answered, if one did.
    pub endpoint: Option<std::net::SocketAddr>,
    /// The status that was counted.
    pub status: u16,
    /// Bytes written to the client.
    pub bytes: u64,
    /// The whole request, in microseconds.
    pub duration_us: u64,
}

impl AccessLine {
    /// An empty line.
    #[must_use]
    pub fn new() -> Self {
        Self {
            time_ms: 0,
            client: IpAddr::from([0, 0, 0, 0]),
            method: String::new(),
            host: String::new(),
            path: String::new(),
            service: String::new(),
            track: String::new(),
            reason: "",
            endpoint: None,
            status: 0,
            bytes: 0,
            duration_us: 0,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "time_ms": self.time_ms,
            "client": self.client,
            "method": self.method,
            "host": self.host,
            "path": self.path,
            "app": self.service,
            "track": self.track,
            "reason": self.reason,
            "endpoint": self.endpoint,
            "status": self.status,
            "bytes": self.bytes,
            "duration_us": self.duration_us,
        })
    }
}

impl Default for AccessLine {
    fn default() -> Self {
        Self::new()
    }
}

/// The workers' end of the access log; clones share the queue.
#[derive(Clone, Debug)]
pub struct AccessLog(SyncSender<AccessLine>);

impl AccessLog {
    /// A log whose lines a thread of its own writes to standard output, as JSON.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let write = move || write_lines(&receiver, &mut std::io::stdout());
        std::thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(Self(sender))
    }

    /// Hands a line over; false when the queue is full or the writer gone, and the line lost.
    #[must_use]
    pub fn send(&self, mut line: AccessLine) -> bool {
        line.time_ms = wall_ms();
        match self.0.try_send(line) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Writes line after line, in batches while lines wait, until no sender is left or nobody reads any
/// more. What a full disk has no room for is lost; with room again the log goes on.
fn write_lines(receiver: &Receiver<AccessLine>, output: &mut impl Write) {
    let mut batch = Vec::new();
    let mut is_torn = false;
    while let Ok(first) = receiver.recv() {
        batch.clear();
        if is_torn {
            // A part of a line may have been written: only that one is spoilt.
            batch.push(b'\n');
        }
        for line in std::iter::once(first).chain(receiver.try_iter().take(QUEUE_MAX)) {
            // A Vec takes every write and the values are plain.
            let _ = serde_json::to_writer(&mut batch, &line.to_json());
            batch.push(b'\n');
        }
        let written = output.write_all(&batch).and_then(|()| output.flush());
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            return;
        }
        is_torn = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_says_so() {
        let (sender, receiver) = sync_channel(2);
        let log = AccessLog(sender);
        assert!(log.send(AccessLine::new()));
        assert!(log.send(AccessLine { path: "/\n\"".into(), ..AccessLine::new() }));
        assert!(!log.send(AccessLine::new()));
        drop(log);
        let mut output = Vec::new();
        write_lines(&receiver, &mut output);
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["path"], "/\n\"");
    }

    /// A disk that is full for one write; the next line comes after that.
    struct Full {
        log: Option<AccessLog>,
        written: Vec<u8>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if let Some(log) = self.log.take() {
                self.written.extend_from_slice(&bytes[..5]);
                assert!(log.send(AccessLine { path: "/after".into(), ..AccessLine::new() }));
                return Err(ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_with_room_again_gets_whole_lines_again() {
        let (sender, receiver) = sync_channel(2);
        let log = AccessLog(sender);
        assert!(log.send(AccessLine::new()));
        let mut output = Full { log: Some(log), written: Vec::new() };
        write_lines(&receiver, &mut output);
        let text = String::from_utf8(output.written).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["path"], "/after", "{text}");
    }
}
