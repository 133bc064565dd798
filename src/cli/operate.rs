//! `splitway pause`, `resume`, `rollback`, `retry`: commands of one word. The others build on it.

use clap::Args;
use serde_json::{Value as Json, json};

use super::client::{Client, fail};
use super::{DONE, print, print_json, shown};

/// A command to one rollout.
#[derive(Debug, Args)]
pub struct Operate {
    /// The service; may be omitted where only one has a rollout
    service: Option<String>,
    #[command(flatten)]
    order: Order,
}

/// How a command is given.
#[derive(Debug, Args)]
pub struct Order {
    #[command(flatten)]
    client: Client,
    /// Who asks, for the journal; omitted: the user's name
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Operate {
    /// Gives the command `word` and returns the exit code.
    #[must_use]
    pub fn run(self, word: &str) -> u8 {
        self.order.give(self.service.as_deref(), word, json!({}))
    }
}

impl Order {
    /// Gives the command `word` with `body` and returns the exit code.
    #[must_use]
    pub fn give(&self, service: Option<&str>, word: &str, body: Json) -> u8 {
        match self.try_give(service, word, body) {
            Ok(done) if self.json => print_json(&done),
            Ok(done) => {
                let done = shown(&done);
                let text = |key: &str| done[key].as_str().unwrap_or("-").to_owned();
                let (service, version, phase) = (text("service"), text("version"), text("phase"));
                let weight = done["weight"].as_f64().unwrap_or(0.0);
                print(&format!("{service}: {version} is {phase} at {weight} %\n"));
            }
            Err(error) => return fail(&error),
        }
        DONE
    }

    fn try_give(&self, service: Option<&str>, word: &str, mut body: Json) -> Result<Json, String> {
        let service = self.client.service(service)?;
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        body["actor"] = self.actor.clone().or_else(user).unwrap_or_else(|| "cli".into()).into();
        self.client.post(&format!("/api/v1/services/{service}/{word}"), &body)
    }
}
