//! A stream of an HTTP/2 connection to an upstream as a wire: takes an HTTP/1 request, reads as an
//! HTTP/1 response.

use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::client::{ResponseFuture, SendRequest};

use crate::http1::RequestHead;
use crate::http1::fields::Limits;
use crate::memory::Account;

use super::queue::Piece;
use super::receiver::{Receiver, Staged};
use super::sender::{Sender, broken, malformed};
use super::{UNSAYABLE, translate};

/// A stream's place among its connection's, until dropped.
pub trait Place {
    /// Something of an answer has come.
    fn heard(&self);
}

/// One request on an HTTP/2 connection.
pub struct Outbound {
    /// The connection, until the head is sent.
    connection: SendRequest<Piece>,
    /// Who pays for what waits.
    account: Option<Rc<Account>>,
    scheme: &'static str,
    /// For requests that name no host.
    authority: Box<str>,
    partial: Vec<u8>,
    sender: Option<Sender>,
    to_head: bool,
    response: Option<ResponseFuture>,
    interim: Staged,
    receiver: Option<Receiver>,
    /// Why nothing could be asked.
    fault: Option<ErrorKind>,
    place: Box<dyn Place>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Outbound").field("sender", &self.sender).finish_non_exhaustive()
    }
}

impl Outbound {
    /// A stream to be opened on `connection` with the first head that is written; `place` is kept
    /// as long as it lasts.
    #[must_use]
    pub fn new(
        connection: SendRequest<Piece>,
        scheme: &'static str,
        authority: &str,
        place: impl Place + 'static,
    ) -> Self {
        Self {
            connection,
            account: None,
            scheme,
            authority: authority.into(),
            partial: Vec::new(),
            sender: None,
            to_head: false,
            response: None,
            interim: Staged::default(),
            receiver: None,
            fault: None,
            place: Box::new(place),
        }
    }

    /// Takes everything, unless something taken before still waits.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.write(bytes);
        if let Err(error) = &written
            && self.response.is_none()
        {
            self.fault = Some(error.kind());
        }
        written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
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

    fn take_head(&mut self, bytes: &[u8]) -> Result<()> {
        let limits = Limits { head_bytes: 4 << 20, header_count: 4_096 };
        let mut fields = Vec::new();
        let head = RequestHead::parse(bytes, limits, &mut fields);
        let Some(head) = head.map_err(malformed)? else {
            self.partial.extend_from_slice(bytes);
            return Ok(());
        };
        let request = translate::request_from_wire(&head, self.scheme, &self.authority)
            .map_err(|error| Error::new(UNSAYABLE, error))?;
        self.to_head = head.method == b"HEAD";
        let body = head.body();
        let (response, stream) =
            self.connection.send_request(request, body.is_done()).map_err(broken)?;
        self.response = Some(response);
        let sender = self.sender.insert(Sender::new(stream, body));
        if let Some(account) = &self.account {
            sender.charge_to(account);
        }
        sender.write(&bytes[head.bytes.len()..])
    }

    /// Charges what waits to `account`.
    pub(super) fn charge_to(&mut self, account: &Rc<Account>) {
        self.account = Some(Rc::clone(account));
    }

    /// Bytes that wait in either direction, but those that the library has to send.
    pub(super) fn waiting(&mut self) -> usize {
        self.receiver.as_mut().map_or(0, Receiver::waiting)
            + self.partial.len()
            + self.sender.as_ref().map_or(0, Sender::waiting)
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

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        loop {
            let staged = self.interim.read(buffer);
            if staged > 0 {
                return Poll::Ready(Ok(staged));
            }
            if let Some(receiver) = &mut self.receiver {
                let read = receiver.poll_read(context, buffer);
                if read.is_ready() {
                    self.place.heard();
                }
                return read;
            }
            if let Some(fault) = self.fault {
                return Poll::Ready(Err(fault.into()));
            }
            // Nothing is answered before it is asked.
            let Some(response) = &mut self.response else { return Poll::Pending };
            if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
                let mut head = Vec::new();
                let parts = interim.into_parts().0;
                translate::response_to_wire(&mut head, &parts, false, self.to_head);
                self.interim = Staged::new(head);
                continue;
            }
            let response = match Pin::new(response).poll(context) {
                Poll::Ready(response) => response.map_err(broken)?,
                Poll::Pending => return Poll::Pending,
            };
            let (parts, stream) = response.into_parts();
            let mut head = Vec::with_capacity(256);
            let has_body = !stream.is_end_stream();
            let framing = translate::response_to_wire(&mut head, &parts, has_body, self.to_head);
            self.receiver = Some(Receiver::new(stream, head, framing));
        }
    }
}
