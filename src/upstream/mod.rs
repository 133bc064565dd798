//! The servers' side: endpoints, the choice among them, pooled connections, dialling.

pub mod balance;
pub mod dial;
pub mod endpoint;
mod link;
pub mod pool;
pub mod transport;

pub use endpoint::{Endpoint, Places};
pub use pool::{Connection, DialError, Pool};
pub use transport::{Protocol, Transport};
