//! What one worker counts of its clients, before any track is known.

use crate::record::Counter;

use super::failure::Failure;

/// One worker's counts.
#[derive(Debug, Default)]
pub struct DownstreamCounters {
    /// Connections taken over from the listener.
    pub opened: Counter,
    /// Of these, closed.
    pub closed: Counter,
    /// Requests refused, by the position in [`Failure::REFUSALS`].
    pub refused: [Counter; Failure::REFUSALS.len()],
    /// Requests in the clear that were sent to HTTPS.
    pub redirects: Counter,
    /// Requests whose client a trusted proxy told by what is no address.
    pub unknown_sources: Counter,
    /// Connections on which no TLS could be agreed.
    pub tls_failures: Counter,
    /// Access-log lines that found the queue full.
    pub log_dropped: Counter,
    /// Traced requests that found the queue full.
    pub traces_dropped: Counter,
}
