//! The control side's knowledge of endpoints: names, the addresses they stand for, and how they are.

mod ask;
pub mod names;
pub mod outliers;
pub mod probes;
pub mod tender;

pub use names::resolve;
pub use probes::Prober;
pub use tender::Tender;
