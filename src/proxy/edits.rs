//! What a service and a rule change in the heads that pass.

use std::fmt::Write;
use std::net::IpAddr;

use crate::http1::{Edits, RequestHead, TraceParent, rewrite};
use crate::route::Headers;

use super::exchange::Exchange;
use super::local::LocalService;
use super::tell::Context;
use super::worker::Worker;

/// Most sets of changes that meet in one request: the service's, the rule's, and a few guards.
const EDITS_MAX: usize = 8;

/// Changes that apply, collected without allocating.
struct Collected<'a> {
    edits: [&'a Edits; EDITS_MAX],
    count: usize,
}

impl<'a> Collected<'a> {
    fn new(none: &'a Edits) -> Self {
        Self { edits: [none; EDITS_MAX], count: 0 }
    }

    fn add(&mut self, edits: &'a Edits) {
        let is_something = !(edits.removed.is_empty() && edits.lines.is_empty());
        if is_something && self.count < EDITS_MAX {
            self.edits[self.count] = edits;
            self.count += 1;
        }
    }

    fn all(&self) -> &[&'a Edits] {
        &self.edits[..self.count]
    }
}

/// Writes the head for the upstream with everything that applies to a request from `source`.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    (worker, service): (&Worker, &LocalService),
    (head, source): (&RequestHead<'_>, IpAddr),
    (rule, context): (Option<usize>, Option<Context>),
    forwarding: rewrite::Forwarding<'_>,
) {
    let shared = &service.shared;
    let mut collected = Collected::new(&shared.edits.request);
    if let Some(context) = &context {
        collected.add(context.edits());
    }
    for (from, edits) in &shared.guarded {
        if !from.iter().any(|net| net.contains(&source)) {
            collected.add(edits);
        }
    }
    collected.add(&shared.edits.request);
    if let Some(rule) = rule {
        collected.add(&shared.rules[rule].edits.request);
    }
    let mut made = String::new();
    if shared.made.request_id && !head.any("x-request-id", &mut |_| true) {
        // A String takes every write.
        let _ = write!(made, "x-request-id: {:016x}{:016x}\r\n", worker.dice(), worker.dice());
    }
    // The last line of the head, where an attempt finds it and writes its own span.
    if let Some(context) = context {
        made += &context.ours.line();
    } else if shared.made.traceparent && !head.any("traceparent", &mut |_| true) {
        // No id is all zero.
        let trace = u128::from(worker.dice()) << 64 | u128::from(worker.dice() | 1);
        made += &TraceParent { trace, span: worker.dice() | 1, sampled: true }.line();
    }
    let edits = collected.all();
    rewrite::request(
        out,
        head,
        &rewrite::Forwarding { edits, made: made.as_bytes(), ..forwarding },
    );
}

impl Exchange<'_> {
    /// Runs `write` with what changes in the answer's head.
    pub(super) fn with_edits<T>(&self, write: impl FnOnce(&[&Edits], &[u8]) -> T) -> T {
        let shared = &self.request.service.shared;
        let mut collected = Collected::new(&shared.edits.response);
        collected.add(&shared.edits.response);
        if let Some(rule) = self.request.rule {
            collected.add(&shared.rules[rule].edits.response);
        }
        let hsts = self.downstream.client.listener.hsts.as_deref();
        if !shared.made.track {
            return write(collected.all(), hsts.unwrap_or_default());
        }
        let track = shared.tracks.iter().find(|track| track.index == self.track);
        let echo = track.map_or(&b""[..], |track| &track.echo);
        write(collected.all(), &[hsts.unwrap_or_default(), echo].concat())
    }
}
