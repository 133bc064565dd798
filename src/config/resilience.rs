//! The sections by which a service bears failures and floods: retries, rates.

use super::choices::{Decimal, RetryOn};
use super::fault::Place;
use super::section::section;
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
    }
}

fn default_on() -> OneOrMany<RetryOn> {
    OneOrMany(vec![
        RetryOn::Reset,
        RetryOn::Status(502),
        RetryOn::Status(503),
        RetryOn::Status(504),
    ])
}
