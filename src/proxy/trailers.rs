//! Trailers of either direction, held to what their message's head was held to.

use crate::http1::{BodyError, Taken, trailers};
use crate::state::Service;

use super::exchange::Exchange;
use super::failure::Failure;
use super::intake::Request;

/// What we say in a request's head ourselves, or leave as it came there.
const OF_REQUESTS: [&[u8]; 3] = [b"x-request-id", b"traceparent", b"tracestate"];

/// Appends what goes on of a request's trailers. What the configuration sets, removes, guards or
/// goes by never does: whoever may say it says it in the head, where rules read it.
#[cold]
pub(super) fn forward(out: &mut Vec<u8>, raw: &[u8], service: &Service) -> Result<(), BodyError> {
    trailers::write(out, raw, |name| {
        OF_REQUESTS.iter().any(|one| one.eq_ignore_ascii_case(name))
            || service.owned.request.has(name)
    })
}

impl Request {
    /// Takes what belongs to the body from the start of `read`, and sets trailers aside.
    pub(super) fn take(&mut self, read: &[u8]) -> Result<Taken, Failure> {
        let taken = self.body.read_parts(read, None, &mut self.trailers);
        let taken = taken.map_err(|_| Failure::BadChunk)?;
        let left = self.body_bytes_left.checked_sub(taken.used as u64);
        self.body_bytes_left = left.ok_or(Failure::BodyTooLarge)?;
        Ok(taken)
    }

    /// Appends the trailers, once they are whole, to what is sent.
    pub(super) fn forward_trailers(&mut self) -> Result<(), Failure> {
        if self.trailers.is_empty() || !self.body.is_done() {
            return Ok(());
        }
        let forwarded = forward(&mut self.out, &self.trailers, &self.service.shared);
        forwarded.map_err(|_| Failure::BadChunk)
    }
}

impl Exchange<'_> {
    /// Appends what goes on of the answer's trailers to `out`.
    #[cold]
    pub(super) fn return_trailers(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let owned = &self.request.service.shared.owned.response;
        trailers::write(out, &self.trailers, |name| owned.has(name))
    }
}
