//! The control side's knowledge of endpoints: names and the addresses they stand for.

pub mod names;

pub use names::resolve;
