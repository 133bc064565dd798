//! `splitway set-weight`: this share for the canary, and pause.

use clap::Args;
use serde_json::json;

use crate::track::Weight;

use super::operate::Order;
use super::{BAD_INPUT, complain};

/// Give the canary this share and pause the rollout there.
#[derive(Debug, Args)]
pub struct SetWeight {
    /// The service, unless only one has a rollout, and the percentage
    #[arg(required = true, num_args = 1..=2, value_names = ["SERVICE", "PERCENT"])]
    arguments: Vec<String>,
    #[command(flatten)]
    order: Order,
}

impl SetWeight {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let (service, percent) = match &self.arguments[..] {
            [percent] => (None, percent),
            [service, percent, ..] => (Some(service.as_str()), percent),
            [] => return BAD_INPUT,
        };
        match percent.trim_end_matches('%').parse::<Weight>() {
            Ok(weight) => {
                let percent = f64::from(weight.basis_points()) / 100.0;
                self.order.give(service, "weight", json!({ "weight": percent }))
            }
            Err(error) => {
                complain(&format!("splitway: `{percent}` {error}"));
                BAD_INPUT
            }
        }
    }
}
