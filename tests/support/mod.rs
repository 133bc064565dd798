//! What the tests have in common: the real gateway, real servers, a client that sees bytes.

pub mod certificates;
pub mod client;
pub mod gateway;
pub mod load;
pub mod prometheus;
pub mod receiver;
pub mod tools;
pub mod upstream;

pub use certificates::Certificates;
pub use client::Client;
pub use gateway::{Gateway, two_tracks};
pub use load::{Load, StopOnDrop, Tested, Turn};
pub use prometheus::Prometheus;
pub use receiver::Receiver;
pub use upstream::{Session, Upstream};

use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails; far longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until there is an answer; a test that never gets one fails instead of hanging.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        // Asking without pause would slow what is waited for.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder of a test's own, in memory where there is such a place: a busy disk has been seen to
/// take ten seconds and more for a rename.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
