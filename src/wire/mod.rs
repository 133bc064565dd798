//! One byte stream, downstream's or upstream's, with the few calls that an exchange makes on it.
//!
//! Every wire speaks HTTP/1 to the exchange, whatever is spoken outside: a plain socket, a socket
//! under TLS, or one stream of an HTTP/2 connection, which is translated here, head by head and
//! frame by frame. So routing, strictness, retries and outcomes exist once.
//!
//! Reads poll (tokio drops readiness after a short read, so no read ends in EAGAIN); writes are
//! tried at once and wait only for what did not go.

pub mod guard;
mod inbound;
pub mod io;
mod outbound;
pub mod proxied;
mod queue;
mod receiver;
mod sender;
mod tls;
pub mod translate;

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::memory::Account;

pub use inbound::Inbound;
pub use io::{Flusher, Gathering, Io};
pub use outbound::{Outbound, Place};
pub use queue::Piece;
pub use tls::TlsWire;

/// The kind of error of a request that the other side promises not to have looked at: it may be
/// sent again whatever it is.
pub const UNTOUCHED: ErrorKind = ErrorKind::ConnectionAborted;

/// The kind of error of a request that the protocol of the other side has no words for.
pub const UNSAYABLE: ErrorKind = ErrorKind::InvalidInput;

/// A connected byte stream.
#[derive(Debug)]
pub struct Wire(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Tls(Box<TlsWire>),
    /// A client's stream of an HTTP/2 connection.
    Inbound(Box<Inbound>),
    /// A stream of an HTTP/2 connection to an upstream.
    Outbound(Box<Outbound>),
}

/// What the other side of an idle or waiting wire has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// Bytes wait to be read.
    Bytes,
    /// It will send no more.
    Closed,
    /// The connection is broken.
    Broken,
}

impl Wire {
    /// Takes a connected stream over; small writes leave at once from now on.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        send_at_once(&stream);
        Self(Kind::Tcp(stream))
    }

    /// Takes a stream over on which TLS is agreed.
    #[must_use]
    pub fn tls(wire: TlsWire) -> Self {
        Self(Kind::Tls(Box::new(wire)))
    }

    /// A client's stream of an HTTP/2 connection.
    #[must_use]
    pub fn inbound(stream: Inbound) -> Self {
        Self(Kind::Inbound(Box::new(stream)))
    }

    /// A stream of an HTTP/2 connection to an upstream.
    #[must_use]
    pub fn outbound(stream: Outbound) -> Self {
        Self(Kind::Outbound(Box::new(stream)))
    }

    /// Whether HTTP/2 was agreed on.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(&self.0, Kind::Tls(wire) if wire.is_http2())
    }

    /// Whether it is a stream among others of one connection, and carries one request only.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Inbound(_) | Kind::Outbound(_))
    }

    /// The connection below, for whoever speaks another protocol on it; `None` for a stream.
    /// `read` was read from it already.
    #[must_use]
    pub fn into_io(self, read: Vec<u8>) -> Option<Io> {
        match self.0 {
            Kind::Tcp(stream) => Some(Io::plain(read, stream)),
            Kind::Tls(wire) => Some(wire.into_io(read)),
            Kind::Inbound(_) | Kind::Outbound(_) => None,
        }
    }

    /// The socket itself, where what still comes is for nobody; a stream stays what it is.
    #[must_use]
    pub fn into_bare(self) -> Self {
        match self.0 {
            Kind::Tls(wire) => Self(Kind::Tcp(wire.into_socket())),
            kind => Self(kind),
        }
    }

    /// Reads into `buffer`; 0 bytes mean that the other side sends no more.
    ///
    /// # Errors
    /// The socket's, TLS's or the stream's.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(stream) => poll_read(stream, context, buffer),
            Kind::Tls(wire) => wire.poll_read(context, buffer),
            Kind::Inbound(stream) => stream.poll_read(context, buffer),
            Kind::Outbound(stream) => stream.poll_read(context, buffer),
        }
    }

    /// Writes what is taken at once, possibly nothing.
    ///
    /// # Errors
    /// The socket's, TLS's or the stream's.
    pub fn try_write(&mut self, bytes: &[u8]) -> Result<usize> {
        match &mut self.0 {
            Kind::Tcp(stream) => match stream.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                result => result,
            },
            Kind::Tls(wire) => wire.try_write(&[IoSlice::new(bytes)]),
            Kind::Inbound(stream) => stream.try_write(bytes),
            Kind::Outbound(stream) => stream.try_write(bytes),
        }
    }

    /// Writes what is taken at once of `head` and then `body`.
    ///
    /// # Errors
    /// The socket's, TLS's or the stream's.
    pub fn try_write_two(&mut self, head: &[u8], body: &[u8]) -> Result<usize> {
        let both = [IoSlice::new(head), IoSlice::new(body)];
        match &mut self.0 {
            Kind::Tcp(stream) => match stream.try_write_vectored(&both) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                result => result,
            },
            Kind::Tls(wire) => wire.try_write(&both),
            Kind::Inbound(stream) => {
                let written = stream.try_write(head)?;
                let more = if written == head.len() { stream.try_write(body)? } else { 0 };
                Ok(written + more)
            }
            Kind::Outbound(_) => unreachable!("requests are written in one piece"),
        }
    }

    /// Writes `bytes[*written..]`, waiting for room as often as it takes, and sees to it that
    /// nothing written before waits in between.
    ///
    /// # Errors
    /// The socket's, TLS's or the stream's.
    pub fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<Result<()>> {
        while *written < bytes.len() {
            *written += self.try_write(&bytes[*written..])?;
            if *written < bytes.len() {
                match self.poll_writable(context) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        match &mut self.0 {
            Kind::Tcp(_) => Poll::Ready(Ok(())),
            Kind::Tls(wire) => wire.poll_flush(context),
            Kind::Inbound(stream) => stream.poll_flush(context),
            Kind::Outbound(stream) => stream.poll_flush(context),
        }
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => stream.poll_write_ready(context),
            Kind::Tls(wire) => wire.poll_flush(context),
            Kind::Inbound(stream) => stream.poll_flush(context),
            Kind::Outbound(stream) => stream.poll_flush(context),
        }
    }

    /// Whether something taken by a write waits for the other side to take it.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        match &self.0 {
            Kind::Tcp(_) => false,
            Kind::Tls(wire) => wire.is_blocked(),
            Kind::Inbound(stream) => stream.is_blocked(),
            Kind::Outbound(stream) => stream.is_blocked(),
        }
    }

    /// How much may be taken from elsewhere to be written here, `most` at most. A socket does not
    /// tell; what it does not take its writer keeps.
    pub fn poll_room(&mut self, context: &Context<'_>, most: usize) -> Poll<usize> {
        match &mut self.0 {
            Kind::Inbound(stream) => stream.poll_room(context, most),
            Kind::Tcp(_) | Kind::Tls(_) | Kind::Outbound(_) => Poll::Ready(most),
        }
    }

    /// Leaves the room that was found to others, when nothing has come to fill it.
    pub fn leave_room(&mut self) {
        if let Kind::Inbound(stream) = &mut self.0 {
            stream.leave_room();
        }
    }

    /// Bytes that wait inside of a stream, in either direction.
    pub fn waiting(&mut self) -> usize {
        match &mut self.0 {
            Kind::Tcp(_) | Kind::Tls(_) => 0,
            Kind::Inbound(stream) => stream.waiting(),
            Kind::Outbound(stream) => stream.waiting(),
        }
    }

    /// Charges what waits inside of a stream to an upstream to `account`.
    pub fn charge_to(&mut self, account: &Rc<Account>) {
        if let Kind::Outbound(stream) = &mut self.0 {
            stream.charge_to(account);
        }
    }

    /// Waits until the other side does something, without taking it.
    pub fn poll_peek(&mut self, context: &mut Context<'_>) -> Poll<Peeked> {
        match &mut self.0 {
            Kind::Tcp(stream) => {
                let mut byte = [0];
                stream.poll_peek(context, &mut ReadBuf::new(&mut byte)).map(|peeked| match peeked {
                    Ok(0) => Peeked::Closed,
                    Ok(_) => Peeked::Bytes,
                    Err(_) => Peeked::Broken,
                })
            }
            Kind::Tls(wire) => wire.poll_peek(context),
            Kind::Inbound(stream) => stream.poll_reset(context).map(|()| Peeked::Broken),
            Kind::Outbound(_) => Poll::Pending,
        }
    }

    /// Whether the other side has said that it sends no more, though bytes ahead of that may be
    /// unread. A stream says so by a reset only.
    pub fn has_left(&mut self) -> bool {
        let stream = match &mut self.0 {
            Kind::Tcp(stream) => &*stream,
            Kind::Tls(wire) => wire.socket(),
            Kind::Inbound(stream) => {
                return stream.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready();
            }
            Kind::Outbound(_) => return false,
        };
        let ready = std::pin::pin!(stream.ready(Interest::READABLE));
        let ready = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Whether an idle wire is still quiet: a close or stray bytes make it useless.
    ///
    /// Costs no system call while the runtime has seen nothing arrive.
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        match &mut self.0 {
            Kind::Tcp(stream) => {
                let read = stream.try_read(&mut [0]);
                matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            // Session tickets may come at any time; they are taken and say nothing.
            Kind::Tls(wire) => wire.poll_peek(&mut Context::from_waker(Waker::noop())).is_pending(),
            Kind::Inbound(_) | Kind::Outbound(_) => false,
        }
    }

    /// Says that no more will be written, behind all that was.
    ///
    /// # Errors
    /// The socket's; the other side may be gone already.
    pub fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Kind::Tls(wire) => wire.poll_close(context),
            Kind::Inbound(_) | Kind::Outbound(_) => Poll::Ready(Ok(())),
        }
    }

    /// Makes the coming close a reset, so that what was cut short cannot look complete.
    pub fn reset_on_close(&mut self) {
        // Where the option fails the close is an ordinary one, as for any server that dies.
        let reset = |stream: &TcpStream| {
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        };
        match &mut self.0 {
            Kind::Tcp(stream) => reset(stream),
            Kind::Tls(wire) => reset(wire.socket()),
            Kind::Inbound(stream) => stream.reset_on_close(),
            Kind::Outbound(_) => {}
        }
    }
}

/// A head and a late body would otherwise wait for an acknowledgement; failure to say so costs
/// latency only.
pub(crate) fn send_at_once(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

fn poll_read(
    stream: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    match Pin::new(stream).poll_read(context, &mut buffer) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().len())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}
