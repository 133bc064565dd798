//! The command line: one file per command.

pub mod check;
pub mod demo;
pub mod demo_parts;
pub mod run;
pub mod schema;
pub mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Usage or bad input.
pub const BAD_INPUT: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "splitway", version, about = "Splits traffic between two versions of a service")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the traffic that a configuration describes
    Run(run::Run),
    /// Check configurations and show every fault
    Check(check::Check),
    /// Print the JSON Schema of the configuration
    Schema(schema::Schema),
    /// Show what a running gateway does
    Status(status::Status),
    /// Show a split, its metrics and a weight change in a minute
    Demo(demo::Demo),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // clap prints usage errors itself and exits with 2, as the field does.
    let code = match Arguments::parse().command {
        Command::Run(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Demo(command) => command.run(),
    };
    ExitCode::from(code)
}

/// Writes to standard output; a reader that has gone (`| head`) ends the program quietly.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let mut output = std::io::stdout().lock();
    if output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_err() {
        std::process::exit(i32::from(FAILED));
    }
}

/// The single-threaded runtime of the control side.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
