//! `splitway explain`: why a rollout stands where it stands.

use clap::Args;
use serde_json::Value as Json;

use super::client::{Client, fail};
use super::{DONE, print, print_json, shown};

/// Say why a rollout stands where it stands.
#[derive(Debug, Args)]
pub struct Explain {
    /// The service; may be omitted where only one has a rollout
    service: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let found = self
            .client
            .service(self.service.as_deref())
            .and_then(|service| self.client.get(&format!("/api/v1/services/{service}/explain")));
        match found {
            Ok(found) if self.json => print_json(&found),
            Ok(found) => {
                let found = shown(&found);
                let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
                print(&format!("{}: {}\n", text(&found["service"]), text(&found["explain"])));
            }
            Err(error) => return fail(&error),
        }
        DONE
    }
}
