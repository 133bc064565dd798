//! The admin API: metrics, health, status, commands. hyper serves it, on the control thread.

pub mod api;
mod command;
pub mod status;

pub use api::{Admin, Reload, Wish, serve};
