//! Sockets, accepting, the workers' threads, and their drain.

pub mod accept;
pub mod listen;
pub mod workers;

pub use accept::AcceptCounters;
pub use listen::listen;
pub use workers::Workers;
