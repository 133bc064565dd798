//! The admin API: metrics, health and what the gateway is doing, over HTTP on its own thread.

pub mod api;
pub mod status;

pub use api::{Admin, Reload, serve};
