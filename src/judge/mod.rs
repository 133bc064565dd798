//! The judge: evidence in, verdict out. Pure: no clock, no dice, no I/O.
//!
//! The gateway draws each request's track itself, so whatever happens to both tracks at once hits
//! them in the known proportion of the weights and cancels exactly. [`sequential`] bets on that:
//! its wealth is a test supermartingale for every canary within the limits, so that the chance
//! that it ever rolls one back wrongly is at most `alpha`, over all stages, metrics and looks
//! together (Ville's inequality). [`threshold`] is the literal rule set of dashboards and
//! `AnalysisTemplates`, [`rules`] are the plain rules on crashes and readiness, [`alarm`] notices
//! a split that is not what it should be.

pub mod alarm;
pub mod bet;
pub mod parameters;
pub mod rules;
pub mod sequential;
pub mod threshold;
pub mod wealth;

pub use parameters::Parameters;
pub use sequential::{Arm, Arms, Judge, Opinion, Tick};

/// The latency quantiles that are judged, in the order of every pair in this module.
pub const QUANTILES: [f64; 2] = [0.99, 0.90];
