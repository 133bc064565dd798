//! `splitway schema`: the JSON Schema of the configuration, for editors.

use clap::Args;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::config::section::Value;

use super::{DONE, print};

/// Print the JSON Schema of the configuration.
#[derive(Debug, Args)]
pub struct Schema {}

impl Schema {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        print(&format!("{:#}\n", document()));
        DONE
    }
}

/// The schema as a document of its own.
#[must_use]
pub fn document() -> Json {
    let mut schema = Config::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Splitway configuration");
    schema
}
