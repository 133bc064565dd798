//! What can go wrong with a request, and the one place that maps it to a status and a label; whose
//! doing it is is `proxy::fault`'s to say.

use crate::http1::reply::{self, Terms};
use crate::http1::{HeadError, grpc};
use crate::record::live::ANSWER_FAULTS;
use crate::route::path::Ambiguity;

/// The status of a client that takes no answer; counted and never sent.
pub const CLIENT_LEFT: u16 = 499;

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
    /// Servers read the client's path differently, and a path decides where it went.
    #[error("path is ambiguous: it has {0}, which servers read differently; ask without it")]
    AmbiguousPath(Ambiguity),
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
    /// The track speaks HTTP/2, which has no words for this request.
    #[error("bad request: http/2, which its version speaks, cannot say it")]
    Unsayable,
    /// The upstream's answer is not passed on, because another is tried for.
    #[error("upstream answered {0}")]
    Unwanted(u16),
    /// The upstream took too long, or the whole exchange did.
    #[error("upstream timed out")]
    UpstreamTimeout,
    /// The upstream's answer is none that we can pass on.
    #[error("upstream answer {0}")]
    BadAnswer(AnswerFault),
    /// The time that the client itself allows is over.
    #[error("time that the client allows is over")]
    ClientDeadline,
    /// The time for the whole exchange is over, and most of it went by on the client.
    #[error("request took too long")]
    HeldUp,
    /// The upstream closed after most of the time had gone by on the client.
    #[error("upstream gave up on a client that kept it waiting")]
    GaveUp,
    /// The upstream switched protocols ahead of the whole request, as the client asked it to.
    #[error("upstream switched protocols ahead of the whole request")]
    EarlySwitch,
    /// We have no file descriptor, port or buffer left for a connection to the upstream.
    #[error("gateway has no room for an upstream connection")]
    Descriptors,
    /// Its version was rolled back, and the time to finish is over.
    #[error("version was rolled back")]
    Evicted,
    /// Memory is short, and the client's source holds the most of it.
    #[error("memory is short")]
    Memory,
    /// The client left before it had its answer.
    #[error("client left")]
    ClientLeft,
    /// The client does not take its answer.
    #[error("client takes no answer")]
    ClientStalled,
    /// The client left in the middle of its body.
    #[error("client left within its body")]
    ClientLeftSending,
}

/// What may be asked for where CONNECT may not; servers may know less, or more.
const ALLOW: &str = "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";

/// Why an upstream's answer is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Its head passes a limit or is malformed.
    #[error("{}", of_head(*.0))]
    Head(HeadError),
    /// It brings too many heads that are not final.
    #[error("is malformed: too many interim answers")]
    Interim,
    /// It switches protocols, and nobody asked for that.
    #[error("is malformed: it switches protocols unasked")]
    Switch,
    /// The framing of its body is malformed.
    #[error("is malformed: chunk framing is malformed")]
    Chunk,
}

/// A limit is the operator's to raise, the rest is the server's to mend.
fn of_head(error: HeadError) -> String {
    match error {
        HeadError::TooLong => "has a head larger than limits.head; raise it".to_owned(),
        HeadError::TooManyFields => "has more fields than limits.headers; raise it".to_owned(),
        error => format!("is malformed: {error}"),
    }
}

impl AnswerFault {
    /// The labels of these faults, in the order of their counters.
    pub const LABELS: [&'static str; ANSWER_FAULTS] = [
        "head_too_large",
        "too_many_fields",
        "content_length",
        "transfer_encoding",
        "malformed_head",
        "interim",
        "switch",
        "chunk",
    ];

    /// The position of this fault in [`Self::LABELS`].
    #[must_use]
    pub fn position(self) -> usize {
        match self {
            Self::Head(HeadError::TooLong) => 0,
            Self::Head(HeadError::TooManyFields) => 1,
            Self::Head(HeadError::ContentLength) => 2,
            Self::Head(HeadError::TransferEncoding | HeadError::TwoFramings) => 3,
            Self::Head(_) => 4,
            Self::Interim => 5,
            Self::Switch => 6,
            Self::Chunk => 7,
        }
    }
}

impl Failure {
    /// Failures that are counted before any track is known, in the order of their counters.
    pub const REFUSALS: [&'static str; 13] = [
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
        "ambiguous_path",
        "memory",
    ];

    /// The position of a stream whose connection holds too much in [`Self::REFUSALS`].
    pub const MEMORY: usize = 12;

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
            Self::AmbiguousPath(_) => 11,
            _ => 7,
        }
    }

    /// The status of our own reply; 499 is counted and never sent.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadHead(HeadError::TooLong | HeadError::TooManyFields) => 431,
            Self::BadHead(HeadError::Version) => 505,
            Self::BadHead(_) | Self::BadChunk | Self::Unsayable | Self::AmbiguousPath(_) => 400,
            Self::BodyTooLarge => 413,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::Connect => 405,
            Self::NoService => 404,
            Self::RateLimited => 429,
            Self::Shed
            | Self::NoEndpoint
            | Self::Exhausted
            | Self::Descriptors
            | Self::Memory
            | Self::Evicted => 503,
            Self::Connecting
            | Self::UpstreamClosed
            | Self::GaveUp
            | Self::EarlySwitch
            | Self::StreamRefused
            | Self::BadAnswer(_) => 502,
            Self::Unwanted(status) => status,
            Self::ConnectTimeout | Self::UpstreamTimeout | Self::ClientDeadline | Self::HeldUp => {
                504
            }
            Self::ClientLeft | Self::ClientStalled | Self::ClientLeftSending => CLIENT_LEFT,
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
    pub fn write(self, out: &mut Vec<u8>, terms: &Terms<'_>, is_grpc: bool) {
        let text = self.to_string();
        if is_grpc {
            grpc::write_reply(out, self.grpc_status(), &text, terms);
            return;
        }
        let more = match self {
            Self::RateLimited | Self::Shed => "retry-after: 1\r\n",
            Self::Connect => ALLOW,
            _ => "",
        };
        reply::write(out, (self.status(), &text), more, terms);
    }

    /// Whether no endpoint could be connected, so that another track's may be; without room of our
    /// own none can.
    #[must_use]
    pub fn is_connect(self) -> bool {
        matches!(self, Self::NoEndpoint | Self::Exhausted | Self::Connecting | Self::ConnectTimeout)
    }
}
