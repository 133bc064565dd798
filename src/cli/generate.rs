//! `splitway completions` and `splitway man`: what shells and `man` read, made from the commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::client::fail;
use super::{Arguments, DONE, print};

/// Print completions for a shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "splitway", &mut text);
        print(&String::from_utf8_lossy(&text));
        DONE
    }
}

/// Print the man page.
#[derive(Debug, Args)]
pub struct Man {
    /// Of one command only
    command: Option<String>,
}

impl Man {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let mut all = Arguments::command();
        all.build();
        let page = match &self.command {
            None => all,
            Some(name) => match all.find_subcommand(name) {
                Some(one) => one.clone(),
                None => return fail(&format!("`{name}` is no command; see `splitway --help`")),
            },
        };
        let mut text = Vec::new();
        if let Err(error) = clap_mangen::Man::new(page).render(&mut text) {
            return fail(&error.to_string());
        }
        print(&String::from_utf8_lossy(&text));
        DONE
    }
}
