//! The servers' side: endpoints, the choice among them, pooled connections, dialling.

pub mod balance;
pub mod endpoint;
pub mod pool;
pub mod wire;

pub use endpoint::Endpoint;
pub use pool::{Connection, Pool};
pub use wire::Wire;
