//! How clients are treated, from a checked configuration.

use std::sync::Arc;

use crate::http1::Limits;
use crate::memory::Limit;
use crate::state::{CountLimit, DownstreamPolicy};

use super::choices::{Bound, HalfClose};
use super::types::Config;
use super::values::Whole;

/// The policy that `config` describes.
pub(super) fn policy(config: &Config) -> DownstreamPolicy {
    let limits = Limits {
        head_bytes: usize::try_from(config.limits.head.value.0).unwrap_or(usize::MAX),
        header_count: config.limits.headers.0 as usize,
    };
    DownstreamPolicy {
        limits,
        answer_limits: Limits {
            head_bytes: limits.head_bytes.max(Limits::default().head_bytes),
            ..limits
        },
        serves_half_closed: config.half_close == HalfClose::Serve,
        body_bytes_max: config.limits.body.0.map(|size| size.0),
        head_timeout_ns: config.timeouts.head.ns(),
        idle_timeout_ns: config.timeouts.idle.ns(),
        via: config.via.0.as_deref().map(Into::into),
        access_log: config.log.access.0.as_ref().map(|format| Arc::clone(&format.0)),
        http2_streams: config.limits.http2_streams.0,
        http2_resets: config.limits.http2_resets.0,
        connections_max: count(config.limits.connections),
        connections_per_source_max: count(config.limits.connections_per_source),
        memory: config.limits.memory.or(Limit::Auto, Limit::Off, |most| Limit::Bytes(most.0)),
    }
}

fn count<const MIN: u32, const MAX: u32>(bound: Bound<Whole<MIN, MAX>>) -> CountLimit {
    bound.or(CountLimit::Auto, CountLimit::Off, |most| CountLimit::Most(most.0))
}
