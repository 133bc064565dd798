//! `splitway history`: what moved a rollout, when and why.

use clap::Args;
use serde_json::Value as Json;

use crate::calendar::rfc3339;

use super::client::{Client, fail};
use super::{DONE, print, print_json, shown};

/// List what moved a rollout, when and why.
#[derive(Debug, Args)]
pub struct History {
    /// The service; may be omitted where only one has a rollout
    service: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl History {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let found = self
            .client
            .service(self.service.as_deref())
            .and_then(|service| self.client.get(&format!("/api/v1/services/{service}/history")));
        match found {
            Ok(found) if self.json => print_json(&found),
            Ok(found) => {
                let list = shown(&found["history"]).as_array().cloned().unwrap_or_default();
                print(&list.iter().map(line).collect::<String>());
            }
            Err(error) => return fail(&error),
        }
        DONE
    }
}

/// One transition as a line: time, version, phases, weights, evidence, who and why.
#[must_use]
pub fn line(transition: &Json) -> String {
    let text = |key: &str| transition[key].as_str().unwrap_or("-").to_owned();
    let time = rfc3339(transition["at_ms"].as_u64().unwrap_or(0));
    let (version, from, to) = (text("version"), text("from"), text("to"));
    let percent = |key: &str| transition[key].as_f64().unwrap_or(0.0);
    let (before, after) = (percent("weight_before"), percent("weight"));
    let e = transition["e"].as_f64().unwrap_or(0.0);
    let attempt = match transition["attempt"].as_u64() {
        Some(attempt) if attempt > 1 => format!(" (attempt {attempt})"),
        _ => String::new(),
    };
    format!(
        "{time}  {version}{attempt}  {from} → {to}  {before} → {after} %  evidence {e:.2}  {}: {}\n",
        text("actor"),
        text("why")
    )
}
