//! The life of a request, in the order of its files: intake, exchange, relay, finish.

pub mod alarm;
mod answer;
mod asker;
pub mod budget;
pub mod client;
pub mod clock;
mod closing;
mod connect;
pub mod counters;
pub mod downstream;
mod edits;
pub mod exchange;
pub mod failure;
mod fault;
mod http2;
pub mod intake;
pub mod local;
mod mirror;
mod redirects;
mod remainder;
mod retry;
pub mod serve;
mod target;
mod tell;
mod trailers;
pub mod tunnel;
mod upload;
mod user;
pub mod worker;

pub use clock::Clock;
pub use counters::DownstreamCounters;
pub use failure::{AnswerFault, Failure};
pub use serve::serve;
pub use worker::Worker;
