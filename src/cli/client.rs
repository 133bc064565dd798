//! The command line's hand on a running gateway: its admin API.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;

use super::FAILED;

/// How long the admin API may take; a raise waits for the disk for up to three of them.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the gateway is, and who asks.
#[derive(Clone, Debug, Args)]
pub struct Client {
    /// Where the admin API listens
    #[arg(long, default_value = "127.0.0.1:9900", value_name = "HOST:PORT")]
    admin: String,
    /// A bearer token; better passed as `SPLITWAY_TOKEN`
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

impl Client {
    /// A client of the admin API at `admin`, without a token.
    #[must_use]
    pub fn at(admin: &str) -> Self {
        Self { admin: admin.to_owned(), token: None }
    }

    /// Gets what is at `path`.
    ///
    /// # Errors
    /// In words: no answer, or what the gateway says is wrong.
    pub fn get(&self, path: &str) -> Result<Json, String> {
        self.ask("GET", path, "")
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    /// In words: no answer, or what the gateway says is wrong.
    pub fn post(&self, path: &str, body: &Json) -> Result<Json, String> {
        self.ask("POST", path, &body.to_string())
    }

    /// The service that is meant: the one named, or the only one with a rollout.
    ///
    /// # Errors
    /// None, or several.
    pub fn service(&self, named: Option<&str>) -> Result<String, String> {
        if let Some(name) = named {
            return Ok(name.to_owned());
        }
        let status = self.get("/api/v1/status")?;
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let with_rollout: Vec<&str> = services
            .iter()
            .filter(|service| !service["rollout"].is_null())
            .filter_map(|service| service["name"].as_str())
            .collect();
        match with_rollout[..] {
            [one] => Ok(one.to_owned()),
            [] => Err("no service has a rollout".into()),
            _ => Err(format!("name the service, one of {}", with_rollout.join(", "))),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Json, String> {
        let answer = self
            .exchange(method, path, body)
            .map_err(|error| format!("no answer from the admin API at {}: {error}", self.admin))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
        let code = head.split(' ').nth(1).unwrap_or_default();
        let body: Json = serde_json::from_str(body).map_err(|error| error.to_string())?;
        if code == "200" {
            return Ok(body);
        }
        let detail = body["detail"].as_str().unwrap_or_default();
        Err(format!("{} answered {code}: {detail}", self.admin))
    }

    /// One request, the connection closed behind it. HTTP/1.0, so that the body comes as it is.
    fn exchange(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let token = self.token.clone().or_else(|| std::env::var("SPLITWAY_TOKEN").ok());
        let token =
            token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let admin = &self.admin;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: {admin}\r\ncontent-length: {length}\r\n{token}\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// Says what went wrong, and returns the exit code for it.
#[must_use]
pub fn fail(error: &str) -> u8 {
    eprintln!("splitway: {error}");
    FAILED
}
