//! The control side of recording: from what workers count to what the judge is told.
//!
//! [`cohorts`] closes the cohorts of each split in the order of their assignment, [`users`] lets
//! each sticky user's failure count once, [`cuts`] knows how fast stable is.

pub mod cohorts;
pub mod cuts;
pub mod users;

pub use cohorts::{Closed, Cohorts, Open};
pub use cuts::{LatencyWindow, StableLatency};
pub use users::StickyUsers;
