//! `splitway check`: every fault of every file, or a word that there is none.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::config::{self, Material};

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
            let result = config::load(file).and_then(|loaded| {
                if !self.without_files {
                    Material::read(&loaded.config, file, &Material::default())?;
                }
                Ok(loaded)
            });
            if result.is_err() {
                code = BAD_INPUT;
            }
            match (self.json, result) {
                (true, result) => results.push(json!({
                    "file": file,
                    "faults": result.err().map_or_else(Vec::new, |faults| faults.faults)
                        .iter()
                        .map(|fault| json!({
                            "line": fault.place.map(|place| place.line),
                            "column": fault.place.map(|place| place.column),
                            "field": fault.field,
                            "message": fault.message,
                        }))
                        .collect::<Vec<_>>(),
                })),
                (false, Ok(loaded)) => {
                    let services = loaded.config.services.len();
                    let plural = if services == 1 { "" } else { "s" };
                    print(&format!("{}: ok, {services} service{plural}\n", file.display()));
                }
                (false, Err(faults)) => complain(&faults.to_string()),
            }
        }
        if self.json {
            print_json(&json!(results));
        }
        code
    }
}
