//! `splitway status`: what a running gateway does, from its admin API.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;

use super::{DONE, FAILED, print};

/// How long the admin API may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Show what a running gateway does.
#[derive(Debug, Args)]
pub struct Status {
    /// Only this service
    service: Option<String>,
    /// Where the admin API listens
    #[arg(long, default_value = "127.0.0.1:9900", value_name = "HOST:PORT")]
    admin: String,
    /// A bearer token that may look; better passed as `SPLITWAY_TOKEN`
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        match self.fetch() {
            Ok(status) => {
                let status = self.filtered(status);
                print(&if self.json { format!("{status:#}\n") } else { table(&status) });
                DONE
            }
            Err(error) => {
                eprintln!("splitway: {error}");
                FAILED
            }
        }
    }

    fn filtered(&self, mut status: Json) -> Json {
        if let (Some(name), Some(services)) = (&self.service, status["services"].as_array_mut()) {
            services.retain(|service| service["name"] == **name);
        }
        status
    }

    fn fetch(&self) -> Result<Json, String> {
        let token = self.token.clone().or_else(|| std::env::var("SPLITWAY_TOKEN").ok());
        let answer = get(&self.admin, "/api/v1/status", token.as_deref())
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
}

/// One GET, the connection closed behind it. HTTP/1.0, so that the body comes as it is.
fn get(admin: &str, path: &str, token: Option<&str>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let token =
        token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {admin}\r\n{token}\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The status for people: a line per track.
fn table(status: &Json) -> String {
    let mut rows = vec![
        ["SERVICE", "TRACK", "VERSION", "WEIGHT", "REQUESTS", "5XX", "ENDPOINTS"]
            .map(str::to_owned),
    ];
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Json| value.as_str().unwrap_or("-").to_owned();
    for service in list(&status["services"]) {
        for track in list(&service["tracks"]) {
            let counts = track["statuses"].as_object().cloned().unwrap_or_default();
            let requests: u64 = counts.values().filter_map(Json::as_u64).sum();
            rows.push([
                text(&service["name"]),
                text(&track["name"]),
                text(&track["version"]),
                format!("{} %", track["weight"]),
                requests.to_string(),
                track["statuses"]["5xx"].to_string(),
                list(&track["endpoints"]).len().to_string(),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    if status["config"]["last_reload_successful"] == false {
        out.push_str("The last reload was refused; the configuration before it serves on.\n");
    }
    out
}
