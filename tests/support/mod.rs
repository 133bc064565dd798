//! What the tests have in common: the real gateway, real servers, a client that sees bytes.

pub mod certificates;
pub mod client;
pub mod gateway;
pub mod load;
pub mod tools;
pub mod upstream;

pub use certificates::Certificates;
pub use client::Client;
pub use gateway::{Gateway, two_tracks};
pub use load::{Load, StopOnDrop, Tested, Turn};
pub use upstream::Upstream;

use std::time::Duration;

/// How long anything may take before a test fails; far longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
