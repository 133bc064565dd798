//! The HTTP/1 wire, pure: heads are parsed and rewritten, bodies are framed; no I/O.
//!
//! Own code rather than a general parser because forwarding needs spans, not a header map: a head
//! is walked once, and the runs between the removed fields are copied as they came. What is
//! ambiguous is refused here, so that nothing behind this module ever guesses.

pub mod body;
pub mod edits;
pub mod fields;
pub mod grpc;
pub mod known;
pub mod owned;
pub mod reply;
pub mod request;
pub mod response;
pub mod rewrite;
pub mod traceparent;
pub mod trailers;

pub use body::{Body, BodyError, Taken};
pub use edits::Edits;
pub use fields::{Field, HeadError, Limits, Version};
pub use known::Known;
pub use owned::Owned;
pub use request::RequestHead;
pub use response::ResponseHead;
pub use traceparent::TraceParent;
