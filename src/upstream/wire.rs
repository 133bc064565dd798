//! One socket, downstream's or upstream's, with the few calls that an exchange makes on it.
//!
//! Reads poll (tokio drops readiness after a short read, so no read ends in EAGAIN); writes are
//! tried at once and wait only for what did not go. TLS will be a second kind of wire here.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connected byte stream.
#[derive(Debug)]
pub struct Wire(TcpStream);

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
        // Without it a head and a late body would wait for an acknowledgement; failure to set it
        // costs latency only.
        let _ = stream.set_nodelay(true);
        Self(stream)
    }

    /// Reads into `buffer`; 0 bytes mean that the other side sends no more.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut self.0).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes what the socket takes at once, possibly nothing.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.try_write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Writes what the socket takes at once of `head` and then `body`.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_write_two(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        match self.0.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Writes `bytes[*written..]`, waiting for room as often as it takes.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *written < bytes.len() {
            *written += self.try_write(&bytes[*written..])?;
            if *written < bytes.len() {
                match self.0.poll_write_ready(context) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the other side does something, without reading it.
    pub fn poll_peek(&mut self, context: &mut Context<'_>) -> Poll<Peeked> {
        let mut byte = [0];
        match self.0.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => Poll::Ready(Peeked::Closed),
            Poll::Ready(Ok(_)) => Poll::Ready(Peeked::Bytes),
            Poll::Ready(Err(_)) => Poll::Ready(Peeked::Broken),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether an idle wire is still quiet: a close or stray bytes make it useless.
    ///
    /// Costs no system call while the runtime has seen nothing arrive.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let read = self.0.try_read(&mut [0]);
        matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Says that no more will be written.
    ///
    /// # Errors
    /// The socket's; the other side may be gone already.
    pub fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    /// Makes the coming close a reset, so that what was cut short cannot look complete.
    pub fn reset_on_close(&self) {
        // Where the option fails the close is an ordinary one, as for any server that dies.
        let _ = socket2::SockRef::from(&self.0).set_linger(Some(std::time::Duration::ZERO));
    }
}
