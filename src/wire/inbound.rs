//! A client's HTTP/2 stream as a wire: reads as an HTTP/1 request, takes an HTTP/1 response.

use std::io::Result;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;

use crate::http1::ResponseHead;
use crate::http1::fields::{Field, Limits};
use crate::memory::{Account, SCARCE_BYTES};

use super::queue::Piece;
use super::receiver::Receiver;
use super::sender::{Sender, broken, malformed};
use super::translate;

/// Fields of a usual head: room for these saves growing.
const FIELDS_USUAL: usize = 16;

/// One request of an HTTP/2 connection.
#[derive(Debug)]
pub struct Inbound {
    receiver: Receiver,
    respond: SendResponse<Piece>,
    account: Rc<Account>,
    /// The answer's body, once its head is sent.
    sender: Option<Sender>,
    /// A head that came in pieces.
    partial: Vec<u8>,
    to_head: bool,
    is_cut_short: bool,
}

impl Inbound {
    /// Takes over what an HTTP/2 connection accepted; what waits for its client is charged to
    /// `account`.
    #[must_use]
    pub fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Piece>,
        account: &Rc<Account>,
    ) -> Self {
        let (parts, stream) = request.into_parts();
        let mut head = Vec::with_capacity(256);
        let framing = translate::request_to_wire(&mut head, &parts, !stream.is_end_stream());
        Self {
            receiver: Receiver::new(stream, head, framing),
            respond,
            account: Rc::clone(account),
            sender: None,
            partial: Vec::new(),
            to_head: parts.method == http::Method::HEAD,
            is_cut_short: false,
        }
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        self.receiver.poll_read(context, buffer)
    }

    /// Takes everything, unless something taken before still waits.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> Result<usize> {
        if let Some(sender) = &mut self.sender {
            if sender.is_blocked() {
                return Ok(0);
            }
            sender.write(bytes)?;
        } else if self.partial.is_empty() {
            self.take_head(bytes)?;
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            self.take_head(&partial)?;
        }
        Ok(bytes.len())
    }

    fn take_head(&mut self, mut bytes: &[u8]) -> Result<()> {
        // The exchange has held the head to the configured limits; ours only end a runaway.
        let limits = Limits { head_bytes: 4 << 20, header_count: 4_096 };
        let mut fields: Vec<Field> = Vec::with_capacity(FIELDS_USUAL);
        while self.sender.is_none() {
            let head = ResponseHead::parse(bytes, limits, &mut fields);
            let Some(head) = head.map_err(malformed)? else {
                self.partial.extend_from_slice(bytes);
                return Ok(());
            };
            let response = translate::response_from_wire(&head).map_err(malformed)?;
            bytes = &bytes[head.bytes.len()..];
            if head.status < 200 {
                self.respond.send_informational(response).map_err(broken)?;
                continue;
            }
            let body = head.body(self.to_head);
            let stream = self.respond.send_response(response, body.is_done()).map_err(broken)?;
            self.sender.insert(Sender::new(stream, body)).charge_to(&self.account);
        }
        self.sender.as_mut().map_or(Ok(()), |sender| sender.write(bytes))
    }

    /// Whether something waits for room in the stream.
    pub(super) fn is_blocked(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::is_blocked)
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.sender {
            Some(sender) => sender.poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    /// How much may be taken from elsewhere to be written here, `most` at most.
    pub(super) fn poll_room(&mut self, context: &Context<'_>, most: usize) -> Poll<usize> {
        match &mut self.sender {
            Some(sender) => sender.poll_room(context, most),
            None if self.account.is_tight() => Poll::Ready(most.min(SCARCE_BYTES)),
            None => Poll::Ready(most),
        }
    }

    pub(super) fn leave_room(&mut self) {
        if let Some(sender) = &mut self.sender {
            sender.leave_room();
        }
    }

    /// Bytes that wait in either direction, but those that the library has to send.
    pub(super) fn waiting(&mut self) -> usize {
        self.receiver.waiting()
            + self.partial.len()
            + self.sender.as_ref().map_or(0, Sender::waiting)
    }

    /// Waits until the client has given the request up.
    pub(super) fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.sender {
            Some(sender) => sender.poll_reset(context),
            None => self.respond.poll_reset(context).map(|_| ()),
        }
    }

    pub(super) fn reset_on_close(&mut self) {
        self.is_cut_short = true;
    }
}

impl Drop for Inbound {
    /// An answer that did not come to its end is reset, so that it cannot look complete.
    fn drop(&mut self) {
        match &mut self.sender {
            Some(sender) => sender.close(self.is_cut_short),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}
