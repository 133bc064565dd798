//! `splitway promote`: one stage up, or to the last at once.

use clap::Args;
use serde_json::json;

use super::operate::Order;

/// Raise the canary by a stage now; this is also how a stage is approved.
#[derive(Debug, Args)]
pub struct Promote {
    /// The service; may be omitted where only one has a rollout
    service: Option<String>,
    /// To the last stage at once
    #[arg(long)]
    full: bool,
    /// Although the evidence speaks against the canary
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    order: Order,
}

impl Promote {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let body = json!({ "full": self.full, "force": self.force });
        self.order.give(self.service.as_deref(), "promote", body)
    }
}
