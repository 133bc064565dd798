//! Rollouts in simulated time: traffic models that drive the very judge and machine that run in
//! production. Pure: dice come as an argument.

pub mod figures;
pub mod rollout;
pub mod scenario;
pub mod traffic;

pub use figures::Figures;
pub use rollout::{Ended, Outcome, simulate};
pub use scenario::{Scenario, Spec};
