//! The rollout: plan and machine (pure), journal, and the controller, which alone raises a live
//! weight.

pub mod command;
pub mod controller;
pub mod edit;
pub mod explain;
pub mod external;
mod gather;
pub mod governed;
pub mod journal;
pub mod machine;
pub mod outlook;
pub mod pardoned;
pub mod plan;
pub mod progress;
pub mod record;
pub mod report;
pub mod run;
pub mod writer;

pub use command::Command;
pub use controller::Controller;
pub use machine::{Cause, Change, Machine, Phase, Transition};
pub use plan::{Figures, Plan, Stage};
pub use report::Report;
