//! A socket under TLS, either side's.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::{Io, Peeked, poll_read, send_at_once};

/// A connection on which TLS is agreed.
#[derive(Debug)]
pub struct TlsWire {
    stream: TlsStream<TcpStream>,
    /// A byte that a look brought; TLS can not look without taking.
    ahead: Option<u8>,
    /// What came was no TLS, and an alert has said so.
    is_broken: bool,
}

impl TlsWire {
    /// Takes an agreed connection over.
    #[must_use]
    pub fn new(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        let stream = stream.into();
        send_at_once(stream.get_ref().0);
        Self { stream, ahead: None, is_broken: false }
    }

    pub(super) fn into_socket(self) -> TcpStream {
        match self.stream {
            TlsStream::Client(stream) => stream.into_inner().0,
            TlsStream::Server(stream) => stream.into_inner().0,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    /// Whether HTTP/2 was agreed.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// The other side's certificate, in DER, if it showed one.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.peer_certificates()?.first().map(AsRef::as_ref)
    }

    pub(super) fn into_io(self, mut read: Vec<u8>) -> Io {
        read.extend(self.ahead);
        Io::tls(read, self.stream)
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        if let Some(byte) = self.ahead.take() {
            buffer[0] = byte;
            // What follows is here already, or comes with the next read.
            let more = match poll_read(&mut self.stream, context, &mut buffer[1..]) {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            return Poll::Ready(Ok(1 + more));
        }
        let read = poll_read(&mut self.stream, context, buffer);
        self.is_broken |= matches!(read, Poll::Ready(Err(_)));
        read
    }

    /// Takes what fits into records; they leave now or with the flush that follows every write.
    pub(super) fn try_write(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize> {
        // Whoever writes flushes next, with a waker of its own.
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.stream).poll_write_vectored(&mut context, pieces) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(0),
        }
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Whether records wait for the socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.stream.get_ref().1.wants_write()
    }

    pub(super) fn poll_peek(&mut self, context: &mut Context<'_>) -> Poll<Peeked> {
        if self.ahead.is_some() {
            return Poll::Ready(Peeked::Bytes);
        }
        let mut byte = [0];
        poll_read(&mut self.stream, context, &mut byte).map(|read| match read {
            Ok(0) => Peeked::Closed,
            Ok(_) => {
                self.ahead = Some(byte[0]);
                Peeked::Bytes
            }
            Err(_) => Peeked::Broken,
        })
    }

    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.is_broken {
            // Nothing follows a fatal alert (RFC 8446 §6.2).
            return Pin::new(self.stream.get_mut().0).poll_shutdown(context);
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
