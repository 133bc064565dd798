//! The command line: one file per command.

pub mod check;
pub mod client;
pub mod demo;
pub mod demo_parts;
pub mod explain;
pub mod generate;
pub mod history;
pub mod import;
pub mod operate;
pub mod parallel;
pub mod plan;
pub mod promote;
pub mod ready;
pub mod replay;
pub mod run;
pub mod schema;
pub mod set_weight;
pub mod simulate;
pub mod status;
mod terminal;
pub mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use terminal::{complain, draw, print, print_json, shown};

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Usage or bad input.
pub const BAD_INPUT: u8 = 2;
/// A rollout that has neither been promoted nor rolled back yet.
pub const UNDECIDED: u8 = 3;

#[derive(Debug, Parser)]
#[command(
    name = "splitway",
    version,
    about = "Splits traffic between two versions of a service, and moves it on proof"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the traffic that a configuration describes
    Run(run::Run),
    /// Check configurations and show every fault
    #[command(visible_alias = "lint")]
    Check(check::Check),
    /// Print the JSON Schema of the configuration
    Schema(schema::Schema),
    /// Show what a running gateway does
    #[command(visible_aliases = ["get", "list"])]
    Status(status::Status),
    /// Show every rollout live
    Watch(watch::Watch),
    /// Exit with 0 if a gateway takes traffic
    Ready(ready::Ready),
    /// Say why a rollout stands where it stands
    Explain(explain::Explain),
    /// List what moved a rollout, when and why
    History(history::History),
    /// Stop a rollout from rising; it may still fall
    Pause(operate::Operate),
    /// Let a paused rollout go on
    Resume(operate::Operate),
    /// Raise the canary by a stage now, or approve the next
    Promote(promote::Promote),
    /// Send all traffic back to stable
    #[command(visible_alias = "abort")]
    Rollback(operate::Operate),
    /// Start a version that was rolled back again, with a fresh account
    Retry(operate::Operate),
    /// Give the canary a share and pause there
    SetWeight(set_weight::SetWeight),
    /// Run a plan against simulated traffic before a release
    Simulate(simulate::Simulate),
    /// Judge evidence from a file, or a journal
    Replay(replay::Replay),
    /// Show a whole rollout in a minute, or a rollback
    Demo(demo::Demo),
    /// Make a Splitway file of Kubernetes, Istio or Argo Rollouts manifests
    Import(import::Import),
    /// Print completions for a shell
    Completions(generate::Completions),
    /// Print the man page
    Man(generate::Man),
}

/// Whether `line` is a command as a shell's user would write it, without running it: what pages
/// show must be what the program takes. Words are split at spaces; there are no quotes.
///
/// # Errors
/// What clap finds wrong with it.
pub fn understands(line: &str) -> Result<(), String> {
    match Arguments::try_parse_from(line.split_whitespace()) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        // Help and version are no errors.
        _ => Ok(()),
    }
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
        Command::Watch(command) => command.run(),
        Command::Ready(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Pause(command) => command.run("pause"),
        Command::Resume(command) => command.run("resume"),
        Command::Promote(command) => command.run(),
        Command::Rollback(command) => command.run("rollback"),
        Command::Retry(command) => command.run("retry"),
        Command::SetWeight(command) => command.run(),
        Command::Simulate(command) => command.run(),
        Command::Replay(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    ExitCode::from(code)
}

/// The single-threaded runtime of the control side.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
