//! What clients make the gateway hold, and how much that may be.
//!
//! Every buffer that grows while somebody does not read belongs to a client. It is charged to the
//! account of that client's connection, the account to its source, and all sources to one budget. A
//! connection that holds much gets smaller pieces and no further requests; when all together hold
//! too much, the source that holds the most is refused first.

mod account;
mod budget;
mod source;

pub use account::{Account, Charge, SCARCE_BYTES};
pub use budget::{Budget, Limit};
pub use source::{NoPlace, Place, Sources, source_of};
