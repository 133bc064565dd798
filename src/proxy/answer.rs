//! The answer's direction of an exchange: heads, interim ones too, and the body behind them.

use std::task::{Context, Poll};

use crate::http1::rewrite::{self, Returning};
use crate::http1::{ResponseHead, Version, fields, grpc};
use crate::record::Pardon;
use crate::record::outcome::End;
use crate::wire::{UNSAYABLE, UNTOUCHED};

use super::exchange::{Answer, Event, Exchange};
use super::failure::{AnswerFault, Failure};
use super::pieces::{TURN_BYTES_MAX, empty, grow};

/// Interim answers that one request may bring; a server sends one or two.
const INTERIM_MAX: u8 = 16;
/// Bodies up to this size are copied behind their head: one write of one piece is cheaper than a
/// gathered write until the copy costs more.
const COPY_MAX: usize = 4 * 1024;

impl Exchange<'_> {
    pub(super) fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Event, Failure>> {
        let worker = self.worker;
        let mut turn = 0;
        loop {
            let wire = &mut self.downstream.wire;
            let before = self.back_sent;
            match wire.poll_flush(context, &self.back, &mut self.back_sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientLeft)),
                Poll::Pending => {
                    if self.back_sent > before {
                        self.extend_between_bytes();
                    }
                    return Poll::Pending;
                }
            }
            empty(&mut self.back);
            self.back_sent = 0;
            match self.answer {
                Answer::Body(body) if body.is_done() => return Poll::Ready(Ok(Event::Complete)),
                Answer::Switched => return Poll::Ready(Ok(Event::Switched)),
                _ => {}
            }
            if turn > TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let size = self.downstream.read_size;
            let Poll::Ready(size) = self.downstream.wire.poll_room(context, size) else {
                return Poll::Pending;
            };
            let mut buffer = worker.buffer();
            let upstream = self.upstream.as_mut().expect("connected before it is polled");
            let read = match upstream.connection.wire.poll_read(context, &mut buffer[..size]) {
                Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                Poll::Ready(Ok(_)) => return Poll::Ready(self.upstream_closed()),
                Poll::Ready(Err(error)) if error.kind() == UNTOUCHED => {
                    return Poll::Ready(Err(Failure::StreamRefused));
                }
                Poll::Ready(Err(error)) if error.kind() == UNSAYABLE => {
                    return Poll::Ready(Err(Failure::Unsayable));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::UpstreamClosed)),
                Poll::Pending => {
                    self.downstream.wire.leave_room();
                    return Poll::Pending;
                }
            };
            turn += read.len();
            let result = match &mut self.answer {
                Answer::Body(_) => self.relay(read),
                _ if self.partial.is_empty() => self.take_head(read),
                _ => {
                    let mut partial = std::mem::take(&mut self.partial);
                    partial.extend_from_slice(read);
                    self.take_head(&partial)
                }
            };
            if let Err(failure) = result {
                return Poll::Ready(Err(failure));
            }
            if self.is_again {
                return Poll::Ready(Ok(Event::Again));
            }
        }
    }

    /// The upstream sends no more, in order.
    fn upstream_closed(&mut self) -> Result<Event, Failure> {
        self.is_reusable = false;
        match self.answer {
            Answer::Body(body) if body.is_until_close() => Ok(Event::Complete),
            _ => Err(Failure::UpstreamClosed),
        }
    }

    /// Reads heads from the start of `bytes` until the final one, and what follows it.
    fn take_head(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let worker = self.worker;
        let limits = self.request.state.shared.downstream.answer_limits;
        while self.answer == Answer::Awaited {
            let mut spans = worker.fields();
            let head = match ResponseHead::parse(bytes, limits, &mut spans) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) => return Err(self.refuse_answer(AnswerFault::Head(error))),
            };
            let rest = &bytes[head.bytes.len()..];
            if head.status >= 200 || head.status == 101 {
                return self.take_final(&head, rest);
            }
            self.take_interim(&head)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Counts an answer that cannot be passed on, and says so at most once per second: whoever can
    /// make a server answer so could fill the log else.
    #[cold]
    fn refuse_answer(&self, fault: AnswerFault) -> Failure {
        let service = &self.request.service;
        service.recorder.track(self.track).answers_refused[fault.position()].increment();
        if self.worker.may_warn() {
            let (service, endpoint) = (service.shared.live.name(), self.endpoint);
            let fault = Failure::BadAnswer(fault);
            tracing::warn!(service, ?endpoint, %fault, "an answer is not passed on");
        }
        Failure::BadAnswer(fault)
    }

    fn take_interim(&mut self, head: &ResponseHead<'_>) -> Result<(), Failure> {
        self.interim_count += 1;
        if self.interim_count > INTERIM_MAX {
            return Err(self.refuse_answer(AnswerFault::Interim));
        }
        self.request.expects &= head.status != 100;
        if self.request.version == Version::Http11 {
            // An interim head says nothing of the connection, hence no Via, no cookie, no close.
            let returning = Returning {
                version: Version::Http11,
                keep_alive: true,
                upgrade: false,
                unchunk: false,
                cookie: None,
                edits: &[],
                added: b"",
                via: None,
            };
            rewrite::response(&mut self.back, head, &returning);
        }
        Ok(())
    }

    fn take_final(&mut self, head: &ResponseHead<'_>, rest: &[u8]) -> Result<(), Failure> {
        let now_ns = self.worker.clock.now_ns();
        let is_switch = head.status == 101;
        if is_switch && !(self.request.upgrade && self.is_sent) {
            // Nobody else could bring it about than a client that asks for a switch and holds back
            // the rest of its request.
            let is_asked_for = self.request.upgrade;
            let unasked = || self.refuse_answer(AnswerFault::Switch);
            return Err(if is_asked_for { Failure::EarlySwitch } else { unasked() });
        }
        if head.status >= 400 && self.tries_again(Failure::Unwanted(head.status)) {
            self.is_again = true;
            return Ok(());
        }
        let mut body = head.body(self.request.to_head);
        let unchunk = body.is_chunked() && self.request.version == Version::Http10;
        self.keep_alive &= !body.is_until_close() && !unchunk && !self.worker.is_draining();
        self.keep_alive &= !self.may_leave_body(head);
        self.is_reusable = head.facts.persists(head.version) && !body.is_until_close();
        let shared = &self.request.service.shared;
        let mut is_error = head.status >= 500 || shared.error_statuses.contains(&head.status);
        if self.request.is_grpc {
            let status = grpc::field(head.bytes, head.fields, "grpc-status").map(grpc::status);
            is_error |= status.is_some_and(|status| shared.grpc_errors & 1 << status != 0);
            self.grpc_status = status;
        }
        if is_error && let Some(reason) = self.excuse() {
            self.request.outcome.pardon(reason);
        }
        let is_lasting = is_switch || head.is_event_stream();
        self.request.outcome.head(now_ns, head.status, is_error, is_lasting);

        let worker = self.worker;
        let mut scratch = worker.scratch();
        self.with_edits(|edits, added| {
            let returning = Returning {
                version: self.request.version,
                keep_alive: self.keep_alive,
                upgrade: is_switch,
                unchunk,
                cookie: self.request.cookie.as_deref(),
                edits,
                added,
                via: self.request.state.shared.downstream.via.as_deref(),
            };
            rewrite::response(&mut scratch, head, &returning);
        });
        if is_switch {
            scratch.extend_from_slice(rest);
            self.answer = Answer::Switched;
            return self.send_back(&scratch, b"");
        }
        let data = if unchunk { Some(&mut *scratch) } else { None };
        let taken = body.read_parts(rest, data, &mut self.trailers);
        let taken = taken.map_err(|_| self.refuse_answer(AnswerFault::Chunk))?;
        // Bytes behind the answer belong to nobody: such a connection is not used again.
        self.is_reusable &= taken.used == rest.len();
        self.answer = Answer::Body(body);
        self.extend_between_bytes();
        let passed = if unchunk { b"" } else { &rest[..taken.passed] };
        if passed.len() > COPY_MAX && self.trailers.is_empty() {
            return self.send_back(&scratch, passed);
        }
        scratch.extend_from_slice(passed);
        self.end_with_trailers(unchunk, &mut scratch)?;
        self.send_back(&scratch, b"")
    }

    /// Passes a piece of the body on.
    fn relay(&mut self, read: &[u8]) -> Result<(), Failure> {
        self.extend_between_bytes();
        let Answer::Body(body) = &mut self.answer else { unreachable!("only bodies are relayed") };
        let worker = self.worker;
        let mut scratch = worker.scratch();
        let unchunk = body.is_chunked() && self.request.version == Version::Http10;
        let data = if unchunk { Some(&mut *scratch) } else { None };
        let taken = body.read_parts(read, data, &mut self.trailers);
        let taken = taken.map_err(|_| self.refuse_answer(AnswerFault::Chunk))?;
        self.is_reusable &= taken.used == read.len();
        if unchunk {
            return self.send_back(&scratch, b"");
        }
        let passed = &read[..taken.passed];
        if self.trailers.is_empty() {
            return self.send_back(passed, b"");
        }
        self.end_with_trailers(unchunk, &mut scratch)?;
        self.send_back(passed, &scratch)
    }

    /// Appends the trailers of an answer, once they are whole.
    fn end_with_trailers(&self, unchunk: bool, out: &mut Vec<u8>) -> Result<(), Failure> {
        let is_whole = matches!(self.answer, Answer::Body(body) if body.is_done());
        if unchunk || self.trailers.is_empty() || !is_whole {
            return Ok(());
        }
        self.return_trailers(out).map_err(|_| self.refuse_answer(AnswerFault::Chunk))
    }

    /// How a complete answer ends: it may be a failed call all the same, or nobody's upstream's doing.
    pub(super) fn verdict_of_trailers(&mut self) -> End {
        let end = self.verdict_of_call();
        self.request.outcome.pardoned().map_or(end, End::Pardoned)
    }

    fn verdict_of_call(&mut self) -> End {
        let status = self.request.outcome.status();
        if !self.request.is_grpc || !(200..300).contains(&status) {
            return End::Complete;
        }
        let mut found = Vec::new();
        let limits = self.request.state.shared.downstream.answer_limits;
        let read = fields::read(&self.trailers, 0, Version::Http11, limits, &mut found);
        let of_trailers = match read {
            Ok(Some(_)) => grpc::field(&self.trailers, &found, "grpc-status").map(grpc::status),
            _ => None,
        };
        // A head with a status has told its own.
        let is_head = self.grpc_status.is_some();
        let status = self.grpc_status.or(of_trailers).unwrap_or(grpc::UNKNOWN);
        self.request.outcome.grpc(status);
        let is_error = self.request.service.shared.grpc_errors & 1 << status != 0;
        if !is_error || is_head {
            End::Complete
        } else if self.is_out_of_time(status) {
            End::Pardoned(Pardon::ClientDeadline)
        } else {
            End::Failed
        }
    }

    /// Tells a client of gRPC how its call has ended though its head has gone: to a reset stream it
    /// would say INTERNAL, whatever the reason. False where nothing can be told any more.
    pub(super) async fn end_call(&mut self, failure: Failure) -> bool {
        let Answer::Body(body) = self.answer else { return false };
        let is_readable = self.request.is_grpc && self.request.version == Version::Http11;
        if !(is_readable && body.is_between_chunks()) {
            return false;
        }
        let before = self.back.len();
        grpc::write_end(&mut self.back, failure.grpc_status(), &failure.to_string());
        self.bytes_back += (self.back.len() - before) as u64;
        self.request.outcome.grpc(failure.grpc_status());
        self.extend_between_bytes();
        self.downstream.flush(self.worker, &self.back, &mut self.back_sent).await
    }

    /// Writes to the client what it takes at once and keeps the rest.
    fn send_back(&mut self, first: &[u8], second: &[u8]) -> Result<(), Failure> {
        let total = first.len() + second.len();
        self.bytes_back += total as u64;
        let wire = &mut self.downstream.wire;
        let written = match (self.back.is_empty(), second.is_empty()) {
            (false, _) => Ok(0),
            (true, true) if first.is_empty() => Ok(0),
            (true, true) => wire.try_write(first),
            (true, false) => wire.try_write_two(first, second),
        };
        let written = written.map_err(|_| Failure::ClientLeft)?;
        if written < total {
            if self.back.capacity() == 0 {
                self.back = self.worker.spare();
            }
            self.back.extend_from_slice(&first[written.min(first.len())..]);
            self.back.extend_from_slice(&second[written.saturating_sub(first.len())..]);
        }
        grow(&mut self.downstream.read_size, total, written == total);
        Ok(())
    }
}
