//! `splitway run`: serve until asked to stop.

use std::path::PathBuf;

use clap::Args;

use crate::app::{self, RunError};

use super::{BAD_INPUT, DONE, FAILED, complain, runtime};

/// Serve the traffic that a configuration describes.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Run {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                complain(&format!("splitway: no runtime: {error}"));
                return FAILED;
            }
        };
        let running = async { app::run(&self.config, true, app::stop_signal(), |_| {}).await };
        match runtime.block_on(running) {
            Ok(()) => DONE,
            Err(RunError::Config(faults)) => {
                complain(&faults.to_string());
                BAD_INPUT
            }
            Err(error @ RunError::Other(_)) => {
                complain(&format!("splitway: {error}"));
                FAILED
            }
        }
    }
}
