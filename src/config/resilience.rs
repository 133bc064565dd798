//! The sections by which a service bears failures and floods, and tries a version in the dark:
//! retries, rates, balance, ejection, mirror.

use std::sync::Arc;

use crate::state::{
    BalanceBy, BalancePolicy, EjectionPolicy, InFlightLimit, MirrorPolicy, RetryPolicy,
};
use crate::track::TrackIndex;

use super::choices::{BalanceChoice, Decimal, MirrorMethods, RetryOn};
use super::fault::Place;
use super::section::section;
use super::types::Service;
use super::values::{At, OneOrMany, OrOff, Size, Span, Whole};

section! {
    /// Which failures are tried again. Only requests that may be sent twice are: idempotent methods
    /// and those with an Idempotency-Key. Whatever comes of it, the failure stays the failure of the
    /// track that was drawn.
    pub struct Retries {
        /// Further tries within the track, on other endpoints where there are some.
        pub attempts: Whole<0, 10> = or(Whole(1)),
        /// After what: reset, timeout, or statuses.
        pub on: OneOrMany<RetryOn> = or(default_on()),
        /// For one try to bring its response head, or off: `first_byte` alone.
        pub per_try_timeout: OrOff<Span> = or(OrOff(None)),
        /// The largest request, head included, that is kept for another try.
        pub body: Size = or(Size(64 * 1024)),
        /// The requests that may be tried again, in percent.
        pub budget: At<Decimal> = or(At { value: Decimal(20.0), place: Place::default() }),
        /// And at least so many per second.
        pub budget_min: Whole<0, 1_000_000> = or(Whole(10)),
        /// A weighted request that failed on the canary is tried once on stable, within the budget: its
        /// user sees no failure, the judge does.
        pub rescue: bool = or(false),
    }
}

section! {
    /// How often clients may ask.
    pub struct RateLimit {
        /// Requests per second, for each who asks.
        pub per_second: Whole<1, 1_000_000> = required,
        /// Requests at once. Omitted: one second's.
        pub burst: Option<Whole<1, 10_000_000>> = or(None),
        /// The header field that tells who asks. Omitted, or absent: the source address (IPv6: its /64).
        pub header: Option<At<String>> = or(None),
        /// With `header`: one address may ask as often as so many keys, and one connection as an
        /// eighth of them, whatever keys it sends. Or off.
        pub keys_per_source: OrOff<Whole<1, 1_000_000>> = or(OrOff(Some(Whole(64)))),
    }
}

section! {
    /// How the endpoints of a track are chosen.
    pub struct Balance {
        /// `least_requests` (the fewest under way, of two drawn), `round_robin`, or key: whoever asks
        /// keeps its endpoint.
        pub by: BalanceChoice = or(BalanceChoice::LeastRequests),
        /// For key: the header field that tells who asks. Omitted, or absent: the source.
        pub header: Option<At<String>> = or(None),
        /// How long an endpoint that comes takes to get its full due, or off.
        pub slow_start: OrOff<Span> = or(OrOff(None)),
        /// When fewer percent of the endpoints than this are healthy, all are used.
        pub panic: Whole<0, 100> = or(Whole(50)),
    }
}

section! {
    /// Endpoints that stand out by their failures get no traffic for a while. Their failures stay
    /// evidence.
    pub struct Ejection {
        /// Failures in a row that eject, or off.
        pub consecutive: OrOff<Whole<1, 1_000>> = or(OrOff(Some(Whole(5)))),
        /// Percent of failures in the window that ejects, or off.
        pub failures: OrOff<Whole<1, 100>> = or(OrOff(Some(Whole(50)))),
        /// Requests that the window needs for that.
        pub min_requests: Whole<1, 1_000_000> = or(Whole(20)),
        /// How far the window looks back.
        pub window: Span = or(Span::seconds(10)),
        /// The first ejection; every further one lasts as much longer.
        pub base: Span = or(Span::seconds(30)),
        /// The longest.
        pub max: Span = or(Span::seconds(300)),
        /// At most so many percent of a track's endpoints at once.
        pub share: Whole<1, 100> = or(Whole(50)),
    }
}

section! {
    /// Copies of requests are sent to another track, with X-Splitway-Mirror, once they are answered. What
    /// comes of the copies is counted and thrown away; no judge sees it.
    pub struct Mirror {
        /// The track whose requests are copied.
        pub from: At<String> = or(At { value: "stable".into(), place: Place::default() }),
        /// The track that gets the copies.
        pub to: At<String> = or(At { value: "canary".into(), place: Place::default() }),
        /// How many of them, in percent.
        pub share: At<Decimal> = or(At { value: Decimal(100.0), place: Place::default() }),
        /// safe (GET, HEAD, OPTIONS), or any: what writes is written twice then.
        pub methods: MirrorMethods = or(MirrorMethods::Safe),
        /// Copies under way at once; further ones are not made.
        pub max_in_flight: Whole<1, 100_000> = or(Whole(64)),
        /// The largest request, head included, that is copied.
        pub body: Size = or(Size(64 * 1024)),
        /// For a copy to be answered.
        pub timeout: Span = or(Span::seconds(10)),
    }
}

/// What tells a copy from its original, to those that must not act twice.
pub(super) const MIRROR_FIELD: &str = "x-splitway-mirror";

fn default_on() -> OneOrMany<RetryOn> {
    OneOrMany(vec![
        RetryOn::Reset,
        RetryOn::Status(502),
        RetryOn::Status(503),
        RetryOn::Status(504),
    ])
}

pub(super) fn balance(balance: &Balance) -> BalancePolicy {
    BalancePolicy {
        by: match balance.by {
            BalanceChoice::LeastRequests => BalanceBy::LeastRequests,
            BalanceChoice::RoundRobin => BalanceBy::RoundRobin,
            BalanceChoice::Key => BalanceBy::Key(
                balance.header.as_ref().map(|header| header.to_ascii_lowercase().into()),
            ),
        },
        slow_start_s: balance.slow_start.0.map(|span| span.0.as_secs_f64()),
        panic_share: u8::try_from(balance.panic.0).unwrap_or(100),
    }
}

pub(super) fn ejection(ejection: &Ejection) -> (EjectionPolicy, u8) {
    let policy = EjectionPolicy {
        consecutive: ejection.consecutive.0.map(|count| count.0),
        failure_share: ejection.failures.0.map(|percent| f64::from(percent.0) / 100.0),
        requests_min: ejection.min_requests.0.into(),
        window_s: ejection.window.0.as_secs_f64(),
        base_s: ejection.base.0.as_secs_f64(),
        max_s: ejection.max.0.as_secs_f64(),
    };
    (policy, u8::try_from(ejection.share.0).unwrap_or(100))
}

pub(super) fn retry(
    service: &Service,
    retries: &Retries,
    index_of: &impl Fn(&str) -> TrackIndex,
) -> RetryPolicy {
    let status = |on: &RetryOn| match on {
        RetryOn::Status(status) => Some(*status),
        RetryOn::Reset | RetryOn::Timeout => None,
    };
    let may_rescue = retries.rescue && service.tracks.get("canary").is_some();
    RetryPolicy {
        attempts: u8::try_from(retries.attempts.0).unwrap_or(u8::MAX),
        on_reset: retries.on.0.contains(&RetryOn::Reset),
        on_timeout: retries.on.0.contains(&RetryOn::Timeout),
        statuses: retries.on.0.iter().filter_map(status).collect(),
        per_try_timeout_ns: retries.per_try_timeout.0.map(Span::ns),
        body_bytes_max: usize::try_from(retries.body.0).unwrap_or(usize::MAX),
        budget_share: retries.budget.0 / 100.0,
        budget_floor_per_s: f64::from(retries.budget_min.0),
        rescue: may_rescue.then(|| (index_of("canary"), index_of("stable"))),
    }
}

pub(super) fn mirror(
    mirror: &Mirror,
    in_flight: Arc<InFlightLimit>,
    index_of: &impl Fn(&str) -> TrackIndex,
) -> MirrorPolicy {
    MirrorPolicy {
        from: index_of(&mirror.from),
        to: index_of(&mirror.to),
        share: mirror.share.0 / 100.0,
        any_method: mirror.methods == MirrorMethods::Any,
        in_flight,
        body_bytes_max: usize::try_from(mirror.body.0).unwrap_or(usize::MAX),
        timeout: mirror.timeout.0,
        line: format!("{MIRROR_FIELD}: {}\r\n", mirror.from.value).into_bytes().into(),
    }
}
