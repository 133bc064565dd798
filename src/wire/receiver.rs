//! The receiving half of an HTTP/2 stream, read as an HTTP/1 message: head, framing, data.

use std::io::{Result, Write};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h2::RecvStream;

use super::sender::broken;
use super::translate::{self, Framing};

/// Most bytes that the framing of one chunk takes: sixteen digits and two line ends.
const CHUNK_FRAMING_MAX: usize = 20;

/// Data on its way out of a stream.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: RecvStream,
    framing: Framing,
    /// Head or framing that is read before anything else.
    staged: Staged,
    data: Bytes,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Ended,
}

/// Bytes that are being read.
#[derive(Debug, Default)]
pub(super) struct Staged {
    bytes: Vec<u8>,
    used: usize,
}

impl Staged {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, used: 0 }
    }

    /// Moves what fits into `buffer`; 0 when nothing is staged.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.bytes[self.used..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        if self.used == self.bytes.len() {
            *self = Self::default();
        }
        count
    }
}

impl Receiver {
    /// A stream whose head reads as `head`, with a body framed as `framing`.
    pub(super) fn new(stream: RecvStream, head: Vec<u8>, framing: Framing) -> Self {
        let stage = if stream.is_end_stream() { Stage::Ended } else { Stage::Data };
        Self { stream, framing, staged: Staged::new(head), data: Bytes::new(), stage }
    }

    /// Bytes that have come and were not read yet.
    pub(super) fn waiting(&mut self) -> usize {
        self.staged.bytes.len() + self.stream.flow_control().used_capacity()
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        let mut filled = 0;
        loop {
            filled += self.staged.read(&mut buffer[filled..]);
            filled += self.take_data(&mut buffer[filled..])?;
            if filled + CHUNK_FRAMING_MAX >= buffer.len() || !self.data.is_empty() {
                return Poll::Ready(Ok(filled));
            }
            match self.poll_more(context) {
                Poll::Ready(Ok(true)) => {}
                // What came before the fault is delivered first.
                Poll::Ready(Err(error)) if filled == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Ready(Ok(false) | Err(_)) | Poll::Pending => return Poll::Ready(Ok(filled)),
            }
        }
    }

    /// Brings more to read; false at the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        match self.stage {
            Stage::Data => match self.stream.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => self.data = data,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                Poll::Ready(None) => self.stage = Stage::Trailers,
                Poll::Pending => return Poll::Pending,
            },
            Stage::Trailers => {
                let trailers = match self.stream.poll_trailers(context) {
                    Poll::Ready(trailers) => trailers.map_err(broken)?,
                    Poll::Pending => return Poll::Pending,
                };
                self.stage = Stage::Ended;
                if self.framing == Framing::Chunked {
                    let mut tail = b"0\r\n".to_vec();
                    if let Some(trailers) = trailers {
                        translate::trailers_to_wire(&mut tail, &trailers);
                    }
                    tail.extend_from_slice(b"\r\n");
                    self.staged = Staged::new(tail);
                }
            }
            Stage::Ended => return Poll::Ready(Ok(false)),
        }
        Poll::Ready(Ok(true))
    }

    /// Moves data into `buffer`, as a chunk where that is the framing.
    fn take_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let is_chunked = self.framing == Framing::Chunked;
        let room = buffer.len().saturating_sub(if is_chunked { CHUNK_FRAMING_MAX } else { 0 });
        let count = self.data.len().min(room);
        if count == 0 {
            return Ok(0);
        }
        let mut at = 0;
        if is_chunked {
            let mut rest = &mut buffer[..CHUNK_FRAMING_MAX];
            write!(rest, "{count:x}\r\n")?;
            at = CHUNK_FRAMING_MAX - rest.len();
        }
        buffer[at..at + count].copy_from_slice(&self.data[..count]);
        at += count;
        if is_chunked {
            buffer[at..at + 2].copy_from_slice(b"\r\n");
            at += 2;
        }
        self.data.advance(count);
        // The stream may be over for the other side; then nobody waits for room.
        let _ = self.stream.flow_control().release_capacity(count);
        Ok(at)
    }
}
