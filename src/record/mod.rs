//! What workers write and the control thread reads: counters, histograms, cohort slots.
//!
//! Every number has one writer, the worker that owns the shard, which stores without a locked
//! instruction; readers sum the shards. Nothing here allocates, formats or waits on the request
//! path.

pub mod cohort;
pub mod counter;
pub mod fault;
pub mod fingerprint;
pub mod histogram;
pub mod live;
pub mod outcome;

pub use cohort::{Counts, Cuts, Split, Users};
pub use counter::Counter;
pub use fault::{Fault, Pardon};
pub use histogram::Histogram;
pub use live::{Live, Reason, Recorder, TrackShard};
pub use outcome::Outcome;
