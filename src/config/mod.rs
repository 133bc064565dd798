//! The YAML edge: nothing behind this module knows that configuration is YAML.
//!
//! A file becomes a tree with places, the tree becomes typed sections, these are validated as a
//! whole and compiled to the picture that workers read. Every fault of a file is reported at once.

pub mod choices;
pub mod compile;
pub mod dead;
mod downstream;
pub mod exposed;
pub mod fault;
pub mod heads;
pub mod listeners;
pub mod load;
pub mod logs;
pub mod material;
pub mod node;
pub mod notifications;
mod owned;
pub mod paths;
pub mod plan;
pub mod questions;
pub mod resilience;
pub mod rollout;
pub mod section;
pub mod sticky;
pub mod transport;
pub mod types;
pub mod validate;
mod validate_rollout;
pub mod values;
pub mod watch;

pub use compile::{Registry, compile};
pub use fault::{Fault, Faults};
pub use load::{Loaded, load, parse};
pub use material::Material;
pub use types::Config;
