//! The admin API and the page: metrics, health, status, history, commands. hyper serves it, on the
//! control thread.

pub mod api;
mod body;
mod command;
mod connections;
pub mod feed;
mod guard;
mod page;
pub mod series;
pub mod status;

pub use api::{Admin, Reload, Wish, serve};
pub use feed::Feed;
pub use guard::Tokens;
