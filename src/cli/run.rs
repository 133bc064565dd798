//! `splitway run`: serve until asked to stop.

use std::path::PathBuf;

use clap::Args;

use crate::app::{self, RunError};

use super::{BAD_INPUT, DONE, FAILED, runtime};

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
                eprintln!("splitway: no runtime: {error}");
                return FAILED;
            }
        };
        let running = async { app::run(&self.config, true, app::stop_signal(), |_| {}).await };
        match runtime.block_on(running) {
            Ok(()) => DONE,
            Err(RunError::Config(faults)) => {
                eprintln!("{faults}");
                BAD_INPUT
            }
            Err(error @ RunError::Other(_)) => {
                eprintln!("splitway: {error}");
                FAILED
            }
        }
    }
}
