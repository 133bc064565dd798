//! A connection as HTTP/2 needs it: what was read already first, and frames counted.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::guard::Guard;

/// A connection below HTTP/2.
#[derive(Debug)]
pub struct Io {
    /// Read before this protocol was known.
    ahead: Vec<u8>,
    used: usize,
    stream: Stream,
    guard: Option<Guard>,
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
        Self { ahead, used: 0, stream: Stream::Tcp(stream), guard: None }
    }

    /// The same under TLS.
    #[must_use]
    pub fn tls(ahead: Vec<u8>, stream: TlsStream<TcpStream>) -> Self {
        Self { ahead, used: 0, stream: Stream::Tls(Box::new(stream)), guard: None }
    }

    /// Counts the client's frames from here on, and breaks off when they are a flood.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.guard = Some(Guard::new());
        self
    }

    fn stream(&mut self) -> Pin<&mut dyn Both> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream as &mut dyn Both),
            Stream::Tls(stream) => Pin::new(&mut **stream as &mut dyn Both),
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
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.used < this.ahead.len() {
            let count = buffer.remaining().min(this.ahead.len() - this.used);
            buffer.put_slice(&this.ahead[this.used..this.used + count]);
            this.used += count;
            if this.used == this.ahead.len() {
                this.ahead = Vec::new();
                this.used = 0;
            }
        } else {
            match this.stream().poll_read(context, buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        let is_flood =
            this.guard.as_mut().is_some_and(|guard| !guard.read(&buffer.filled()[before..]));
        if is_flood {
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, Guard::MESSAGE)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.stream().poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
