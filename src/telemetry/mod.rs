//! What is told of requests and of the process: logs, a line per request, spans of some requests.
//!
//! Workers hand over what they measured and go on; a thread of its own writes or sends it.

mod access;
mod client;
mod format;
mod line;
mod trace;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

pub use access::{AccessLine, AccessLog};
pub use client::ClientAddress;
pub use format::AccessFormat;
pub use trace::{Attempt, Trace, TraceId, Traced, Traces, Waiting};

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
    let wished = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let wished = wished.filter(|wished| EnvFilter::try_new(wished).is_ok());
    let filter = quiet(wished.as_deref().unwrap_or(filter));
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A standard error that is closed must not be complained about there: that would panic.
    let subscriber = subscriber.log_internal_errors(false).event_format(line::Lines(format));
    subscriber.try_init().map_err(|error| error.to_string())
}

/// The filter without what the HTTP/2 library warns of: any stranger makes it say so, a line per
/// frame. What matters of it we count and say ourselves. Who asks for the library by name gets it all.
fn quiet(filter: &str) -> String {
    let names_it = filter.split([',', '=', ':']).any(|word| word.trim() == "h2");
    match filter.trim() {
        filter if names_it => filter.to_owned(),
        "" => "error".to_owned(),
        filter => format!("{filter},h2=error"),
    }
}

/// What is known of a request at its end. As JSON it has these members, in this order.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// When it ended, in milliseconds since 1970.
    pub time_ms: u64,
    /// The client, as far as trusted proxies tell.
    pub client: ClientAddress,
    /// The method.
    pub method: String,
    /// Host as the request means it.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The client's version of HTTP: `HTTP/1.1`.
    pub protocol: &'static str,
    /// The service.
    #[serde(rename = "app")]
    pub service: String,
    /// The track it was first assigned to.
    pub track: String,
    /// Why that track.
    pub reason: &'static str,
    /// The endpoint that answered, if one did.
    pub endpoint: Option<SocketAddr>,
    /// The status that was counted.
    pub status: u16,
    /// Bytes written to the client, head included.
    pub bytes: u64,
    /// The whole request, in microseconds.
    pub duration_us: u64,
    /// Its trace, where it is traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            time_ms: 0,
            client: ClientAddress(None),
            method: String::new(),
            host: String::new(),
            path: String::new(),
            protocol: "",
            service: String::new(),
            track: String::new(),
            reason: "",
            endpoint: None,
            status: 0,
            bytes: 0,
            duration_us: 0,
            trace_id: None,
        }
    }
}

/// A request that is told of, collected while it is under way.
#[derive(Debug)]
pub struct Told {
    /// What is known of it.
    pub facts: Facts,
    /// How a line of the access log is written, and the fields that it wants.
    pub line: Option<(Arc<AccessFormat>, Vec<String>)>,
    /// Its spans.
    pub trace: Option<Trace>,
}

/// Where requests are told of; clones share the queues.
#[derive(Clone, Debug)]
pub struct Outlets {
    /// Lines.
    pub access_log: AccessLog,
    /// Spans.
    pub traces: Traces,
}

/// What was lost of a request because too much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Its line.
    pub line: bool,
    /// Its spans.
    pub trace: bool,
}

impl Outlets {
    /// Hands a request over. Never waits.
    #[must_use]
    pub fn tell(&self, told: Told) -> Lost {
        let Told { facts, line, trace } = told;
        let mut lost = Lost::default();
        if let Some(trace) = trace {
            lost.trace = !self.traces.send(Traced { facts: facts.clone(), trace });
        }
        if let Some((format, fields)) = line {
            lost.line = !self.access_log.send(AccessLine { format, facts, fields });
        }
        lost
    }
}
