//! The sending half of an HTTP/2 stream, written as an HTTP/1 body: content as the windows allow,
//! the end, trailers.

use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::HeaderMap;

use crate::http1::Body;
use crate::memory::{Account, SCARCE_BYTES};

use super::queue::{Piece, Queue};
use super::{UNTOUCHED, translate};

/// A body on its way into a stream.
#[derive(Debug)]
pub(super) struct Sender {
    stream: SendStream<Piece>,
    queue: Rc<Queue>,
    body: Body,
    /// Chunked content without its framing, and trailers so far.
    content: Vec<u8>,
    trailers: Vec<u8>,
    /// What the windows had no room for.
    pending: BytesMut,
    end: End,
    /// Room was asked for and is given back where nothing comes to fill it.
    is_reserved: bool,
}

#[derive(Debug)]
enum End {
    Open,
    /// Behind what is pending, with these trailers.
    Due(Option<HeaderMap>),
    Sent,
}

impl Sender {
    /// A stream whose head is sent, with the end of the stream if `body` has nothing.
    pub(super) fn new(stream: SendStream<Piece>, body: Body) -> Self {
        let end = if body.is_done() { End::Sent } else { End::Open };
        let (content, trailers) = (Vec::new(), Vec::new());
        let (queue, pending) = (Rc::default(), BytesMut::new());
        Self { stream, queue, body, content, trailers, pending, end, is_reserved: false }
    }

    /// Charges what waits in it, in the library too, to `account`; to be called ahead of the body.
    pub(super) fn charge_to(&mut self, account: &Rc<Account>) {
        self.queue.charge_to(account);
    }

    /// How much may be taken from elsewhere to be written here, `most` at most: no more than the
    /// windows have room for, but a little always, because an end needs none. Where the client
    /// holds much already, what waits must go first.
    pub(super) fn poll_room(&mut self, context: &Context<'_>, most: usize) -> Poll<usize> {
        if self.is_ended() {
            return Poll::Ready(most);
        }
        if self.queue.is_tight() {
            return self.queue.poll_empty(context).map(|()| most.min(SCARCE_BYTES));
        }
        self.is_reserved = true;
        self.stream.reserve_capacity(most);
        Poll::Ready(self.stream.capacity().max(SCARCE_BYTES).min(most))
    }

    /// Leaves the room that was found to other streams, when nothing has come to fill it.
    pub(super) fn leave_room(&mut self) {
        if std::mem::take(&mut self.is_reserved) && !self.is_blocked() {
            self.stream.reserve_capacity(0);
        }
    }

    /// Bytes that wait for the windows.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Takes a piece of the body, framing included.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_ended() {
            return Ok(());
        }
        if !self.body.is_chunked() {
            let used = self.body.read(bytes, None).map_err(malformed)?;
            return self.push(&bytes[..used], self.body.is_done());
        }
        let mut content = std::mem::take(&mut self.content);
        content.clear();
        let taken = self.body.read_parts(bytes, Some(&mut content), &mut self.trailers);
        taken.map_err(malformed)?;
        let is_done = self.body.is_done();
        let has_trailers = !self.trailers.is_empty();
        self.push(&content, is_done && !has_trailers)?;
        self.content = content;
        if is_done && has_trailers {
            self.finish(Some(translate::trailers_from_wire(&self.trailers)))?;
        }
        Ok(())
    }

    /// Ends the stream, or resets it where that would make a part look like the whole.
    pub(super) fn close(&mut self, is_cut_short: bool) {
        if self.is_ended() {
            return;
        }
        // The other side may be gone; then nobody is left to see the end.
        let may_end = self.body.is_until_close() && !is_cut_short;
        if !may_end || self.finish(None).is_err() {
            self.reset();
        }
    }

    /// Whether something waits for room.
    pub(super) fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    fn is_ended(&self) -> bool {
        !matches!(self.end, End::Open)
    }

    /// Sends what there is room for and keeps the rest. `is_last`: nothing follows, no trailers.
    fn push(&mut self, data: &[u8], is_last: bool) -> Result<()> {
        let mut sent = 0;
        if !self.is_blocked() && !data.is_empty() {
            self.is_reserved = false;
            self.stream.reserve_capacity(data.len());
            sent = self.stream.capacity().min(data.len());
            let is_end = is_last && sent == data.len();
            if sent > 0 {
                self.send(Bytes::copy_from_slice(&data[..sent]), is_end)?;
            }
            if is_end {
                self.end = End::Sent;
                return Ok(());
            }
        }
        self.pending.extend_from_slice(&data[sent..]);
        if is_last { self.finish(None) } else { Ok(()) }
    }

    /// Ends the stream behind what is pending.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<()> {
        if matches!(self.end, End::Open) {
            self.end = End::Due(trailers);
        }
        if self.is_blocked() { Ok(()) } else { self.send_end() }
    }

    fn send(&mut self, data: Bytes, is_end: bool) -> Result<()> {
        self.stream.send_data(Piece::new(data, &self.queue), is_end).map_err(broken)
    }

    fn send_end(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.end, End::Sent) {
            End::Due(Some(trailers)) => self.stream.send_trailers(trailers).map_err(broken),
            End::Due(None) => self.send(Bytes::new(), true),
            before => {
                self.end = before;
                Ok(())
            }
        }
    }

    /// Waits until nothing is pending.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while self.is_blocked() {
            self.stream.reserve_capacity(self.pending.len());
            let room = self.stream.capacity().min(self.pending.len());
            if room > 0 {
                let piece = self.pending.split_to(room).freeze();
                self.send(piece, false)?;
                continue;
            }
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                Poll::Ready(None) => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(self.send_end())
    }

    /// Waits until the other side has reset the stream.
    pub(super) fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(context).map(|_| ())
    }

    fn reset(&mut self) {
        self.stream.send_reset(Reason::INTERNAL_ERROR);
        self.end = End::Sent;
        self.pending.clear();
    }
}

/// Bytes that the exchange should not have written.
pub(super) fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}

/// A stream's error as a socket's.
pub(super) fn broken(error: h2::Error) -> Error {
    // Refused, or behind the last stream that a connection going away has looked at: the other
    // side promises not to have acted upon it (RFC 9113 §8.7).
    let is_untouched = error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR));
    if is_untouched {
        return Error::new(UNTOUCHED, error);
    }
    Error::new(ErrorKind::ConnectionReset, error)
}
