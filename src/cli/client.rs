//! The command line's hand on a running gateway: its admin API.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;

use super::FAILED;

/// Where it listens unless it is told otherwise.
const DEFAULT: &str = "127.0.0.1:9900";
/// How long the admin API may take; a raise waits for the disk for up to three of them.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the gateway is, and who asks.
#[derive(Clone, Debug, Args)]
pub struct Client {
    /// Where the admin API listens: HOST:PORT, or the path of `admin.socket`; omitted:
    /// `SPLITWAY_ADMIN`, else 127.0.0.1:9900
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// A bearer token; better passed as `SPLITWAY_TOKEN`
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

impl Client {
    /// A client of the admin API at `admin`, without a token.
    #[must_use]
    pub fn at(admin: &str) -> Self {
        Self { admin: Some(admin.to_owned()), token: None }
    }

    /// Gets what is at `path`.
    ///
    /// # Errors
    /// In words: no answer, or what the gateway says is wrong.
    pub fn get(&self, path: &str) -> Result<Json, String> {
        self.ask("GET", path, "")
    }

    /// The status and the text at `path`.
    ///
    /// # Errors
    /// In words: no answer.
    pub fn text(&self, path: &str) -> Result<(u16, String), String> {
        let answer = self.exchange("GET", path, "");
        let answer =
            answer.map_err(|error| format!("no answer from {}: {error}", self.address()))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or("the answer is no HTTP")?, body.to_owned()))
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

    /// Where the admin API is.
    #[must_use]
    pub fn address(&self) -> String {
        let named = || std::env::var("SPLITWAY_ADMIN").ok().filter(|named| !named.is_empty());
        let address = self.admin.clone().or_else(named);
        address.map_or_else(
            || DEFAULT.to_owned(),
            |address| address.strip_prefix("unix:").unwrap_or(&address).to_owned(),
        )
    }

    /// Follows the events: calls `each` with every one until it says to stop or the stream ends.
    ///
    /// # Errors
    /// In words: no answer, what the gateway says is wrong, or a stream that fell silent.
    pub fn follow(&self, mut each: impl FnMut(&Json) -> bool) -> Result<(), String> {
        let lost = |error: std::io::Error| format!("no answer from {}: {error}", self.address());
        let stream = self.send("GET", "/api/v1/events", "").map_err(lost)?;
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        loop {
            line.clear();
            let read = (&mut lines).take(ANSWER_BYTES_MAX).read_line(&mut line).map_err(lost)?;
            if read == 0 {
                return Err(format!("{} ended the stream", self.address()));
            }
            if let Some(code) = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "))
                && !code.starts_with("200")
            {
                let mut rest = String::new();
                lines.take(ANSWER_BYTES_MAX).read_to_string(&mut rest).map_err(lost)?;
                return parse(&self.address(), &format!("{line}{rest}")).map(drop);
            }
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let event = serde_json::from_str(data).map_err(|error| error.to_string())?;
            if !each(&event) {
                return Ok(());
            }
        }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Json, String> {
        let address = self.address();
        let answer = self
            .exchange(method, path, body)
            .map_err(|error| format!("no answer from the admin API at {address}: {error}"))?;
        parse(&address, &answer)
    }

    /// One request, the connection closed behind it.
    fn exchange(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut answer = String::new();
        let stream = self.send(method, path, body)?;
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Sends a request. HTTP/1.0, so that the body comes as it is.
    fn send(&self, method: &str, path: &str, body: &str) -> std::io::Result<Box<dyn Read>> {
        let address = self.address();
        let token = self.token.clone().or_else(|| std::env::var("SPLITWAY_TOKEN").ok());
        let token =
            token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let length = body.len();
        let request = |host: &str| {
            format!(
                "{method} {path} HTTP/1.0\r\nhost: {host}\r\ncontent-length: {length}\r\n\
                 {token}\r\n{body}"
            )
        };
        if address.starts_with(['/', '.']) {
            let mut stream = UnixStream::connect(&address)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.write_all(request("localhost").as_bytes())?;
            return Ok(Box::new(stream));
        }
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(request(&address).as_bytes())?;
        Ok(Box::new(stream))
    }
}

/// The JSON of an answer that is 200.
fn parse(address: &str, answer: &str) -> Result<Json, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    let code = head.split(' ').nth(1).unwrap_or_default();
    let body: Json = serde_json::from_str(body).map_err(|error| error.to_string())?;
    if code == "200" {
        return Ok(body);
    }
    let detail = body["detail"].as_str().unwrap_or_default();
    Err(format!("{address} answered {code}: {detail}"))
}

/// Says what went wrong, and returns the exit code for it.
#[must_use]
pub fn fail(error: &str) -> u8 {
    eprintln!("splitway: {error}");
    FAILED
}
