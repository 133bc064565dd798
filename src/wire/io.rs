//! A connection as HTTP/2 needs it: what was read already first, frames counted, writes gathered.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::guard::Guard;
use super::{TlsWire, Wire};

/// Pieces up to this are gathered and sent together: answers of many requests that are ready at the
/// same time leave in one write, and under TLS in one record.
const GATHERED_MAX: usize = 16 * 1024;
/// Most that is read at once for a client: what came is looked at before more is. Otherwise all of
/// its requests would be held by the library before the first of them is taken or refused.
const READ_TURN_BYTES: usize = 64 * 1024;
/// Pieces of one write; the library gives two.
const PIECES_MAX: usize = 8;

/// A connection below HTTP/2.
#[derive(Debug)]
pub struct Io {
    /// Read before this protocol was known.
    ahead: Vec<u8>,
    used: usize,
    stream: Stream,
    guard: Option<Guard>,
    /// Bytes that the socket took.
    sent: u64,
    /// Read since somebody else had a turn.
    turn: usize,
    /// Written and not sent; `None` while everything is sent at once.
    gathered: Option<Gathered>,
}

/// A connection whose writes are gathered. The library flushes after every larger frame; nothing
/// leaves by that.
#[derive(Debug)]
pub struct Gathering(Rc<RefCell<Io>>);

/// Sends what a connection has gathered; whoever drives it says when all that is ready is written.
#[derive(Debug)]
pub struct Flusher(Rc<RefCell<Io>>);

impl Flusher {
    /// Sends everything.
    ///
    /// # Errors
    /// The socket's or TLS's.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.borrow_mut().poll_sent(context)
    }

    /// How many bytes the socket took so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.borrow().sent
    }

    /// The connection as a wire again, for its end; `None` while HTTP/2 is still spoken on it.
    #[must_use]
    pub fn into_wire(self) -> Option<Wire> {
        let io = Rc::into_inner(self.0)?.into_inner();
        Some(match io.stream {
            Stream::Tcp(stream) => Wire::new(stream),
            Stream::Tls(stream) => Wire::tls(TlsWire::new(*stream)),
        })
    }

    /// Gives the buffer back, if nothing is in it: a connection at rest holds none.
    pub fn rest(&self) {
        let io = &mut *self.0.borrow_mut();
        io.gathered.take_if(|gathered| gathered.bytes.is_empty());
        io.gathered.get_or_insert_default();
    }
}

#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    sent: usize,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// A plain connection of which `ahead` was read already.
    #[must_use]
    pub fn plain(ahead: Vec<u8>, stream: TcpStream) -> Self {
        Self::new(ahead, Stream::Tcp(stream))
    }

    /// The same under TLS.
    #[must_use]
    pub fn tls(ahead: Vec<u8>, stream: TlsStream<TcpStream>) -> Self {
        Self::new(ahead, Stream::Tls(Box::new(stream)))
    }

    fn new(ahead: Vec<u8>, stream: Stream) -> Self {
        Self { ahead, used: 0, stream, guard: None, sent: 0, turn: 0, gathered: None }
    }

    /// Counts the client's frames from here on, and breaks off when they are a flood, or when it
    /// resets more streams a second than `resets_per_s`.
    #[must_use]
    pub fn guarded(mut self, resets_per_s: u32) -> Self {
        self.guard = Some(Guard::new(resets_per_s));
        self
    }

    /// From here on what is written leaves with [`Flusher::poll`], or when it is much.
    #[must_use]
    pub fn gathers(mut self) -> (Gathering, Flusher) {
        self.gathered = Some(Gathered::default());
        let shared = Rc::new(RefCell::new(self));
        (Gathering(Rc::clone(&shared)), Flusher(shared))
    }

    fn stream(&mut self) -> Pin<&mut dyn Both> {
        self.stream.both()
    }

    fn poll_some(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.guard.is_some() && self.turn >= READ_TURN_BYTES {
            self.turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if self.used < self.ahead.len() {
            let count = buffer.remaining().min(self.ahead.len() - self.used);
            buffer.put_slice(&self.ahead[self.used..self.used + count]);
            self.used += count;
            if self.used == self.ahead.len() {
                self.ahead = Vec::new();
                self.used = 0;
            }
        } else {
            match self.stream().poll_read(context, buffer) {
                Poll::Ready(Ok(())) => {}
                other => {
                    self.turn = 0;
                    return other;
                }
            }
        }
        self.turn += buffer.filled().len() - before;
        let is_flood =
            self.guard.as_mut().is_some_and(|guard| !guard.read(&buffer.filled()[before..]));
        if is_flood {
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, Guard::MESSAGE)));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pieces(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let Some(gathered) = &mut self.gathered else {
            return self.stream.both().poll_write_vectored(context, pieces);
        };
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        loop {
            let held = gathered.bytes.len() - gathered.sent;
            if held + total <= GATHERED_MAX {
                if gathered.bytes.capacity() == 0 {
                    gathered.bytes.reserve(GATHERED_MAX);
                }
                for piece in pieces {
                    gathered.bytes.extend_from_slice(piece);
                }
                return Poll::Ready(Ok(total));
            }
            // Too much to wait for more: it goes behind what waits, in the same write.
            let mut all = [IoSlice::new(&[]); PIECES_MAX];
            all[0] = IoSlice::new(&gathered.bytes[gathered.sent..]);
            let count = pieces.len().min(PIECES_MAX - 1);
            all[1..=count].copy_from_slice(&pieces[..count]);
            let first = usize::from(held == 0);
            let stream = self.stream.both();
            let written = match stream.poll_write_vectored(context, &all[first..=count]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                other => return other,
            };
            self.sent += written as u64;
            gathered.advance(written.min(held));
            if written > held {
                return Poll::Ready(Ok(written - held));
            }
        }
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(gathered) = &mut self.gathered {
            while gathered.sent < gathered.bytes.len() {
                let stream = self.stream.both();
                match stream.poll_write(context, &gathered.bytes[gathered.sent..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => {
                        self.sent += written as u64;
                        gathered.advance(written);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        self.stream().poll_flush(context)
    }
}

impl Gathered {
    fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

impl Stream {
    fn both(&mut self) -> Pin<&mut dyn Both> {
        match self {
            Self::Tcp(stream) => Pin::new(stream as &mut dyn Both),
            Self::Tls(stream) => Pin::new(&mut **stream as &mut dyn Both),
        }
    }
}

/// What either stream can do.
trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        self.poll_some(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.poll_pieces(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.poll_pieces(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_sent(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self.poll_sent(context) {
            Poll::Ready(Ok(())) => self.stream().poll_shutdown(context),
            other => other,
        }
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        self.0.borrow_mut().poll_some(context, buffer)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.0.borrow_mut().poll_pieces(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.0.borrow_mut().poll_pieces(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)
    }
}
