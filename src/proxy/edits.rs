//! What a service and a rule change in the heads that pass.

use std::fmt::Write;
use std::sync::LazyLock;

use crate::http1::{Edits, RequestHead, TraceParent, rewrite};
use crate::route::{Headers, Source};

use super::exchange::Exchange;
use super::local::LocalService;
use super::tell::Context;
use super::worker::Worker;

/// What a head loses that names its request by an empty id.
static NAMELESS: LazyLock<Edits> =
    LazyLock::new(|| Edits { removed: vec!["x-request-id".into()], ..Edits::default() });

/// Sets of changes that are collected without allocating: the service's, the rule's, the trace's,
/// and some guards. However many a configuration has, all apply.
const EDITS_FEW: usize = 8;

/// Changes that apply, in their order.
struct Collected<'a> {
    few: [&'a Edits; EDITS_FEW],
    count: usize,
    /// All of them, where they are more than few.
    many: Vec<&'a Edits>,
}

impl<'a> Collected<'a> {
    fn new(none: &'a Edits) -> Self {
        Self { few: [none; EDITS_FEW], count: 0, many: Vec::new() }
    }

    fn add(&mut self, edits: &'a Edits) {
        if edits.is_empty() {
            return;
        }
        if let Some(place) = self.few.get_mut(self.count) {
            *place = edits;
            self.count += 1;
        } else {
            if self.many.is_empty() {
                self.many.extend(self.few);
            }
            self.many.push(edits);
        }
    }

    fn all(&self) -> &[&'a Edits] {
        if self.many.is_empty() { &self.few[..self.count] } else { &self.many }
    }
}

/// Writes the head for the upstream with everything that applies to a request from `source`.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    (worker, service): (&Worker, &LocalService),
    (head, source): (&RequestHead<'_>, Source),
    (rule, context): (Option<usize>, Option<Context>),
    forwarding: rewrite::Forwarding<'_>,
) {
    let shared = &service.shared;
    let mut collected = Collected::new(&shared.edits.request);
    if let Some(context) = &context {
        collected.add(context.edits());
    }
    for (from, edits) in &shared.guarded {
        if !source.is_in(from) {
            collected.add(edits);
        }
    }
    collected.add(&shared.edits.request);
    if let Some(rule) = rule {
        collected.add(&shared.rules[rule].edits.request);
    }
    let mut made = String::new();
    if shared.made.request_id && !head.any("x-request-id", &mut |id| !id.is_empty()) {
        if head.any("x-request-id", &mut |_| true) {
            collected.add(&NAMELESS);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_changes_there_are_all_apply() {
        let none = Edits::default();
        for count in 0..40 {
            let edits: Vec<Edits> = (0..count)
                .map(|index| Edits { removed: vec![format!("x-{index}").into()], ..none.clone() })
                .collect();
            let mut collected = Collected::new(&none);
            for edits in &edits {
                collected.add(&none);
                collected.add(edits);
            }
            assert!(collected.all().iter().copied().eq(&edits), "{count}");
        }
    }
}
