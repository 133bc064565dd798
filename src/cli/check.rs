//! `splitway check`: every fault of every file, or a word that there is none; and what is dead.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use crate::calendar::wall_ms;
use crate::config::{self, Fault, Faults, Material};

use super::{BAD_INPUT, DONE, complain, print, print_json};

/// Check configurations and show every fault.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Do not read the certificates and keys that the files name
    #[arg(long)]
    without_files: bool,
    /// Fail by warnings, too: of what can never come to pass
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let mut code = DONE;
        let mut results = Vec::new();
        for file in &self.files {
            let result = self.check(file);
            let is_fine =
                result.as_ref().is_ok_and(|(_, warned)| !self.strict || warned.faults.is_empty());
            if !is_fine {
                code = BAD_INPUT;
            }
            if self.json {
                let (faults, warnings) = match &result {
                    Ok((_, warned)) => (&[][..], &warned.faults[..]),
                    Err(faults) => (&faults.faults[..], &[][..]),
                };
                results.push(json!({
                    "file": file,
                    "faults": told(faults),
                    "warnings": told(warnings),
                }));
            } else {
                show(file, result);
            }
        }
        if self.json {
            print_json(&json!(results));
        }
        code
    }

    /// How many services `file` has, and what in it is dead.
    fn check(&self, file: &Path) -> Result<(usize, Faults), Faults> {
        let config = config::load(file)?.config;
        let mut warnings = config::dead::warnings(&config);
        warnings.extend(config::exposed::warnings(&config));
        if !self.without_files {
            let material = Material::read(&config, file, &Material::default())?;
            let now_s = i64::try_from(wall_ms() / 1_000).unwrap_or(i64::MAX);
            warnings.extend(config::dead::certificates(&config, &material, now_s));
        }
        Ok((config.services.len(), Faults::new(file, warnings)))
    }
}

fn told(faults: &[Fault]) -> Vec<Json> {
    let one = |fault: &Fault| {
        json!({
            "line": fault.place.map(|place| place.line),
            "column": fault.place.map(|place| place.column),
            "field": fault.field,
            "message": fault.message,
        })
    };
    faults.iter().map(one).collect()
}

fn show(file: &Path, result: Result<(usize, Faults), Faults>) {
    let plural = |count| if count == 1 { "" } else { "s" };
    match result {
        Ok((services, warned)) => {
            warned.lines().for_each(|line| complain(&format!("warning: {line}")));
            let warnings = match warned.faults.len() {
                0 => String::new(),
                count => format!(", {count} warning{}", plural(count)),
            };
            let plural = plural(services);
            print(&format!("{}: ok, {services} service{plural}{warnings}\n", file.display()));
        }
        Err(faults) => complain(&faults.to_string()),
    }
}
