//! Trailers of either direction, held to what their message's head was held to.

use crate::http1::{BodyError, Edits, Taken, trailers};
use crate::state::Service;

use super::exchange::Exchange;
use super::failure::Failure;
use super::intake::Request;

/// What we say in a request's head ourselves, or leave as it came there.
const OF_REQUESTS: [&[u8]; 3] = [b"x-request-id", b"traceparent", b"tracestate"];

/// Appends what goes on of a request's trailers. A guarded field never does: whoever may say it says
/// it in the head, where rules read it.
#[cold]
pub(super) fn forward(
    out: &mut Vec<u8>,
    raw: &[u8],
    service: &Service,
    rule: Option<usize>,
) -> Result<(), BodyError> {
    let guards = service.guarded.iter().map(|(_, edits)| edits);
    let of_rule = rule.map(|rule| &service.rules[rule].edits.request);
    let all = || guards.clone().chain(of_rule).chain([&service.edits.request]);
    trailers::write(out, raw, |name| {
        OF_REQUESTS.iter().any(|one| one.eq_ignore_ascii_case(name))
            || service.owned.request.has(name)
            || all().any(|edits: &Edits| edits.removes(name))
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
        let forwarded = forward(&mut self.out, &self.trailers, &self.service.shared, self.rule);
        forwarded.map_err(|_| Failure::BadChunk)
    }
}

impl Exchange<'_> {
    /// Appends what goes on of the answer's trailers to `out`.
    #[cold]
    pub(super) fn return_trailers(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let service = &self.request.service.shared;
        let of_rule = self.request.rule.map(|rule| &service.rules[rule].edits.response);
        let all = || of_rule.into_iter().chain([&service.edits.response]);
        trailers::write(out, &self.trailers, |name| {
            service.owned.response.has(name) || all().any(|edits: &Edits| edits.removes(name))
        })
    }
}
