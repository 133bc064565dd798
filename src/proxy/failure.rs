//! What can go wrong with a request, whose doing it is, and the one place that maps it to a
//! status, a label and an outcome.

use crate::http1::{HeadError, grpc, reply};
use crate::record::outcome::End;

/// Why a request got no answer from its upstream, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The client's head is refused.
    #[error("bad request: {0}")]
    BadHead(HeadError),
    /// The client's chunk framing is refused.
    #[error("bad request: chunk framing is malformed")]
    BadChunk,
    /// The client's body is larger than allowed.
    #[error("request body is too large")]
    BodyTooLarge,
    /// The client took too long for its head.
    #[error("request head came too slowly")]
    HeadTimeout,
    /// The client took too long for its body.
    #[error("request body came too slowly")]
    BodyTimeout,
    /// CONNECT makes a forward proxy; this is none.
    #[error("method connect is not served")]
    Connect,
    /// Its source, or whatever its rate goes by, asks too often.
    #[error("too many requests")]
    RateLimited,
    /// The track has as many requests under way as it may.
    #[error("track is at its limit")]
    Shed,
    /// No service has this host and path.
    #[error("no service for this host and path")]
    NoService,
    /// The track has no address at all.
    #[error("track has no endpoint")]
    NoEndpoint,
    /// Every endpoint tried has its most connections open.
    #[error("endpoint connections are exhausted")]
    Exhausted,
    /// No endpoint tried could be connected.
    #[error("upstream connect failed")]
    Connecting,
    /// No endpoint tried could be connected in time.
    #[error("upstream connect timed out")]
    ConnectTimeout,
    /// The upstream closed or reset the connection before its whole answer.
    #[error("upstream closed early")]
    UpstreamClosed,
    /// The upstream refused the stream, without having looked at it.
    #[error("upstream refused the stream")]
    StreamRefused,
    /// The upstream's answer is not passed on, because another is tried for.
    #[error("upstream answered {0}")]
    Unwanted(u16),
    /// The upstream took too long, or the whole exchange did.
    #[error("upstream timed out")]
    UpstreamTimeout,
    /// The upstream's answer is no HTTP/1 we can pass on.
    #[error("upstream answer is malformed")]
    BadAnswer,
    /// Its version was rolled back, and the time to finish is over.
    #[error("version was rolled back")]
    Evicted,
    /// The client left before the response head, or stopped reading.
    #[error("client left")]
    ClientLeft,
    /// The client left in the middle of its body.
    #[error("client left within its body")]
    ClientLeftSending,
}

impl Failure {
    /// Failures that are counted before any track is known, in the order of their counters.
    pub const REFUSALS: [&'static str; 11] = [
        "bad_head",
        "head_too_large",
        "bad_chunk",
        "body_too_large",
        "head_timeout",
        "connect_method",
        "no_service",
        "other",
        "http2_flood",
        "proxy_header",
        "rate_limited",
    ];

    /// The position of a connection without its PROXY header in [`Self::REFUSALS`].
    pub const PROXY_HEADER: usize = 9;

    /// The position of a flood of frames in [`Self::REFUSALS`].
    pub const FLOOD: usize = 8;

    /// The position of this refusal in [`Self::REFUSALS`].
    #[must_use]
    pub fn refusal(self) -> usize {
        match self {
            Self::BadHead(HeadError::TooLong | HeadError::TooManyFields) => 1,
            Self::BadHead(_) => 0,
            Self::BadChunk => 2,
            Self::BodyTooLarge => 3,
            Self::HeadTimeout => 4,
            Self::Connect => 5,
            Self::NoService => 6,
            Self::RateLimited => 10,
            _ => 7,
        }
    }

    /// The status of our own reply; 499 is counted and never sent.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadHead(HeadError::TooLong | HeadError::TooManyFields) => 431,
            Self::BadHead(HeadError::Version) => 505,
            Self::BadHead(_) | Self::BadChunk => 400,
            Self::BodyTooLarge => 413,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::Connect => 405,
            Self::NoService => 404,
            Self::RateLimited => 429,
            Self::Shed | Self::NoEndpoint | Self::Exhausted | Self::Evicted => 503,
            Self::Connecting | Self::UpstreamClosed | Self::StreamRefused | Self::BadAnswer => 502,
            Self::Unwanted(status) => status,
            Self::ConnectTimeout | Self::UpstreamTimeout => 504,
            Self::ClientLeft | Self::ClientLeftSending => 499,
        }
    }

    /// The status of our own reply to a gRPC client.
    #[must_use]
    pub fn grpc_status(self) -> u8 {
        match self.status() {
            404 | 405 => grpc::UNIMPLEMENTED,
            408 | 504 => grpc::DEADLINE_EXCEEDED,
            429 => grpc::RESOURCE_EXHAUSTED,
            502 | 503 => grpc::UNAVAILABLE,
            _ => grpc::INTERNAL,
        }
    }

    /// Appends our own reply.
    pub fn write(self, out: &mut Vec<u8>, keep_alive: bool, to_head: bool, is_grpc: bool) {
        let text = self.to_string();
        if is_grpc {
            grpc::write_reply(out, self.grpc_status(), &text, keep_alive);
        } else {
            let may_come_again = matches!(self, Self::RateLimited | Self::Shed);
            let more = if may_come_again { "retry-after: 1\r\n" } else { "" };
            reply::write(out, (self.status(), &text), more, keep_alive, to_head);
        }
    }

    /// Whether no endpoint could be connected, so that nothing was sent.
    #[must_use]
    pub fn is_connect(self) -> bool {
        matches!(self, Self::NoEndpoint | Self::Exhausted | Self::Connecting | Self::ConnectTimeout)
    }

    /// Whose doing it is.
    #[must_use]
    pub fn end(self) -> End {
        match self {
            Self::Shed
            | Self::NoEndpoint
            | Self::Exhausted
            | Self::Connecting
            | Self::ConnectTimeout
            | Self::UpstreamClosed
            | Self::StreamRefused
            | Self::Unwanted(_)
            | Self::UpstreamTimeout
            | Self::BadAnswer => End::Failed,
            Self::ClientLeft => End::ClientLeft,
            _ => End::Pardoned,
        }
    }
}
